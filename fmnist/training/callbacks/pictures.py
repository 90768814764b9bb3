"""TensorBoard's pictures: predictions, confusion matrix, filters, activation maps, weights, graph, projector."""

import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from torchmetrics.functional.classification import multiclass_confusion_matrix

from fmnist.data.info import DatasetInfo
from fmnist.evaluation import inspection
from fmnist.plotting.charts import confusion_chart
from fmnist.plotting.tiles import map_grid, prediction_tiles
from fmnist.training.callbacks.averaged_weights import as_validated
from fmnist.training.classifier import Classifier
from fmnist.training.distributed import gather
from fmnist.training.metric_names import MANY_CLASSES
from fmnist.training.tensorboard import find_tensorboard

MAX_PREDICTIONS = 256  # more would take seconds and gigabytes to draw
COLUMNS = 4  # of predictions: with more, titles can't be read at the width at which TensorBoard first shows a picture


@dataclass(eq=False, repr=False)
class Pictures(Callback):
    """Draw the network and its predictions for the validation images after every n-th epoch and at the end.

    Without validation images the network is drawn, with the first training image. No weight and no random number
    changes. The tags sort after those of the curves: view/confusion, view/predictions, view/filters,
    view_layers/..., weights/...

    Args:
        every_n_epochs: number of epochs between pictures.
        predictions: number of validation images in the grid "predicted (true)".
        confusion: the confusion matrix.
        precision_recall: a precision-recall curve of each class against all others, unless there are many.
        filters: the first layer's weights.
        activations: the maps of each convolution for the first image.
        weights: histograms of all parameters, also before the first step.
        graph: the network's graph, at the beginning.
        embedding: number of validation images in the projector, placed by the last layer's input, at the end.
    """

    every_n_epochs: Annotated[int, Ge(1)]
    predictions: Annotated[int, Ge(0), Le(MAX_PREDICTIONS)]
    confusion: bool
    precision_recall: bool
    filters: bool
    activations: bool
    weights: bool
    graph: bool
    embedding: Annotated[int, Ge(0)]
    _logits: list[Tensor] = field(default_factory=list, init=False)  # of the last validation, by batch
    _drawn_at: int = field(default=0, init=False)  # step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if (writer := _writer(trainer)) is None:
            return
        if trainer.global_step == 0:
            self._draw_weights(writer, _network(pl_module), step=0)
        if self.graph:
            image = _input(torch.zeros(1, *_dataset(trainer).image_shape), pl_module)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # the writer still traces, as torch once did
                warnings.simplefilter("ignore", torch.jit._trace.TracerWarning)  # drawn for one size
                writer.add_graph(_network(pl_module), image)

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
            self._write_embedding(writer, trainer, pl_module)

    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._drawn_at = trainer.global_step
        logits = self._gather_logits(trainer)
        if (writer := _writer(trainer)) is None:
            return
        step = trainer.global_step - 1  # counted from 0, as Lightning does where it logs the metrics of an epoch
        if len(logits):
            self._draw_predictions(writer, logits, *_images(trainer)["val"], _dataset(trainer).classes, step)
        self._draw_network(writer, trainer, pl_module, step)

    def _gather_logits(self, trainer: Trainer) -> Tensor:
        """Return the logits (N, K) of the last validation, in the images' order; all processes call it together."""
        part = [logits.float().cpu() for logits in self._logits]
        parts = gather(part) if trainer.world_size > 1 else [part]
        batches = [logits for batch in zip(*parts, strict=True) for logits in batch]
        return torch.cat(batches) if batches else torch.empty(0)

    def _draw_predictions(
        self, writer: SummaryWriter, logits: Tensor, images: Tensor, labels: Tensor, classes: Sequence[str], step: int
    ) -> None:
        labels, predicted = labels[: len(logits)], logits.argmax(dim=1)  # trainer.limit_val_batches takes fewer
        if self.confusion:
            confusion = multiclass_confusion_matrix(predicted, labels, len(classes))
            writer.add_figure("view/confusion", confusion_chart(confusion, classes), step)
        if shown := min(self.predictions, len(logits)):
            grid = prediction_tiles(images[:shown], predicted[:shown], labels[:shown], classes, COLUMNS)
            writer.add_figure("view/predictions", grid, step)
        if self.precision_recall and len(classes) <= MANY_CLASSES and logits.isfinite().all():
            for k, name in enumerate(classes):
                writer.add_pr_curve(f"precision_recall/{name}", labels == k, logits.softmax(dim=1)[:, k], step)

    def _draw_network(self, writer: SummaryWriter, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        network, dataset = _network(pl_module), _dataset(trainer)
        if self.filters and (filters := inspection.first_filters(network, dataset.image_shape)) is not None:
            writer.add_image("view/filters", map_grid(filters), step)
        if self.activations:
            images, _ = _images(trainer).get("val", _images(trainer)["train"])
            maps = inspection.activation_maps(network, _input(dataset.normalise(images[:1]), pl_module)[0])
            for name, activation in maps.items():
                writer.add_image(f"view_layers/{name}", map_grid(activation), step)
        self._draw_weights(writer, network, step)

    def _draw_weights(self, writer: SummaryWriter, network: nn.Module, step: int) -> None:
        if not self.weights:
            return
        for name, parameter in network.named_parameters():
            finite = parameter.detach()[parameter.isfinite()].float()
            if len(finite):  # an empty histogram is an error
                writer.add_histogram(f"weights/{name}", finite, step)

    def _write_embedding(self, writer: SummaryWriter, trainer: Trainer, pl_module: LightningModule) -> None:
        dataset = _dataset(trainer)
        images, labels = (part[: self.embedding] for part in _images(trainer)["val"])
        parts = [
            inspection.features(_network(pl_module), _input(dataset.normalise(part), pl_module))
            for part in images.split(trainer.datamodule.eval_batch_size)  # type: ignore[attr-defined]
        ]
        features, logits = (torch.cat(part) for part in zip(*parts, strict=True))
        pairs = zip(labels.tolist(), logits.argmax(dim=1).tolist(), strict=True)
        names = [[dataset.classes[true], dataset.classes[predicted]] for true, predicted in pairs]
        shutil.rmtree(Path(writer.log_dir) / "00000", ignore_errors=True)  # of a resumed run: the writer would complain
        writer.add_embedding(features, names, images / 255, tag="embedding", metadata_header=["class", "predicted"])


def _writer(trainer: Trainer) -> SummaryWriter | None:
    """Return TensorBoard's writer; None in a run that isn't logged there, and in all processes but the first."""
    logger = find_tensorboard(trainer)
    writer = None if logger is None else logger.experiment
    return writer if isinstance(writer, SummaryWriter) else None


def _network(pl_module: LightningModule) -> nn.Module:
    assert isinstance(pl_module, Classifier)
    return pl_module.network


def _input(images: Tensor, pl_module: LightningModule) -> Tensor:
    """Return images on the network's device and in its precision."""
    return images.to(pl_module.device).to(pl_module.dtype)


def _images(trainer: Trainer) -> dict[str, tuple[Tensor, Tensor]]:
    """Return images (N, C, H, W), uint8, and labels (N) of the splits that have any."""
    splits: dict[str, tuple[Tensor, Tensor]] = trainer.datamodule.splits  # type: ignore[attr-defined]
    return {split: (images, labels) for split, (images, labels) in splits.items() if len(labels)}


def _dataset(trainer: Trainer) -> DatasetInfo:
    dataset: DatasetInfo = trainer.datamodule.dataset  # type: ignore[attr-defined]
    return dataset
