"""Handwritten digits that scikit-learn brings along: real data without a download."""

import functools

import torch

from fmnist.data.datasets.base import Contents, ImageDataset, digest, statistics
from fmnist.data.idx import DataUnavailableError
from fmnist.data.info import DatasetInfo


class Digits(ImageDataset):
    """1,797 digits of 8x8 pixels with 17 levels of gray, of which none is set aside for tests.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, https://doi.org/10.24432/C50P49
    """

    def __init__(self) -> None:
        super().__init__(root=None)

    @functools.cached_property
    def info(self) -> DatasetInfo:
        mean, std = statistics(self.contents.splits["train"][0])
        return DatasetInfo("digits", tuple("0123456789"), (1, 8, 8), mean, std)

    def read(self) -> Contents:
        try:
            from sklearn.datasets import load_digits
        except ModuleNotFoundError as error:
            raise DataUnavailableError("data=digits: scikit-learn is missing: `make extras` installs it") from error
        images, labels = load_digits(return_X_y=True)
        pixels = torch.from_numpy(images * (255 / 16)).round().to(torch.uint8).view(-1, 1, 8, 8)
        split = pixels, torch.from_numpy(labels).long()
        return Contents({"train": split}, {"digits": digest(split)})
