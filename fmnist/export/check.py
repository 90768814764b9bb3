"""Whether an exported file gives what the network gives."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fmnist.export.graph import OUTPUTS, Outputs, PixelsToProbabilities

TOLERANCE = 1e-4
"""Largest difference of two probabilities, or two features, that are taken for the same."""
TIE = 1e-6
"""Difference of the probabilities of two classes that are equally likely."""
LARGE = 1000
SIZES = (1, 2, LARGE)
"""Of the batches that each file is run with, besides those of all images."""


@dataclass(frozen=True)
class Reference:
    """What the network itself gives, in float32 on the CPU.

    Args:
        model: the network with normalisation and softmax.
        batches: images, uint8, in the layout of the model: all of them, by `LARGE`, and the first ones in `SIZES`.
        outputs: of each batch.
        parts: the number of batches that are all images, which come first.
    """

    model: PixelsToProbabilities
    batches: list[Tensor]
    outputs: list[Outputs]
    parts: int

    @classmethod
    def of(cls, model: PixelsToProbabilities, images: Tensor) -> "Reference":
        """Run the model on images (N, C, H, W), uint8.

        Raises:
            ValueError: if it returns NaN or infinity.
        """
        images = model.in_layout(images)
        batches = list(images.split(LARGE))
        parts = len(batches)
        copies = images.repeat(-(-LARGE // len(images)), 1, 1, 1)  # there may be fewer images
        batches += [copies[:size] for size in SIZES]
        outputs = [model.run(batch) for batch in batches]
        if not all(output.isfinite().all() for batch in outputs for output in batch):
            raise ValueError("the network returns NaN or infinity, as after a failed training")
        return cls(model, batches, outputs, parts)

    @property
    def probabilities(self) -> Tensor:
        """The probabilities of all images (N, K)."""
        return torch.cat([probabilities for probabilities, _ in self.outputs[: self.parts]])

    def run(self, run: Callable[[Tensor], Outputs], name: str) -> list[Outputs]:
        """Return what a file gives for each batch.

        Raises:
            ValueError: if a shape isn't that of the network's output, or a number isn't finite.
        """
        found = []
        for batch, expected in zip(self.batches, self.outputs, strict=True):
            try:
                outputs = run(batch)
            except Exception as error:  # of any runtime
                reason = " ".join(str(error).split())[:300]
                raise ValueError(f"{name} can't run a batch of {len(batch):,}: {reason}") from error
            for output, same in zip(outputs, expected, strict=True):
                if output.shape != same.shape or output.dtype != torch.float32 or not output.isfinite().all():
                    raise ValueError(f"{name} gives {output.dtype} {tuple(output.shape)} for a batch of {len(batch):,}")
            found.append(outputs)
        return found

    def compare(self, run: Callable[[Tensor], Outputs], name: str, exactly: bool = False) -> float:
        """Return the largest difference between the outputs of a file and those of the network.

        Args:
            name: of the file, for messages.
            exactly: to the last bit.

        Raises:
            ValueError: if a class is another one, or a number differs by more than `TOLERANCE`.
        """
        largest, allowed = 0.0, 0.0 if exactly else TOLERANCE
        for found, wanted in zip(self.run(run, name), self.outputs, strict=True):
            for kind, output, expected in zip(OUTPUTS, found, wanted, strict=True):
                difference = (output - expected).abs().max().item()
                largest = max(largest, difference)
                if difference > allowed:
                    raise ValueError(
                        f"{name} is not exported: in a batch of {len(expected):,} the {kind} differ from the "
                        f"network's by {difference:.1e}, more than {allowed:g}"
                    )
            if other := int(other_classes(found[0], wanted[0]).sum()):
                raise ValueError(f"{name} is not exported: {other:,} of {len(wanted[0]):,} images get another class")
        return largest


def other_classes(output: Tensor, expected: Tensor) -> Tensor:
    """Return which images (N) get another class by probabilities (N, K) than expected ones; ties don't count."""
    chosen = expected.gather(1, output.argmax(dim=1, keepdim=True)).squeeze(1)
    return expected.amax(dim=1) - chosen > TIE


def random_images(shape: tuple[int, int, int], count: int = LARGE) -> Tensor:
    """Return images (N, C, H, W), uint8, of random pixels, always the same ones."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, *shape), generator=generator, dtype=torch.uint8)
