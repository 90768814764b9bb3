"""Sources of the data, augmentation, data loaders and the data module."""
