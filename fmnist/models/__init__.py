"""Networks: images (N, C, H, W) to logits (N, K). They know nothing of Lightning or Hydra."""

from fmnist.models.cnn import CNN
from fmnist.models.mlp import MLP

__all__ = ["CNN", "MLP"]
