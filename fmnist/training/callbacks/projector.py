"""Files for TensorBoard's embedding projector."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from tensorboard.plugins import projector
from torch import Tensor

FOLDER = "embedding"


def write_embedding(
    log_dir: Path, features: Tensor, images: Tensor, labels: Tensor, predicted: Tensor, classes: Sequence[str]
) -> None:
    """Points with their images, classes and predictions, in a folder beside the events.

    Args:
        log_dir: the folder that TensorBoard reads as one run.
        features: (N, F).
        images: uint8, (N, H, W).
        labels: (N).
        predicted: (N).
        classes: names of the K classes.
    """
    folder = log_dir / FOLDER
    folder.mkdir(exist_ok=True)
    rows = ("\t".join(f"{value:.4g}" for value in row) for row in features.tolist())
    (folder / "tensors.tsv").write_text("\n".join(rows) + "\n")
    names = (f"{classes[true]}\t{classes[guess]}" for true, guess in zip(labels, predicted, strict=True))
    (folder / "metadata.tsv").write_text("\n".join(["class\tpredicted", *names]) + "\n")
    Image.fromarray(sprite(images).numpy()).save(folder / "sprite.png")

    config = projector.ProjectorConfig()
    embedding = config.embeddings.add()
    embedding.tensor_name = "validation images"
    embedding.tensor_path = f"{FOLDER}/tensors.tsv"
    embedding.metadata_path = f"{FOLDER}/metadata.tsv"
    embedding.sprite.image_path = f"{FOLDER}/sprite.png"
    embedding.sprite.single_image_dim.extend(reversed(images.shape[1:]))
    projector.visualize_embeddings(str(log_dir), config)


def sprite(images: Tensor) -> Tensor:
    """Images (N, H, W) side by side in a square of n x n places, n the smallest that holds them: (n * H, n * W)."""
    count, height, width = images.shape
    side = math.ceil(math.sqrt(count))
    places = torch.zeros(side * side, height, width, dtype=images.dtype)
    places[:count] = images
    return places.view(side, side, height, width).transpose(1, 2).reshape(side * height, side * width)
