"""What TensorBoard shows besides curves: pictures of the predictions, of the network and of what it sees."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from fmnist import inspection
from fmnist.callbacks.projector import write_embedding
from fmnist.classes import CLASSES, IMAGE_SHAPE
from fmnist.classifier import Classifier
from fmnist.data.augment import normalise
from fmnist.metrics import metric_names
from fmnist.reporting.charts import confusion_chart
from fmnist.reporting.style import to_array
from fmnist.reporting.tiles import map_tiles, prediction_tiles

Count = Annotated[int, Ge(0)]
COLUMNS = 4  # of the grid: with more its titles can't be read at the width at which TensorBoard first shows a picture


class Pictures(Callback):
    """Draws from the validation images, or, where there are none, what can be drawn of the first training image.

    No weight and no random number changes by it.

    Args:
        every_n_epochs: how often, besides the last epoch.
        predictions: how many validation images the grid "predicted (true)" shows.
        confusion: the confusion matrix.
        precision_recall: a precision-recall curve of each class against all others.
        filters: the first layer's weights.
        activations: the maps that each convolution makes of the first image.
        weights: histograms of all parameters, before the first step too.
        graph: the network's graph, at the beginning.
        embedding: how many validation images the projector shows, by the features before the last layer, at the end.
    """

    def __init__(
        self,
        every_n_epochs: Annotated[int, Ge(1)],
        predictions: Count,
        confusion: bool,
        precision_recall: bool,
        filters: bool,
        activations: bool,
        weights: bool,
        graph: bool,
        embedding: Count,
    ) -> None:
        self.every_n_epochs = every_n_epochs
        self.predictions = predictions
        self.confusion = confusion
        self.precision_recall = precision_recall
        self.filters = filters
        self.activations = activations
        self.weights = weights
        self.graph = graph
        self.embedding = embedding
        self._logits: list[Tensor] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if (writer := _writer(trainer)) is None:
            return
        writer.add_custom_scalars(charts())
        if trainer.global_step == 0:
            self._show_weights(writer, _network(pl_module), step=0)
        if self.graph:
            image = torch.zeros(1, *IMAGE_SHAPE, device=pl_module.device)
            with inspection.evaluating(_network(pl_module)) as network, warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # TensorBoard's writer still traces, as torch once did
                writer.add_graph(network, image)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        assert isinstance(outputs, Tensor)
        self._logits.append(outputs)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        logits, self._logits = torch.cat(self._logits).float().cpu(), []
        if (writer := _writer(trainer)) is None or not self._due(trainer):
            return
        step = _step(trainer)
        images, labels = _images(trainer)["val"]
        labels = labels[: len(logits)]
        if self.confusion:
            assert isinstance(pl_module, Classifier)
            _show(writer, "confusion", confusion_chart(pl_module.metrics("val").compute()["confusion"]), step)
        if shown := min(self.predictions, len(logits)):
            predicted = logits[:shown].argmax(dim=1)
            _show(writer, "predictions", prediction_tiles(images[:shown, 0], predicted, labels[:shown], COLUMNS), step)
        if self.precision_recall:
            probabilities = logits.softmax(dim=1)
            for k, name in enumerate(CLASSES):
                writer.add_pr_curve(f"precision_recall/{name}", labels == k, probabilities[:, k], step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if (writer := _writer(trainer)) is None or not self._due(trainer):
            return
        step, network = _step(trainer), _network(pl_module)
        filters = inspection.first_filters(network, IMAGE_SHAPE) if self.filters else None
        if filters is not None:
            _show(writer, "filters", map_tiles(filters, "filters of the first layer"), step)
        if self.activations:
            images, _ = _images(trainer).get("val", _images(trainer)["train"])
            maps = inspection.activation_maps(network, normalise(images[:1]).to(pl_module.device)[0])
            for number, (name, activation) in enumerate(maps.items(), 1):
                _show(writer, f"activations/{number}", map_tiles(activation, f"what {name} makes of an image"), step)
        self._show_weights(writer, network, step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if _writer(trainer) is None or not self.embedding or "val" not in _images(trainer):
            return
        images, labels = (part[: self.embedding] for part in _images(trainer)["val"])
        features, logits = inspection.features(_network(pl_module), normalise(images).to(pl_module.device))
        write_embedding(Path(str(trainer.log_dir)), features, images[:, 0], labels, logits.argmax(dim=1))

    def _show_weights(self, writer: SummaryWriter, network: nn.Module, step: int) -> None:
        if self.weights:
            for name, parameter in network.named_parameters():
                writer.add_histogram(f"weights/{name}", parameter.detach().float(), step)

    def _due(self, trainer: Trainer) -> bool:
        epoch = trainer.current_epoch + 1
        return epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs


def charts() -> dict[str, dict[str, list[Any]]]:
    """TensorBoard's charts of several curves: training beside validation, and the classes in one chart by name."""

    def together(*names: str) -> list[Any]:
        return ["Multiline", [f"^{name}$" for name in names]]

    classes = {phase: together(*metric_names(phase)[2:]) for phase in ("train", "val")}
    return {
        "training and validation": {name: together(f"train/{name}", f"val/{name}") for name in ("loss", "accuracy")},
        "accuracy of each class": {"validation": classes["val"], "training": classes["train"]},
    }


def _writer(trainer: Trainer) -> SummaryWriter | None:
    """TensorBoard's, if that is where the run is logged."""
    writer = trainer.logger.experiment if isinstance(trainer.logger, TensorBoardLogger) else None
    return writer if isinstance(writer, SummaryWriter) else None  # not what Lightning gives other ranks


def _step(trainer: Trainer) -> int:
    """The last one, counted from 0, as Lightning does where it logs the metrics of an epoch."""
    return trainer.global_step - 1


def _network(pl_module: LightningModule) -> nn.Module:
    assert isinstance(pl_module, Classifier)
    return pl_module.network


def _images(trainer: Trainer) -> dict[str, tuple[Tensor, Tensor]]:
    """Images (N, C, H, W), as bytes, and labels (N) of the splits that have any."""
    splits: dict[str, tuple[Tensor, Tensor]] = trainer.datamodule.splits  # type: ignore[attr-defined]
    return {split: (images, labels) for split, (images, labels) in splits.items() if len(labels)}


def _show(writer: SummaryWriter, name: str, figure: Figure, step: int) -> None:
    writer.add_image(name, to_array(figure), step, dataformats="HWC")
