"""Exact and near duplicates among images, by their pixels."""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

COMPONENTS = 64  # of the images, by which pairs are chosen
SAMPLE = 4096  # images that the components are found with
ROWS, COLUMNS = 1024, 16384  # images in a block of comparisons: 64 MiB
CHECKED = 4096  # pairs whose pixels are compared at once
SLACK = 1e-3  # of the bound, which is computed in single precision
MAX_PAIRS = 5_000_000


class Pairs(NamedTuple):
    """Pairs (P) of different images that are alike."""

    first: Tensor
    """Index of the earlier image."""
    second: Tensor
    """Index of the later image."""
    correlation: Tensor
    """Of their pixels, from -1 to 1."""


@dataclass(frozen=True)
class Duplicates:
    """The images (D) that have an earlier copy, in rising order."""

    index: Tensor
    copy_of: Tensor
    """The earlier image, which is no copy itself."""
    correlation: Tensor
    """1 for exact copies."""
    exact: Tensor
    """Whether all bytes are equal, bool."""
    across: Tensor
    """Indices of the images of the first part that have a copy in the second part, or the other way round."""


def find_duplicates(images: Tensor, threshold: float, first_part: int) -> Duplicates:
    """Return the copies among images. Each is a copy of the most similar earlier image that is no copy itself.

    Args:
        images: uint8 (N, C, H, W).
        threshold: correlation of the pixels from which on two images are near duplicates.
        first_part: number of images of the first part, as of the test images before the training images.

    Raises:
        ValueError: if there are too many pairs.
    """
    original = exact_copies(images)
    unique = (original == torch.arange(len(images))).nonzero().flatten()
    pairs = near_pairs(images[unique], threshold)
    first, second = unique[pairs.first], unique[pairs.second]
    leader: dict[int, tuple[int, float]] = {}
    # In the order of the later image, and for each the most similar earlier one first.
    order = sorted(zip(second.tolist(), (-pairs.correlation).tolist(), first.tolist(), strict=True))
    for later, opposite, earlier in order:
        if later not in leader and earlier not in leader:
            leader[later] = earlier, -opposite
    found = {}
    for index, copy in enumerate(original.tolist()):
        kept, correlation = leader.get(copy, (copy, 1.0))
        if kept != index:
            found[index] = kept, correlation, kept == copy
    return Duplicates(
        torch.tensor([*found], dtype=torch.long),
        torch.tensor([kept for kept, _, _ in found.values()], dtype=torch.long),
        torch.tensor([correlation for _, correlation, _ in found.values()]),
        torch.tensor([exact for _, _, exact in found.values()], dtype=torch.bool),
        across_parts(original, first, second, first_part),
    )


def exact_copies(images: Tensor) -> Tensor:
    """Return for each image (N) the index of the first one with the same bytes: its own, where it is that."""
    seen: dict[bytes, int] = {}
    first = [seen.setdefault(hashlib.sha256(image.tobytes()).digest(), i) for i, image in enumerate(images.numpy())]
    return torch.tensor(first, dtype=torch.long)


def across_parts(original: Tensor, first: Tensor, second: Tensor, first_part: int) -> Tensor:
    """Return the images that have a copy in the other part, in rising order.

    Args:
        original: the first image with the same bytes, of each image (N).
        first, second: near duplicates (P), each the first of its bytes.
        first_part: number of images of the first part.
    """
    in_first = torch.arange(len(original)) < first_part
    found = torch.zeros(len(original), dtype=torch.bool)
    for own, other in ((in_first, ~in_first), (~in_first, in_first)):
        has_other = torch.zeros(len(original), dtype=torch.bool)
        has_other[original[other]] = True  # an exact copy of it is in the other part
        near = has_other.clone()
        near[first[has_other[second]]] = True
        near[second[has_other[first]]] = True
        found |= own & near[original]
    return found.nonzero().flatten()


def standardised(images: Tensor) -> Tensor:
    """Return images (N, C, H, W) as vectors (N, D) of mean 0 and length 1, or 0 where all pixels are equal.

    The product of two of them is the correlation of their pixels, which brightness and contrast don't change.
    """
    pixels = images.flatten(1).float()
    pixels -= pixels.mean(dim=1, keepdim=True)
    pixels /= pixels.norm(dim=1, keepdim=True).clamp(min=1e-6)
    return pixels


def near_pairs(images: Tensor, threshold: float) -> Pairs:
    """Return all pairs of images (N, C, H, W), uint8, whose pixels have at least this correlation.

    Every pair is compared, in memory that doesn't grow with N², and none is missed: with x = Vp + r, where V has
    orthonormal columns and r is orthogonal to them, the correlation of two images is at most p·p' + |r||r'|. Only the
    pairs for which this bound is large enough are compared pixel by pixel.

    Raises:
        ValueError: if there are too many.
    """
    coordinates = bound_coordinates(images)
    found: list[Tensor] = []
    count = 0
    for row in range(0, len(images), ROWS):
        for column in range(row, len(images), COLUMNS):
            bound = coordinates[row : row + ROWS] @ coordinates[column : column + COLUMNS].T
            pairs = (bound > threshold - SLACK).nonzero() + torch.tensor([row, column])
            pairs = pairs[pairs[:, 0] < pairs[:, 1]]
            checked = [correlated(images, each, threshold) for each in pairs.split(CHECKED)]
            found += checked
            count += sum(map(len, checked))
            if count > MAX_PAIRS:
                raise ValueError(f"near_duplicates={threshold}: more than {MAX_PAIRS:,} pairs: take a larger value")
    rows = torch.cat(found) if found else torch.zeros(0, 3, dtype=torch.float64)
    return Pairs(rows[:, 0].long(), rows[:, 1].long(), rows[:, 2])


def bound_coordinates(images: Tensor) -> Tensor:
    """Return vectors (N, Q + 1) whose products are upper bounds of the correlations of images (N, C, H, W)."""
    sample = standardised(images[:: -(-len(images) // SAMPLE) or 1])
    size = min(COMPONENTS, *sample.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = torch.pca_lowrank(sample, q=size, center=False)[2]
    basis, _ = torch.linalg.qr(found)
    parts = []
    for part in images.split(CHECKED):
        pixels = standardised(part)
        projected = pixels @ basis
        rest = (pixels.square().sum(1) - projected.square().sum(1)).clamp(min=0).sqrt()
        parts.append(torch.cat([projected, rest[:, None]], dim=1))
    return torch.cat(parts)


def correlated(images: Tensor, pairs: Tensor, threshold: float) -> Tensor:
    """Return rows (first, second, correlation) of those pairs (P, 2) of images that have at least this correlation."""
    values = (standardised(images[pairs[:, 0]]) * standardised(images[pairs[:, 1]])).sum(dim=1)
    kept = values >= threshold
    return torch.cat([pairs[kept].double(), values[kept, None].double()], dim=1)
