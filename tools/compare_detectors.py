"""Compare scores that tell images unlike the training images, on a trained run of gray images.

python tools/compare_detectors.py outputs/train/<run>
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.stats import mannwhitneyu
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))  # `tools` isn't installed

from fmnist.config.restore import build_datamodule_of, restore
from fmnist.evaluation import inspection
from fmnist.evaluation.unfamiliar import PASSED, Detector, neighbour_distances
from fmnist.plotting.terminal import as_text, grid
from fmnist.runs.latest import named_run
from tools.arguments import Parser, exit_status

IMAGES = 2000  # of each kind
Score = Callable[[Tensor, Tensor], Tensor]
"""Maps features (N, F) and logits (N, K) to scores (N), the larger the less an image is like those of the training."""


def main(arguments: Sequence[str]) -> None:
    """Print the area under the ROC curve, and how many images are marked, of each score for each kind of image.

    Raises:
        ValueError: if there is no such run, or it has no detector.
    """
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", help="the folder of a run")
    file = named_run("run", parser.parse_args(arguments).run).chosen_checkpoint
    restored = restore(file, "cpu")
    if restored.detector is None:
        raise ValueError(f"{file}: has no detector")
    datamodule = build_datamodule_of(restored, file)
    datamodule.setup()
    network = restored.classifier.network

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        parts = [inspection.features(network, restored.dataset.normalise(part)) for part in images.split(1000)]
        features, logits = zip(*parts, strict=True)
        return torch.cat(features).double(), torch.cat(logits).double()

    (training, labels), (validation, _), (test, _) = (datamodule.splits[name] for name in ("train", "val", "test"))
    scores = all_scores(*run(training), labels, network, restored.detector)
    passing, usual = run(validation), run(test)
    kinds = other_images(test)
    outputs = {name: run(images) for name, images in kinds.items()}
    rows = []
    for name, score in scores.items():
        ordered, expected = score(*passing).sort().values, score(*usual)
        threshold = ordered[math.ceil(PASSED * len(ordered)) - 1]
        found = {kind: score(*output) for kind, output in outputs.items()}
        areas = [mannwhitneyu(each, expected).statistic / (len(each) * len(expected)) for each in found.values()]
        marked = [(each > threshold).double().mean().item() for each in found.values()]
        cells = [f"{100 * area:.1f} {100 * part:3.0f}" for area, part in zip(areas, marked, strict=True)]
        passed = f"{100 * (expected <= threshold).double().mean().item():.2f}"
        rows.append([name, f"{100 * np.mean(areas):.1f}", f"{100 * np.mean(marked):.0f}", passed, *cells])
    print("area under the ROC curve and images marked, %: mean, test images that pass, then both for each kind")
    print(as_text(grid(["score", "area", "marked", "passed", *kinds], rows, words=["score"]), width=240))


def other_images(test: Tensor) -> dict[str, Tensor]:
    """Return images (N, 1, H, W), uint8, of several kinds, given test images."""
    generator = torch.Generator().manual_seed(0)
    size, some, others = test.shape[-1], test[:IMAGES], test[IMAGES : 2 * IMAGES]
    coarse = torch.rand(IMAGES, 1, 7, 7, generator=generator)
    smooth = functional.interpolate(coarse, size=size, mode="bicubic", align_corners=False).clamp(0, 1)
    patches = functional.unfold(some.float(), size // 4, stride=size // 4)
    order = torch.stack([torch.randperm(16, generator=generator) for _ in range(IMAGES)])
    shuffled = patches.gather(2, order[:, None].expand_as(patches))
    digits = torch.from_numpy(load_digits().images[:IMAGES]).float()[:, None] * (255 / 16)
    digits = functional.interpolate(digits, size=size - 8, mode="bilinear", align_corners=False)
    return {
        "noise": torch.randint(256, some.shape, generator=generator).byte(),
        "smooth noise": (255 * smooth).byte(),
        "inverted": 255 - some,
        "shuffled patches": functional.fold(shuffled, size, size // 4, stride=size // 4).byte(),
        "halves of two": torch.cat([some[..., : size // 2], others[..., size // 2 :]], dim=3),
        "mean of two": ((some.int() + others.int()) // 2).byte(),
        "one gray": (torch.arange(256).byte()[:, None, None, None]).repeat(1, 1, size, size),
        "upside down": some.flip(2),
        "lying": some.rot90(1, (2, 3)),
        "digits": functional.pad(digits, (4, 4, 4, 4)).byte(),
        "photos": photo_crops(size),
    }


def photo_crops(size: int) -> Tensor:
    """Return square parts of two photographs as images (N, 1, H, W), uint8."""
    draw = np.random.default_rng(0)
    photos = [Image.fromarray(photo).convert("L") for photo in load_sample_images().images]
    crops = []
    for number in range(IMAGES):
        photo = photos[number % len(photos)]
        side = int(draw.integers(40, min(photo.size)))
        left, top = (int(draw.integers(0, length - side + 1)) for length in photo.size)
        crop = photo.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.LANCZOS)
        crops.append(np.array(crop))
    return torch.from_numpy(np.stack(crops))[:, None]


def all_scores(
    features: Tensor, logits: Tensor, labels: Tensor, network: nn.Module, detector: Detector
) -> Mapping[str, Score]:
    """Return the scores by name, given features (N, F), logits (N, K) and labels (N) of the training images.

    Sources: Hendrycks and Gimpel, https://arxiv.org/abs/1610.02136 (probability); Hendrycks et al.,
    https://arxiv.org/abs/1911.11132 (logit); Liu et al., https://arxiv.org/abs/2010.03759 (energy); Lee et al.,
    https://arxiv.org/abs/1807.03888 (Mahalanobis); Ren et al., https://arxiv.org/abs/2106.09022 (relative Mahalanobis);
    Wang et al., https://arxiv.org/abs/2203.10807 (ViM).
    """
    means = torch.stack([features[labels == label].mean(dim=0) for label in range(logits.shape[1])])
    within, overall = precision(features - means[labels]), precision(features - features.mean(dim=0))

    def mahalanobis(each: Tensor) -> Tensor:
        gaps = each[:, None] - means
        return torch.einsum("nkf,fg,nkg->nk", gaps, within, gaps)

    def relative(each: Tensor, _: Tensor) -> Tensor:
        gap = each - features.mean(dim=0)
        return mahalanobis(each).amin(dim=1) - torch.einsum("nf,fg,ng->n", gap, overall, gap)

    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    centre = -torch.linalg.pinv(last.weight.double()) @ last.bias.double()
    axes = torch.linalg.eigh((features - centre).T @ (features - centre)).eigenvectors
    rest = axes[:, : features.shape[1] // 2].detach()
    scale = logits.amax(dim=1).mean() / ((features - centre) @ rest).norm(dim=1).mean()
    everything = features.float()
    return {
        "probability": lambda _, each: -each.softmax(dim=1).amax(dim=1),
        "entropy": lambda _, each: -(each.softmax(dim=1) * each.log_softmax(dim=1)).sum(dim=1),
        "logit": lambda _, each: -each.amax(dim=1),
        "energy": lambda _, each: -each.logsumexp(dim=1),
        "Mahalanobis": lambda each, _: mahalanobis(each).amin(dim=1),
        "relative Mahalanobis": relative,
        "ViM": lambda each, logit: (scale * ((each - centre) @ rest).norm(dim=1) - logit.logsumexp(dim=1)).detach(),
        "length of features": lambda each, _: -each.norm(dim=1),
        "neighbours, all": lambda each, _: neighbour_distances(each.float(), everything, 3),
        "neighbours, kept": lambda each, _: detector.distances(each.float()),
    }


def precision(gaps: Tensor) -> Tensor:
    """Return the inverse of the covariance (F, F) of centred features (N, F), a little regularised."""
    covariance = gaps.T @ gaps / len(gaps)
    inverse: Tensor = torch.linalg.pinv(covariance + 1e-3 * covariance.diagonal().mean() * torch.eye(len(covariance)))
    return inverse


if __name__ == "__main__":
    sys.exit(exit_status(main, sys.argv[1:]))
