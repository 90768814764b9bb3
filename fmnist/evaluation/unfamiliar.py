"""Images unlike the training images: out-of-distribution detection by the nearest neighbours among features."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional

from fmnist.data.info import DatasetInfo
from fmnist.training.classifier import Classifier

NEIGHBOURS = 3
MOST_IMAGES = 5000
MOST_NUMBERS = 2**21  # of the features that are kept: 4 MiB
PASSED = 0.99
"""Fraction of the validation images that aren't marked."""
PRODUCTS = 2**24  # of features at once: 64 MiB


@contextlib.contextmanager
def last_linear_inputs(network: nn.Module) -> Iterator[list[Tensor]]:
    """Give a list that holds, after each forward pass, the input of the last linear layer; it is empty without one."""
    found: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any) -> None:  # noqa: ARG001 (torch gives it)
        found[:] = [inputs[0]]

    with contextlib.ExitStack() as stack:
        for module in network.modules():
            if isinstance(module, nn.Linear):
                stack.callback(module.register_forward_pre_hook(keep).remove)
        yield found


def features_and_logits(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the last linear layer's input (N, F), or else the logits, and the logits (N, K), for normalised images."""
    with last_linear_inputs(network) as inputs:
        logits: Tensor = network(images)
    return flat(inputs[0] if inputs else logits), logits.float()


def flat(features: Tensor) -> Tensor:
    """Return features (N, ...) as (N, F), float32."""
    return features.flatten(1).float()


def neighbour_distances(features: Tensor, known: Tensor, neighbours: int) -> Tensor:
    """Return the mean cosine distance (N) of features (N, F) to the nearest of the known ones (M, F).

    Source: Kuan and Mueller, Back to the Basics: Revisiting Out-of-Distribution Detection Baselines,
    https://arxiv.org/abs/2207.03061
    """
    known = functional.normalize(known)
    rows = max(1, PRODUCTS // len(known))
    nearest = [
        (functional.normalize(part) @ known.T).topk(min(neighbours, len(known)), dim=1).values.mean(dim=1)
        for part in features.split(rows)
    ]
    return 1 - torch.cat(nearest)


@dataclass(frozen=True)
class Detector:
    """Tells images that are unlike the training images by the distance of their features.

    Args:
        known: features (M, F) of some training images, float16, of length 1.
        threshold: the largest distance of an image that isn't marked.
    """

    known: Tensor
    threshold: float

    @classmethod
    def fit(cls, known: Tensor, validation: Tensor) -> "Detector | None":
        """Return the detector for features of training images (M, F) and of validation images (N, F).

        None without images, or where a feature isn't finite. Source of the nearest neighbours: Sun et al.,
        Out-of-Distribution Detection with Deep Nearest Neighbors, https://arxiv.org/abs/2204.06507. By area under the
        ROC curve it is the best of 17 scores on 12 kinds of other images, see docs/predictions.md.
        """
        if not (len(known) and len(validation) and known.isfinite().all() and validation.isfinite().all()):
            return None
        found = cls(functional.normalize(known).half(), math.inf)
        distances = found.distances(validation).sort().values
        return cls(found.known, distances[math.ceil(PASSED * len(distances)) - 1].item())

    def distances(self, features: Tensor) -> Tensor:
        """Return the distance (N) of features (N, F): 0 for one of the known images, up to 2.

        Raises:
            ValueError: if the features are those of another network.
        """
        if features.shape[1] != self.known.shape[1]:
            raise ValueError(f"detector: {self.known.shape[1]} features are known, the network has {features.shape[1]}")
        return neighbour_distances(features, self.known.to(features), NEIGHBOURS)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return {"known": self.known, "threshold": self.threshold}

    @classmethod
    def from_dict(cls, values: Any) -> "Detector":
        """Return the detector of a checkpoint.

        Raises:
            ValueError: if it isn't one.
        """
        content = values if isinstance(values, dict) else {}
        known, threshold = content.get("known"), content.get("threshold")
        if not isinstance(threshold, float) or not math.isfinite(threshold):
            raise ValueError("detector: the threshold must be a number")
        if not isinstance(known, Tensor) or known.ndim != 2 or known.dtype != torch.float16 or not known.numel():
            raise ValueError("detector: the known features must be numbers (M, F)")
        return cls(known, threshold)


def fit_detector(
    trainer: Trainer,
    classifier: Classifier,
    dataset: DatasetInfo,
    known: Tensor,
    validation: Tensor,
    batch_size: int,
) -> Detector | None:
    """Return the detector of a trained network; None where it has no images, or a feature isn't finite.

    Args:
        trainer: of the device and precision to compute the features in.
        classifier: holds the network.
        dataset: normalises the images.
        known: the training images (N, C, H, W), uint8, of which some are drawn at random.
        validation: the validation images (M, C, H, W), uint8.
        batch_size: images that pass through the network at once.
    """
    if not (len(known) and len(validation)):
        return None
    found = collect_features(trainer, classifier, dataset, validation, batch_size)
    kept = max(NEIGHBOURS, min(MOST_IMAGES, MOST_NUMBERS // found.shape[1]))
    drawn = torch.randperm(len(known), generator=torch.Generator().manual_seed(0))[:kept].sort().values
    return Detector.fit(collect_features(trainer, classifier, dataset, known[drawn], batch_size), found)


def collect_features(
    trainer: Trainer, classifier: Classifier, dataset: DatasetInfo, images: Tensor, batch_size: int
) -> Tensor:
    """Return the features (N, F) of images (N, C, H, W), uint8, as the Trainer runs the network."""
    with last_linear_inputs(classifier.network) as inputs:
        collected = _CollectFeatures(inputs)
        trainer.callbacks.append(collected)  # type: ignore[attr-defined]
        trainer.predict(classifier, dataloaders=_Batches(images, dataset, batch_size), return_predictions=False)
        trainer.callbacks.remove(collected)  # type: ignore[attr-defined]
    return torch.cat(collected.batches)


class _CollectFeatures(Callback):
    """Collects the features (N, F) of the batches: the inputs of the last linear layer, or else the logits."""

    def __init__(self, inputs: list[Tensor]) -> None:
        self.inputs = inputs
        self.batches: list[Tensor] = []

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any, **__: Any
    ) -> None:
        self.batches.append(flat(self.inputs[0] if self.inputs else outputs).cpu())


@dataclass(frozen=True)
class _Batches:
    """Normalised images, a batch at a time."""

    images: Tensor
    dataset: DatasetInfo
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        return (self.dataset.normalise(part) for part in self.images.split(self.batch_size))
