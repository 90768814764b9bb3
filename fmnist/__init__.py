"""Fashion-MNIST image classification with PyTorch Lightning and Hydra."""
