"""The facts of the dataset that everything else refers to.

Source: https://github.com/zalandoresearch/fashion-mnist
"""

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

IMAGE_SHAPE = (1, 28, 28)
"""Channels, height, width."""

MEAN, STD = 0.2860, 0.3530
"""Of the 60,000 training images' pixels, scaled to 0..1. (0.1307 and 0.3081 are MNIST's.)"""
