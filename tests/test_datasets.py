"""Datasets by name: files in each format, what is read from them, and what is said of those that are wrong."""

import csv
import gzip
import hashlib
import io
import logging
import os
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
import torch
from conftest import RunScript
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import datasets as torchvision

from fmnist.data.augment import Augmentation
from fmnist.data.datamodule import ImageDataModule
from fmnist.data.datasets import image_folder, published
from fmnist.data.datasets.base import statistics
from fmnist.data.datasets.idx_files import IdxFiles
from fmnist.data.datasets.image_folder import ImageFolder
from fmnist.data.info import FASHION_MNIST, DatasetInfo
from fmnist.data.splits import complete
from fmnist.runs.files import load_json

CODES = {"u1": 8, ">i4": 12, ">f4": 13}


def idx_bytes(values: NDArray[Any], kind: str = "u1") -> bytes:
    """Return an IDX file."""
    sizes = b"".join(size.to_bytes(4) for size in values.shape)
    return bytes([0, 0, CODES[kind], values.ndim]) + sizes + values.astype(kind).tobytes()


def random_images(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


def refusal(dataset: Any) -> str:
    """Return the one line with which a dataset is refused."""
    try:
        assert dataset.info
        assert dataset.contents
    except ValueError as error:
        message = str(error)
    assert "\n" not in message
    return message


def write_idx(root: Path, changed: Mapping[str, bytes] | None = None, packed: bool = False) -> Path:
    """Write four small files, 30 and 20 images of 3 classes, some with other contents."""
    root.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, count in (("train", 30), ("t10k", 20)):
        files[f"{name}-images-idx3-ubyte"] = idx_bytes(random_images(count, 5, 4))
        files[f"{name}-labels-idx1-ubyte"] = idx_bytes(np.arange(count) % 3)
    for name, content in (files | dict(changed or {})).items():
        (root / f"{name}{'.gz' if packed else ''}").write_bytes(gzip.compress(content) if packed else content)
    return root


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_own_files_have_any_size_and_number_of_classes(tmp_path: Path, packed: bool) -> None:
    data = IdxFiles(str(write_idx(tmp_path / "mine", packed=packed)))
    images, labels = data.contents.splits["train"]
    assert torch.equal(images[:, 0], torch.from_numpy(random_images(30, 5, 4)))
    assert labels.tolist() == [number % 3 for number in range(30)]
    assert (data.info.name, data.info.classes, data.info.image_shape) == ("mine", ("0", "1", "2"), (1, 5, 4))
    assert data.info.mean[0] == pytest.approx(images.double().mean().item() / 255)
    assert data.info.std[0] == pytest.approx(images.double().std(unbiased=False).item() / 255)


def test_own_files_may_be_in_colour_and_have_a_thousand_classes(tmp_path: Path) -> None:
    colour = {f"{name}-images-idx3-ubyte": idx_bytes(random_images(1000, 3, 4, 4)) for name in ("train", "t10k")}
    many = {f"{name}-labels-idx1-ubyte": idx_bytes(np.arange(1000), ">i4") for name in ("train", "t10k")}
    data = IdxFiles(str(write_idx(tmp_path, colour | many)), std=[0.1, 0.2, 0.3])
    assert (data.info.image_shape, len(data.info.classes), data.info.std) == ((3, 4, 4), 1000, (0.1, 0.2, 0.3))
    assert data.contents.splits["test"][1][-1] == 999


IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
WRONG_IDX: dict[str, tuple[str, bytes, str]] = {
    "empty": (IMAGES, b"", "{file} is no complete IDX file (0 bytes)"),
    "too short": (IMAGES, idx_bytes(random_images(20, 5, 4))[:-1], "{file} is no complete IDX file (415 bytes)"),
    "labels for images": (
        IMAGES,
        idx_bytes(np.arange(20)),
        "{file} must hold gray or RGB images of bytes, not 20 of uint8",
    ),
    "floats": (
        IMAGES,
        idx_bytes(np.ones((20, 5, 4)), ">f4"),
        "must hold gray or RGB images of bytes, not 20x5x4 of float32",
    ),
    "images for labels": (LABELS, idx_bytes(random_images(20, 5, 4)), "{file} must hold labels from 0 on"),
    "negative": (LABELS, idx_bytes(np.arange(20) - 1, ">i4"), "{file} must hold labels from 0 on"),
    "too many": (LABELS, idx_bytes(np.arange(21) % 3), "20 images, but t10k-labels-idx1-ubyte 21 labels"),
    "other size": (IMAGES, idx_bytes(random_images(20, 4, 4)), "images of all splits must have one shape"),
}


@pytest.mark.parametrize(("name", "content", "reason"), WRONG_IDX.values(), ids=WRONG_IDX)
def test_malformed_own_files_are_named(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    data = IdxFiles(str(write_idx(tmp_path, {name: content})))
    assert reason.format(file=tmp_path / name) in refusal(data)


def test_own_files_that_are_missing_or_have_other_classes(tmp_path: Path) -> None:
    write_idx(tmp_path)
    assert "the train images have the label 2, but there are 2 classes (0 to 1)" in refusal(
        IdxFiles(str(tmp_path), ["a", "b"])
    )
    assert "two classes are named a" in refusal(IdxFiles(str(tmp_path), ["a", "a", "b"]))
    assert "data.mean=[0.1, 0.2]: must be as many numbers as the images have channels: 1" in refusal(
        IdxFiles(str(tmp_path), mean=[0.1, 0.2])
    )
    (tmp_path / LABELS).unlink()
    assert refusal(IdxFiles(str(tmp_path))).startswith(
        f"data.root={tmp_path} has no {LABELS} (plain or .gz, there or in "
    )
    assert f"data.root={tmp_path / 'no'} has no train-images" in refusal(IdxFiles(str(tmp_path / "no")))


def test_own_files_that_cannot_be_read_now_are_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_idx(tmp_path)

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", fail)
    assert "train-images-idx3-ubyte can't be read: Input/output error; it is left as it is" in refusal(
        IdxFiles(str(tmp_path))
    )


def test_statistics_of_colour_by_value() -> None:
    images = torch.tensor([[[[0, 255]], [[51, 51]], [[255, 255]]]], dtype=torch.uint8)
    mean, std = statistics(images)
    assert mean == pytest.approx((0.5, 0.2, 1.0))
    assert std == pytest.approx((0.5, 1 / 255, 1 / 255))  # of one value: not 0, as it divides
    info = DatasetInfo("x", ("a", "b"), (3, 1, 2), mean, std)
    torch.testing.assert_close(info.normalise(images)[0, 0], torch.tensor([[-1.0, 1.0]]))
    torch.testing.assert_close(info.normalise(images)[0, 1], torch.zeros(1, 2), atol=1e-4, rtol=0)
    assert DatasetInfo.from_dict(info.to_dict()) == info


def test_facts_of_older_versions_and_of_strangers() -> None:
    facts = FASHION_MNIST.to_dict()
    old = {key: value for key, value in facts.items() if key not in ("fit", "margin")} | {"mean": 0.286, "std": 0.353}
    assert DatasetInfo.from_dict(old) == FASHION_MNIST
    for changed in (
        {"mean": [0.1, 0.2]},
        {"fit": "eval"},
        {"margin": 14},
        {"std": [0.0]},
        {"image_shape": [1, 2**17, 1]},
    ):
        with pytest.raises(ValueError, match="not the facts of a dataset"):
            DatasetInfo.from_dict(facts | changed)


# --- published datasets, of which small ones stand on a "server" in the publisher's format


def serve(monkeypatch: pytest.MonkeyPatch, name: str, files: Mapping[str, bytes]) -> list[str]:
    """Let downloads of torchvision's class bring these files. Return the names of the downloads."""
    calls: list[str] = []

    def download(dataset: Any) -> None:
        raw = Path(dataset.root, "cifar-10-batches-py" if name == "CIFAR10" else f"{name}/raw")
        raw.mkdir(parents=True, exist_ok=True)
        calls.append(str(getattr(dataset, "what", getattr(dataset, "split", ""))))
        for file, content in files.items():
            (raw / file).write_bytes(content)

    cls = getattr(torchvision, name)
    monkeypatch.setattr(cls, "download", download)
    monkeypatch.setattr(
        cls, "__init__", lambda self, root, **options: (self.__dict__.update(root=root, **options), download(self))[0]
    )
    return calls


def published_files(names: Mapping[str, tuple[str, str]], first: int = 0, kind: str = "u1") -> dict[str, bytes]:
    """Return files of 40 images, of which each class from `first` on has 4, by name."""
    labels = np.arange(40) % 10 + first
    if kind != "u1":
        labels = np.stack([labels] * 8, axis=1) * [1, 2, 2, 2, 2, 2, 2, 2]
    files = {}
    for images_name, labels_name in names.values():
        files[images_name] = idx_bytes(random_images(40, 28, 28))
        files[labels_name] = idx_bytes(labels, kind)
    return files


@pytest.mark.parametrize("name", ["MNIST", "KMNIST", "QMNIST"])
def test_relatives_of_mnist_are_downloaded_once_and_verified(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cls = getattr(published, name)
    plain = published_files(cls(str(tmp_path)).files, kind=">i4" if name == "QMNIST" else "u1")
    packed = {f"{file}.gz": gzip.compress(content) for file, content in plain.items()}
    calls = serve(monkeypatch, name, packed | plain)
    sums = {file: hashlib.md5(content).hexdigest() for file, content in packed.items()}
    monkeypatch.setattr(cls, "checksums", sums)
    caplog.set_level(logging.INFO)
    for _ in range(2):
        data = cls(str(tmp_path / "data"))
        images, labels = data.contents.splits["train"]
        assert torch.equal(images[:, 0], torch.from_numpy(random_images(40, 28, 28)))
        assert labels.tolist() == [number % 10 for number in range(40)]
        assert (data.info.image_shape, len(data.info.classes), data.info.fit) == ((1, 28, 28), 10, "item")
    assert len(calls) == (2 if name == "QMNIST" else 1)
    raw = tmp_path / "data" / name / "raw"
    assert sorted(path.name for path in raw.iterdir()) == sorted(packed)
    assert f"4 files in data.root={tmp_path / 'data'}, 4 of them verified" in caplog.text
    damaged = next(iter(raw.glob("*images*")))
    damaged.write_bytes(gzip.compress(b"other"))
    assert refusal(cls(str(tmp_path / "data"))) == f"{damaged} doesn't have the publisher's MD5 checksum: move it away"


def test_checksums_are_those_that_torchvision_knows(tmp_path: Path) -> None:
    for name in ("MNIST", "KMNIST", "QMNIST"):
        data = getattr(published, name)(str(tmp_path))
        assert data.checksums.keys() == {f"{file}.gz" for pair in data.files.values() for file in pair}


@pytest.mark.parametrize(("split", "first", "count"), [("balanced", 0, 47), ("letters", 1, 26), ("byclass", 0, 62)])
def test_emnist_is_upright(split: str, first: int, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = published.EMNIST(str(tmp_path), split)  # type: ignore[arg-type]
    calls = serve(monkeypatch, "EMNIST", published_files(data.files, first))
    images, labels = data.contents.splits["test"]
    assert torch.equal(images[:, 0], torch.from_numpy(random_images(40, 28, 28)).transpose(1, 2))
    assert labels.tolist() == [number % 10 for number in range(40)]
    assert len(data.info.classes) == count
    assert data.info.classes[0] == ("a" if first else "0")
    assert data.info.name == f"EMNIST {split}"
    assert calls == [split]


def test_published_files_need_a_network_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Error downloading x:\nTried y, got:\n<urlopen error [Errno 111] Connection refused>")

    monkeypatch.setattr(torchvision.KMNIST, "download", fail)
    line = refusal(published.KMNIST(str(tmp_path)))
    assert line.startswith(f"Kuzushiji-MNIST: data.root={tmp_path} has no train-images-idx3-ubyte, no ")
    assert "can't be downloaded (http://codh.rois.ac.jp/kmnist/dataset/kmnist/: Connection refused)" in line
    assert line.endswith(f"connect to the internet, or put the files into {tmp_path / 'KMNIST' / 'raw'}")


def cifar(folder: Path, monkeypatch: pytest.MonkeyPatch) -> NDArray[np.uint8]:
    """Write small batches in the format of CIFAR-10, and return their 60 images."""
    pixels = random_images(60, 3 * 32 * 32)
    folder.mkdir(parents=True)
    lists: dict[str, list[list[str]]] = {"train_list": [], "test_list": []}
    for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        part = slice(10 * number, 10 * number + 10)
        content = pickle.dumps({"data": pixels[part], "labels": list(range(10))})
        (folder / name).write_bytes(content)
        lists["test_list" if name == "test_batch" else "train_list"].append([name, hashlib.md5(content).hexdigest()])
    meta = pickle.dumps({"label_names": list(published.CIFAR10.info.classes)})
    (folder / "batches.meta").write_bytes(meta)
    for key, value in lists.items():
        monkeypatch.setattr(torchvision.CIFAR10, key, value)
    monkeypatch.setattr(torchvision.CIFAR10, "meta", torchvision.CIFAR10.meta | {"md5": hashlib.md5(meta).hexdigest()})
    return pixels.reshape(60, 3, 32, 32)


def test_cifar10_is_read_in_colour_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    pixels = cifar(folder, monkeypatch)
    splits = published.CIFAR10(str(tmp_path)).contents.splits
    assert torch.equal(splits["train"][0], torch.from_numpy(pixels[:50]))
    assert torch.equal(splits["test"][0], torch.from_numpy(pixels[50:]))
    assert splits["test"][1].tolist() == list(range(10))
    (folder / "data_batch_3").write_bytes(b"other")
    assert f"{folder}: a file doesn't have the publisher's MD5 checksum" in refusal(published.CIFAR10(str(tmp_path)))
    shutil.rmtree(folder)
    assert "CIFAR-10: data.root" in refusal(published.CIFAR10(str(tmp_path)))


@pytest.mark.extras
def test_digits_of_scikit_learn() -> None:
    pytest.importorskip("sklearn")
    from fmnist.data.datasets.digits import Digits

    data = ImageDataModule(Digits(), Augmentation(), 32, val_size=0.1, test_size=0.2)
    data.setup()
    assert {split: len(labels) for split, (_, labels) in data.splits.items()} == {
        "train": 1294,
        "val": 144,
        "test": 359,
    }
    assert (data.dataset.image_shape, data.dataset.classes) == ((1, 8, 8), tuple("0123456789"))
    images = torch.cat([images for images, _ in data.splits.values()])
    assert (int(images.min()), int(images.max())) == (0, 255)
    for _, labels in data.splits.values():
        assert labels.bincount().min() > len(labels) / 11


# --- image folders


def save(folder: Path, name: str, pixels: NDArray[np.uint8]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / name)
    return folder / name


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of 12 colour images of each of two classes, "bad" being dark and "good" light; 12x8 pixels."""
    for number in range(12):
        for label, name in enumerate(("bad", "good")):
            save(tmp_path / "photos" / name, f"{number:02}.png", random_images(8, 12, 3) // 4 + 150 * label + number)
    return tmp_path / "photos"


def read(root: Path, **options: Any) -> dict[str, tuple[Tensor, Tensor]]:
    return dict(ImageFolder(str(root), **{"image_size": [8, 12], **options}).contents.splits)


def test_images_of_a_folder_keep_their_pixels_and_are_sorted_by_name(photos: Path) -> None:
    data = ImageFolder(str(photos), [8, 12])
    images, labels = data.contents.splits["train"]
    assert labels.tolist() == [0, 1] * 12
    for number in range(24):
        expected = np.asarray(Image.open(photos / ("bad", "good")[number % 2] / f"{number // 2:02}.png"))
        assert torch.equal(images[number], torch.from_numpy(expected.copy()).permute(2, 0, 1))
    assert (data.info.name, data.info.classes, data.info.image_shape) == ("photos", ("bad", "good"), (3, 8, 12))
    assert data.info.mean == pytest.approx((images.double().mean(dim=(0, 2, 3)) / 255).tolist())
    assert data.info.fit == "crop"


def test_pictures_are_resized_as_asked(tmp_path: Path) -> None:
    """The picture is red, green and blue from left to right."""
    stripes = np.repeat(np.eye(3, dtype=np.uint8)[None] * 255, 40, axis=0).repeat(40, axis=1)  # 40x120
    for name in "ab":
        save(tmp_path / "x" / name, "1.png", stripes)
    crop, pad, stretch = (
        read(tmp_path / "x", image_size=12, resize=how)["train"][0][0] for how in ("crop", "pad", "stretch")
    )
    assert crop[1].min() > 230
    assert crop[0].max() < 25
    assert pad[:, [0, 3, 8, 11]].max() < 15
    assert pad[:, 5].amax(dim=0).min() > 100
    assert stretch[0, :, 0].min() > 240
    assert stretch[2, :, -1].min() > 240
    gray = read(tmp_path / "x", image_size=12, channels=1)["train"][0]
    assert gray.shape == (2, 1, 12, 12)
    assert gray[0].float().mean() == pytest.approx(150, abs=2)  # green has 59 % of the luminance


def test_second_start_reads_the_cache_as_long_as_no_file_changes(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(photos)
    decoded: list[str] = []
    original = image_folder.read_picture
    monkeypatch.setattr(
        image_folder, "read_picture", lambda file, size: (decoded.append(str(file)), original(file, size))[1]
    )
    again = read(photos)
    assert decoded == []
    assert torch.equal(first["train"][0], again["train"][0])
    assert torch.equal(first["train"][1], again["train"][1])
    save(photos / "bad", "03.png", random_images(8, 12, 3))
    os.utime(photos / "bad" / "03.png", (1, 1))
    changed = read(photos)
    assert len(decoded) == 24
    assert not torch.equal(first["train"][0], changed["train"][0])
    (photos / "good" / "11.png").unlink()
    assert len(read(photos)["train"][1]) == 23
    (cache,) = photos.parent.glob("*.cache")
    cache.write_bytes(cache.read_bytes()[:1000])  # damaged
    assert len(read(photos)["train"][1]) == 23
    read(photos, channels=1)
    assert len(list(photos.parent.glob("*.cache"))) == 2


def test_without_a_place_for_the_cache_images_are_decoded_each_time(
    photos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(image_folder, "FileLock", refuse)
    assert len(read(photos)["train"][1]) == 24
    assert "can't be written (Read-only file system): each start decodes the images again" in caplog.text


def test_folders_of_splits_are_used_and_what_is_missing_is_split_off(photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "split"
    for split, numbers in (("train", range(8)), ("val", range(8, 10)), ("test", range(10, 12))):
        for name in ("bad", "good"):
            (root / split / name).mkdir(parents=True)
            for number in numbers:
                shutil.copy(photos / name / f"{number:02}.png", root / split / name)
    given = read(root)
    assert {split: len(labels) for split, (_, labels) in given.items()} == {"train": 16, "val": 4, "test": 4}
    assert {split: len(labels) for split, (_, labels) in complete(given, 0.5, 0.5, 0).items()} == {
        "train": 16,
        "val": 4,
        "test": 4,
    }
    assert {split: len(labels) for split, (_, labels) in complete(given, 0, 0.5, 0).items()} == {
        "train": 20,
        "val": 0,
        "test": 4,
    }
    shutil.rmtree(root / "val")
    splits = complete(read(root), 0.25, None, 0)
    assert {split: labels.bincount().tolist() for split, (_, labels) in splits.items()} == {
        "train": [6, 6], "val": [2, 2], "test": [2, 2],
    }  # fmt: skip
    whole = complete(read(photos), 0.25, 0.25, 0)
    assert {split: labels.bincount().tolist() for split, (_, labels) in whole.items()} == {
        "train": [7, 7], "val": [2, 2], "test": [3, 3],
    }  # fmt: skip


def test_unreadable_files_are_listed_once_and_left_out_only_if_asked(
    photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (photos / "bad" / "00.png").write_bytes(b"")
    (photos / "good" / "05.jpg").write_bytes(b"no image")
    (photos / "good" / "notes.txt").write_text("no image either")
    line = refusal(ImageFolder(str(photos)))
    assert line.startswith(
        f"data.root={photos}: 2 of 25 files can't be read: bad/00.png (it is empty); good/05.jpg (it is "
    )
    assert line.endswith("data.skip_unreadable=true leaves them out")
    assert len(read(photos, skip_unreadable=True)["train"][1]) == 23
    assert caplog.text.count("2 of 25 files can't be read") == 1
    assert caplog.text.count("they are left out") == 1


def test_folders_that_are_no_dataset_are_refused_in_a_line(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(change: Any, root: Path = photos, **options: Any) -> str:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(root, copy)
        change(copy)
        return refusal(ImageFolder(str(copy), **options)).removeprefix(f"data.root={copy}")

    assert "No such file or directory" in refusal(ImageFolder(str(tmp_path / "nowhere")))
    assert said(lambda root: shutil.rmtree(root / "bad")).startswith(": must have at least two folders of images")
    assert said(lambda root: (root / "Bad").mkdir()) == ": the classes Bad and bad differ in case only: rename one"
    assert said(lambda root: (root / "ugly").mkdir()).startswith(": ugly has no images")
    assert "has train/, so bad/ must be one of train, val, test" in said(lambda root: (root / "train").mkdir())
    monkeypatch.setattr(os, "sysconf", lambda _: 2**10)
    line = said(lambda _: None, image_size=2048, channels=3)
    assert line.startswith(": 24 images of 3x2048x2048 need 0.6 GiB while they are split, and this machine has 0.0")


@pytest.mark.parametrize(
    ("val_size", "test_size", "reason"),
    [
        (0.01, 0.5, "data.val_size=0.01: class 1 has 6 images, too few to be split"),
        (0.5, 0.001, "data.test_size=0.001: class 1 has 12 images, too few"),
        (24, 0.5, "data.val_size=24: must be less than 12, the training images"),
        (0.5, None, "data.test_size: is required, as the dataset has no test images of its own"),
    ],
)
def test_too_few_images_to_split(photos: Path, val_size: float, test_size: float | None, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        complete(read(photos), val_size, test_size, 0)


def test_several_processes_may_decode_at_once(photos: Path) -> None:
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: read(photos)["train"][0], range(4)))
    assert all(torch.equal(found[0], other) for other in found)
    assert [path.suffix for path in photos.parent.iterdir() if path.is_file()].count(".cache") == 1


def test_pictures_of_fashion_mnist_train_to_the_same_weights_as_its_files(tmp_path: Path, data_root: Path) -> None:
    files = synthetic.dataset(data_root)
    for split, (images, labels) in files.contents.splits.items():
        for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            save(
                tmp_path / "png" / split / f"{label} {files.info.classes[label].replace('/', '-')}",
                f"{number:05}.png",
                image[0].numpy(),
            )
    folder = ImageFolder(str(tmp_path / "png"), 28, 1, mean=list(FASHION_MNIST.mean), std=list(FASHION_MNIST.std))
    modules = [ImageDataModule(source, Augmentation(flip=0.5), 50, val_size=100, seed=3) for source in (files, folder)]
    for module in modules:
        module.setup()
    one, other = modules
    for split in ("train", "val", "test"):
        assert all(torch.equal(*pair) for pair in zip(one.splits[split], other.splits[split], strict=True))
    torch.manual_seed(0)
    expected = one.prepared(next(iter(one.train_dataloader())), training=True)
    torch.manual_seed(0)
    found = other.prepared(next(iter(other.train_dataloader())), training=True)
    assert all(torch.equal(*pair) for pair in zip(expected, found, strict=True))


# --- from training to prediction, whatever the dataset


def test_a_network_of_colour_images_is_evaluated_and_predicts_from_its_file(
    photos: Path, run_script: RunScript, tmp_path: Path
) -> None:
    small = ("trainer=cpu", "trainer.max_epochs=6", "model.channels=[4]", "data.batch_size=4", "data.val_size=0.25")
    done = run_script("train", "data=image_folder", "data.root=photos", "data.image_size=[8,12]", *small)
    assert (done.status, done.err) == (0, "")
    assert "photos: 2 classes; images of 3x8x12: 24 train" in done.out
    page = (done.run / "report.html").read_text()
    assert "photos, run train" in page
    assert '<th scope="row">good</th>' in page
    (result,) = (line for line in done.out.splitlines() if line.startswith("test: "))
    evaluated = run_script("evaluate", f"run={done.run}")
    assert result in evaluated.out.splitlines()
    predicted = run_script("predict", f"run={done.run}", "images=photos/*/*.png", "format=csv", "top=1")
    rows = list(csv.DictReader(io.StringIO(predicted.out)))
    right = sum(Path(row["file"]).parent.name == row["class_1"] for row in rows)
    assert len(rows) == 24
    assert right >= 20  # it has learned to tell dark from light
    shutil.copytree(photos, tmp_path / "others")
    (tmp_path / "others" / "bad").rename(tmp_path / "others" / "ugly")
    refused = run_script("evaluate", f"run={done.run}", f"data_root={tmp_path / 'others'}")
    refused.assert_refused("trained on photos with the classes bad, good, but others has good, ugly")


def test_metrics_of_many_classes(tmp_path: Path, run_script: RunScript) -> None:
    """60 classes, one pixel of each being white."""
    patterns = np.eye(64, dtype=np.uint8)[:60].reshape(60, 8, 8) * 255
    labels = np.arange(600) % 60
    files = {f"{name}-images-idx3-ubyte": idx_bytes(patterns[labels]) for name in ("train", "t10k")}
    files |= {f"{name}-labels-idx1-ubyte": idx_bytes(labels) for name in ("train", "t10k")}
    write_idx(tmp_path / "many", files)
    words = (
        "model=mlp",
        "augment=none",
        "trainer=cpu",
        "trainer.max_epochs=3",
        "data.val_size=60",
        "data.batch_size=20",
    )
    done = run_script("train", "data=idx", "data.root=many", "data.val_size=60", "data.batch_size=20", *words)
    assert (done.status, done.err) == (0, "")
    assert "40 classes that are more accurate" in done.out
    metrics = load_json(done.run / "metrics.json")
    assert len(metrics["test/accuracy_per_class"]) == 60
    assert metrics["test/accuracy_top5"] >= metrics["test/accuracy"] > 0.2
    assert f"top-5 accuracy {100 * metrics['test/accuracy_top5']:.2f}%" in done.out
    header = (done.run / "metrics.csv").read_text().splitlines()[0]
    assert "val/accuracy_top5" in header
    assert "per_class" not in header
    assert "for the 20 classes with the most mistakes" in (done.run / "report.html").read_text()
