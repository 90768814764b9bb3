"""Networks: pure torch modules that map normalised images (N, C, H, W) to logits (N, K)."""

from fmnist.models.cnn import CNN
from fmnist.models.libraries import Timm, TorchVision
from fmnist.models.mlp import MLP
from fmnist.models.resnet import ResNet, WideResNet

__all__ = ["CNN", "MLP", "ResNet", "Timm", "TorchVision", "WideResNet"]
