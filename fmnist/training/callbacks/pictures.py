"""What TensorBoard shows besides curves: pictures of the predictions, of the network and of what it sees."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from torchmetrics.functional.classification import multiclass_confusion_matrix

from fmnist.data.info import DatasetInfo
from fmnist.evaluation import inspection
from fmnist.plotting.charts import confusion_chart
from fmnist.plotting.style import to_array
from fmnist.plotting.tiles import map_tiles, prediction_tiles
from fmnist.training.callbacks.averaged_weights import as_validated
from fmnist.training.callbacks.projector import write_embedding
from fmnist.training.classifier import Classifier
from fmnist.training.distributed import gather

MOST_PREDICTIONS = 256  # more can't be looked at, and would take seconds and gigabytes to draw
COLUMNS = 4  # of the grid: with more its titles can't be read at the width at which TensorBoard first shows a picture


class Pictures(Callback):
    """Draws from the validation images, or, where there are none, what can be drawn of the first training image.

    After every n-th epoch and at the end of the training; no weight and no random number changes by it.

    Args:
        every_n_epochs: n.
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
        predictions: Annotated[int, Ge(0), Le(MOST_PREDICTIONS)],
        confusion: bool,
        precision_recall: bool,
        filters: bool,
        activations: bool,
        weights: bool,
        graph: bool,
        embedding: Annotated[int, Ge(0)],
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
        """Of the last validation, batch by batch; of several processes, this one's part of each."""
        self._drawn_at = 0
        """The number of steps at the last drawing."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if (writer := _writer(trainer)) is None:
            return
        if trainer.global_step == 0:
            self._draw_weights(writer, _network(pl_module), step=0)
        if self.graph:
            image = _input(torch.zeros(1, *_dataset(trainer).image_shape), pl_module)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # the writer still traces, as torch once did
                writer.add_graph(_network(pl_module), image)  # in evaluation mode, as it does by itself

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._logits = []

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

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            with as_validated(trainer, pl_module):
                self._draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._drawn_at != trainer.global_step:
            self._draw(trainer, pl_module)
        if (writer := _writer(trainer)) is not None and self.embedding and "val" in _images(trainer):
            self._write_embedding(Path(writer.log_dir), trainer, pl_module)

    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._drawn_at = trainer.global_step
        logits = self._gathered(trainer)
        if (writer := _writer(trainer)) is None:
            return
        step = trainer.global_step - 1  # counted from 0, as Lightning does where it logs the metrics of an epoch
        if len(logits):
            self._draw_predictions(writer, logits, *_images(trainer)["val"], _dataset(trainer).classes, step)
        self._draw_network(writer, trainer, pl_module, step)

    def _gathered(self, trainer: Trainer) -> Tensor:
        """The logits (N, K) of the last validation, in the images' order; all processes ask at the same time."""
        part = [logits.float().cpu() for logits in self._logits]
        parts = gather(part) if trainer.world_size > 1 else [part]
        return torch.cat(
            [
                torch.empty(0, len(_dataset(trainer).classes)),
                *(logits for batch in zip(*parts, strict=True) for logits in batch),
            ]
        )

    def _draw_predictions(
        self, writer: SummaryWriter, logits: Tensor, images: Tensor, labels: Tensor, classes: Sequence[str], step: int
    ) -> None:
        labels, predicted = labels[: len(logits)], logits.argmax(dim=1)  # trainer.limit_val_batches takes fewer
        if self.confusion:
            confusion = multiclass_confusion_matrix(predicted, labels, len(classes))
            _show(writer, "confusion", confusion_chart(confusion, classes), step)
        if shown := min(self.predictions, len(logits)):
            grid = prediction_tiles(images[:shown, 0], predicted[:shown], labels[:shown], classes, COLUMNS)
            _show(writer, "predictions", grid, step)
        if self.precision_recall and logits.isfinite().all():
            for k, name in enumerate(classes):
                writer.add_pr_curve(f"precision_recall/{name}", labels == k, logits.softmax(dim=1)[:, k], step)

    def _draw_network(self, writer: SummaryWriter, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        network = _network(pl_module)
        filters = inspection.first_filters(network, _dataset(trainer).image_shape) if self.filters else None
        if filters is not None:
            _show(writer, "filters", map_tiles(filters, "filters of the first layer"), step)
        if self.activations:
            images, _ = _images(trainer).get("val", _images(trainer)["train"])
            maps = inspection.activation_maps(network, _input(_dataset(trainer).normalise(images[:1]), pl_module)[0])
            for number, (name, activation) in enumerate(maps.items(), 1):
                _show(writer, f"activations/{number}", map_tiles(activation, f"what {name} makes of an image"), step)
        self._draw_weights(writer, network, step)

    def _draw_weights(self, writer: SummaryWriter, network: nn.Module, step: int) -> None:
        if not self.weights:
            return
        for name, parameter in network.named_parameters():
            finite = parameter.detach()[parameter.isfinite()].float()
            if len(finite):  # a histogram of nothing is an error
                writer.add_histogram(f"weights/{name}", finite, step)

    def _write_embedding(self, folder: Path, trainer: Trainer, pl_module: LightningModule) -> None:
        images, labels = (part[: self.embedding] for part in _images(trainer)["val"])
        parts = [
            inspection.features(_network(pl_module), _input(_dataset(trainer).normalise(part), pl_module))
            for part in images.split(trainer.datamodule.eval_batch_size)  # type: ignore[attr-defined]
        ]
        features, logits = (torch.cat(part) for part in zip(*parts, strict=True))
        write_embedding(folder, features, images[:, 0], labels, logits.argmax(dim=1), _dataset(trainer).classes)


def _writer(trainer: Trainer) -> SummaryWriter | None:
    """TensorBoard's, if that is where the run is logged."""
    writer = trainer.logger.experiment if isinstance(trainer.logger, TensorBoardLogger) else None
    return writer if isinstance(writer, SummaryWriter) else None  # not what Lightning gives other ranks


def _network(pl_module: LightningModule) -> nn.Module:
    assert isinstance(pl_module, Classifier)
    return pl_module.network


def _input(images: Tensor, pl_module: LightningModule) -> Tensor:
    """Where and in which precision the network takes them."""
    return images.to(pl_module.device).to(pl_module.dtype)


def _images(trainer: Trainer) -> dict[str, tuple[Tensor, Tensor]]:
    """Images (N, C, H, W), as bytes, and labels (N) of the splits that have any."""
    splits: dict[str, tuple[Tensor, Tensor]] = trainer.datamodule.splits  # type: ignore[attr-defined]
    return {split: (images, labels) for split, (images, labels) in splits.items() if len(labels)}


def _dataset(trainer: Trainer) -> DatasetInfo:
    dataset: DatasetInfo = trainer.datamodule.dataset  # type: ignore[attr-defined]
    return dataset


def _show(writer: SummaryWriter, name: str, figure: Figure, step: int) -> None:
    writer.add_image(name, to_array(figure), step, dataformats="HWC")
