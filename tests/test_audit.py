"""The audit of a dataset, and trainings without the images that it lists."""

import csv
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import synthetic
import torch
from conftest import Done, RunScript
from scipy.stats import binomtest
from torch import Tensor

from fmnist.audit import duplicates, labels
from fmnist.audit.duplicates import Duplicates, exact_copies, find_duplicates, near_pairs, standardised
from fmnist.audit.findings import Findings, Images
from fmnist.audit.folds import Predictions, assign_folds
from fmnist.audit.page import write_audit
from fmnist.compare.reading import read_run
from fmnist.data.augment import Augmentation
from fmnist.data.datamodule import ImageDataModule
from fmnist.data.info import FASHION_MNIST, DatasetInfo
from fmnist.data.splits import positions

CLASSES = FASHION_MNIST.classes
SMALL = (
    *("data=idx", *synthetic.FACTS, "data.batch_size=20", "trainer=cpu", "trainer.max_epochs=10"),
    *("model.channels=[8,16]", "augment=none"),
)


def rows_of(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text().splitlines()))


def indices(rows: list[dict[str, str]], split: str) -> set[int]:
    return {int(row["index"]) for row in rows if row["split"] == split}


# Duplicates


def noise(count: int, seed: int = 0, side: int = 12) -> Tensor:
    """Return images of random gray values."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 1, side, side), generator=generator, dtype=torch.uint8)


def test_near_pairs_are_all_pairs_above_the_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "ROWS", 16)
    monkeypatch.setattr(duplicates, "COLUMNS", 24)
    monkeypatch.setattr(duplicates, "CHECKED", 7)
    monkeypatch.setattr(duplicates, "COMPONENTS", 5)
    images = torch.cat([noise(60), noise(1, side=12)])
    blended = (images[:30].float() * 0.6 + images[30:60].float() * 0.4).to(torch.uint8)
    images = torch.cat([images, blended, torch.full((2, 1, 12, 12), 7, dtype=torch.uint8)])
    vectors = standardised(images)
    exact = vectors @ vectors.T
    for threshold in (0.5, 0.7, 0.8):
        pairs = near_pairs(images, threshold)
        expected = (exact.triu(1) >= threshold).nonzero()
        assert len(expected) > 10
        assert sorted(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == list(
            map(tuple, expected.tolist())
        )
        torch.testing.assert_close(pairs.correlation.float(), exact[pairs.first, pairs.second])


def test_brightness_and_contrast_make_no_difference_to_near_duplicates() -> None:
    images = noise(3) // 4
    changed = images[1:2] * 2 + 50
    pairs = near_pairs(torch.cat([images, changed]), 0.99)
    assert (pairs.first.tolist(), pairs.second.tolist()) == ([1], [3])
    assert pairs.correlation.tolist() == pytest.approx([1])


def test_copies_name_the_most_similar_earlier_image_that_is_no_copy_itself() -> None:
    base = noise(4)
    near = base[0:1].clone()
    near[..., :2] //= 2
    images = torch.cat([base, near, base[2:3], near, base[3:4] // 2])
    found = find_duplicates(images, 0.9, first_part=3)
    assert found.index.tolist() == [4, 5, 6, 7]
    assert found.copy_of.tolist() == [0, 2, 0, 3]
    assert found.exact.tolist() == [False, True, False, False]
    expected = float((standardised(base[:1]) * standardised(near)).sum())
    assert found.correlation.tolist() == pytest.approx([expected, 1, expected, 1], abs=1e-3)
    assert found.across.tolist() == [0, 2, 4, 5, 6]  # 3 and 7 are both in the second part


def test_copies_of_copies_do_not_chain() -> None:
    """Each step is small: the first image is unlike the last one."""
    first, last = noise(1)[0].float(), noise(1, seed=1)[0].float()
    steps = torch.stack([first * (1 - t) + last * t for t in torch.linspace(0, 1, 9)]).to(torch.uint8)
    found = find_duplicates(steps, 0.95, first_part=0)
    vectors = standardised(steps)
    for index, copy in zip(found.index.tolist(), found.copy_of.tolist(), strict=True):
        assert float(vectors[index] @ vectors[copy]) >= 0.95
        assert copy not in found.index.tolist()


def test_exact_copies_name_the_first() -> None:
    images = noise(3)
    assert exact_copies(images[[0, 1, 0, 2, 1, 0]]).tolist() == [0, 1, 0, 3, 1, 0]


def test_images_of_one_colour_are_near_no_other() -> None:
    images = torch.stack([torch.full((1, 4, 4), value, dtype=torch.uint8) for value in (0, 9, 9, 200)])
    assert len(near_pairs(images, 0.5).first) == 0
    assert find_duplicates(images, 0.5, first_part=1).index.tolist() == [2]


def test_too_many_pairs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MAX_PAIRS", 5)
    with pytest.raises(ValueError, match=r"^near_duplicates=0.9: more than 5 pairs"):
        near_pairs(noise(1).repeat(4, 1, 1, 1), 0.9)


# Folds, outliers, accuracy


def test_folds_have_the_same_share_of_each_class_and_depend_on_the_seed() -> None:
    given = torch.tensor([0] * 9 + [1] * 10 + [3] * 3)[torch.randperm(22, generator=torch.Generator().manual_seed(0))]
    folds = assign_folds(given, 3, 0, CLASSES)
    counts = torch.stack([given[folds == fold].bincount(minlength=4) for fold in range(3)])
    assert counts[:, [0, 3]].tolist() == [[3, 1]] * 3
    assert sorted(counts[:, 1].tolist()) == [3, 3, 4]
    assert folds.equal(assign_folds(given, 3, 0, CLASSES))
    assert not folds.equal(assign_folds(given, 3, 1, CLASSES))
    with pytest.raises(ValueError, match=r"^folds=4: must be at most 3, the training images of Dress$"):
        assign_folds(given, 4, 0, CLASSES)


def test_accuracy_has_the_interval_of_wilson() -> None:
    predicted = torch.tensor([1] * 90 + [0] * 10)
    found = labels.accuracy(predicted, torch.ones(100, dtype=torch.long))
    interval = binomtest(90, 100).proportion_ci(0.95, method="wilson")
    assert found == (90, 100, interval.low, interval.high)
    assert labels.accuracy(predicted[:0], predicted[:0]) is None


# The page


def findings(classes: tuple[str, str]) -> Findings:
    """Return the findings about 6 training images, the last of them a copy of a test image, and 3 test images."""
    images = noise(9, side=4)
    images[8] = images[0]
    probabilities = torch.tensor([[0.9, 0.1]] * 4 + [[0.2, 0.8]] * 2).double()
    given = {
        "train": Images(images[3:], torch.tensor([0, 1, 0, 0, 1, 1]), [("train", i) for i in range(5)] + [("val", 0)]),
        "test": Images(images[:3], torch.tensor([0, 1, 1]), [("test", i) for i in range(3)]),
    }
    predicted = {
        "train": Predictions(probabilities, torch.tensor([0.1, 0.5, 0.3, 0.2, 0, 0.4])),
        "test": Predictions(probabilities[[0, 4, 0]], torch.tensor([0.2, 0.1, 0.3])),
    }
    copies = Duplicates(
        torch.tensor([8]), torch.tensor([0]), torch.tensor([1.0]), torch.tensor([True]), torch.tensor([0, 8])
    )
    dataset = DatasetInfo("<b>&", classes, (1, 4, 4), (0.5,), (0.5,))
    return Findings(dataset, given, predicted, {"train": torch.tensor([1]), "test": torch.tensor([2])}, copies, 2)


def test_tables_and_page_hold_the_findings(tmp_path: Path) -> None:
    text = write_audit(tmp_path, findings(("cat", '<script>,"dog')), {"seed": "<i>"})
    dog = '<script>,"dog'
    assert rows_of(tmp_path / "label_issues.csv") == [
        {"split": "train", "index": "1", "label": dog, "suggestion": "cat", "score": "0.1"},
        {"split": "test", "index": "2", "label": dog, "suggestion": "cat", "score": "0.1"},
    ]
    assert [(row["split"], row["index"], row["score"]) for row in rows_of(tmp_path / "outliers.csv")] == [
        *(("train", "1", "0.5"), ("val", "0", "0.4")),
        *(("test", "2", "0.3"), ("test", "0", "0.2")),
    ]
    assert rows_of(tmp_path / "duplicates.csv") == [
        {"split": "val", "index": "0", "label": dog, "suggestion": "cat", "score": "1.0", "kind": "exact"}
        | {"copy_split": "test", "copy_index": "0"}
    ]
    assert "1 of 6 training images have a probable label error (16.67%)" in text
    assert "1 exact duplicates of test images among training images" in text
    assert "all: 66.67% of 3" in text
    assert "without probable label errors: 100.00% of 2" in text
    assert "without copies of training images: 50.00% of 2" in text
    page = (tmp_path / "audit.html").read_text()
    assert "<script>" not in page
    assert "<i>" not in page
    assert "&lt;b&gt;&amp;" in page
    assert page.count("<img ") == 1 + 1 + 2 + 2 + 2 + 2  # errors, pairs twice in two galleries, outliers
    assert "1 test images have a copy among the training images" in page


# The command


def planted(root: Path) -> dict[str, set[int]]:
    """Write files with wrong labels and copies, and return the indices of the images with wrong labels."""
    raw = synthetic.write(root) / "FashionMNIST" / "raw"
    wrong = {"train": {*range(0, 600, 60)}, "test": {*range(5, 200, 25)}}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        file = raw / f"{prefix}-labels-idx1-ubyte"
        content = bytearray(file.read_bytes())
        for index in wrong[split]:
            content[8 + index] = (content[8 + index] + 3) % 10
        file.write_bytes(bytes(content))
    train, test = raw / "train-images-idx3-ubyte", raw / "t10k-images-idx3-ubyte"
    content, other = bytearray(train.read_bytes()), test.read_bytes()
    content[16 + 401 * 784 : 16 + 402 * 784] = content[16 + 3 * 784 : 16 + 4 * 784]
    content[16 + 402 * 784 : 16 + 403 * 784] = other[16 + 7 * 784 : 16 + 8 * 784]
    train.write_bytes(bytes(content))
    return wrong


@pytest.fixture
def audit(run_script: RunScript, data_root: Path) -> RunScript:
    def run(*words: str) -> Done:
        keys = {word.split("=")[0] for word in words}
        small = [word for word in (*SMALL, f"data.root={data_root}", "folds=2") if word.split("=")[0] not in keys]
        return run_script("audit_data", *small, *words)

    return run


@pytest.mark.extras
def test_planted_errors_and_copies_are_found(
    audit: RunScript, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    pytest.importorskip("cleanlab")
    root = tmp_path_factory.mktemp("planted")
    wrong = planted(root)
    done = audit(f"data.root={root}", "name=mine", "outliers=7")
    assert done.status == 0, done.err
    folder = tmp_path / "outputs" / "audit" / "mine"
    assert {file.name for file in folder.iterdir()} == {
        *("audit.html", "label_issues.csv", "duplicates.csv", "outliers.csv")
    }
    issues = rows_of(folder / "label_issues.csv")
    for split, expected in wrong.items():
        found = indices(issues, split)
        assert len(found & expected) >= 0.7 * len(expected), split
        assert len(found) <= 1.5 * len(expected) + 1
    for row in issues:
        if int(row["index"]) in wrong[row["split"]]:
            assert (CLASSES.index(row["suggestion"]) + 3) % 10 == CLASSES.index(row["label"])
    exact = [row for row in rows_of(folder / "duplicates.csv") if row["kind"] == "exact"]
    assert [(row["split"], row["index"], row["copy_split"], row["copy_index"]) for row in exact] == [
        ("train", "401", "train", "3"),
        ("train", "402", "test", "7"),
    ]
    outliers = rows_of(folder / "outliers.csv")
    assert [row["split"] for row in outliers] == ["train"] * 7 + ["test"] * 7
    assert "a copy among the training images" in (folder / "audit.html").read_text()
    audit(f"data.root={root}", "name=mine").assert_refused("name=mine", "exists")


@pytest.mark.slow
@pytest.mark.extras
def test_same_seed_gives_the_same_tables(audit: RunScript, tmp_path: Path) -> None:
    pytest.importorskip("cleanlab")
    planted(tmp_path / "data")
    for name in ("one", "two"):
        done = audit("data.root=data", f"name={name}", "near_duplicates=0.5")
        assert done.status == 0, done.err
    one, two = (tmp_path / "outputs" / "audit" / name for name in ("one", "two"))
    for name in ("label_issues.csv", "duplicates.csv", "outliers.csv"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
        assert rows_of(one / name)


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["folds=1"], ["folds=1: must be greater than or equal to 2"]),
        (["folds=61"], ["folds=61: must be at most 60", "training images of"]),
        (["folds=2.5"], ["folds=2.5: must be an integer"]),
        (["near_duplicates=0.2"], ["near_duplicates=0.2: must be greater than or equal to 0.5"]),
        (["outliers=-1"], ["outliers=-1"]),
        (["name=a/b"], ["name='a/b'"]),
        (["name=.."], ["name='..'"]),
        (["data.val_size=100"], ["data.val_size=100: must be 0"]),
        (["data.exclude=a.csv"], ["data.exclude=a.csv: must be null"]),
        (["test=true"], ["test=true: not here"]),
        (["resume=latest"], ['resume="latest": not here']),
        (["logger=csv"], ["logger: must be none"]),
        (["pictures=default"], ["pictures: must be none"]),
        (["data.root=nowhere"], ["data.root=nowhere"]),
        (["model=mlp"], ["model.channels"]),
        (["trainer.max_epochs=-1"], ["trainer.max_epochs=-1"]),
    ],
)
def test_wrong_input_is_refused_and_leaves_no_folder(
    words: list[str], fragments: list[str], audit: RunScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels, "find_spec", bool)
    audit(*words).assert_refused(*fragments)
    assert not (tmp_path / "outputs").exists()


def test_missing_cleanlab_is_named(audit: RunScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "find_spec", {}.get)
    audit().assert_refused("cleanlab is missing", "`make extras`", 'pip install "fmnist[audit]"')
    assert not (tmp_path / "outputs").exists()


@pytest.mark.extras
def test_a_dataset_without_test_images_is_refused(run_script: RunScript, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("cleanlab")
    run_script("audit_data", "data=digits", "data.test_size=null").assert_refused("data.test_size: is required")
    assert not (tmp_path / "outputs").exists()


# data.exclude


def data(root: Path, **arguments: Any) -> ImageDataModule:
    module = ImageDataModule(
        synthetic.dataset(root), Augmentation(), **({"batch_size": 50, "val_size": 100} | arguments)
    )
    module.prepare_data()
    module.setup()
    return module


def write_list(file: Path, *rows: tuple[str, int | str], columns: str = "split,index,label") -> Path:
    file.write_text("\n".join([columns, *(f"{split},{index},Bag" for split, index in rows), ""]))
    return file


def test_listed_training_images_are_left_out_and_the_other_splits_stay(data_root: Path, tmp_path: Path) -> None:
    before = data(data_root)
    places = positions(synthetic.dataset(data_root).contents.splits, 100, None, 0)
    trained, validated = places["train"].tolist(), places["val"].tolist()
    listed = [*trained[3:6], *validated[:2]]
    rows = [("train", index) for index in listed] + [("test", 0), ("val", 10**12)]
    after = data(data_root, exclude=str(write_list(tmp_path / "a.csv", *rows)))
    kept = [place for place, index in enumerate(trained) if index not in listed]
    assert len(kept) == len(trained) - 3
    for part in (0, 1):
        assert after.splits["train"][part].equal(before.splits["train"][part][kept])
        for split in ("val", "test"):
            assert after.splits[split][part].equal(before.splits[split][part])
    images = synthetic.dataset(data_root).contents.splits["train"][0]
    assert images[trained].equal(before.splits["train"][0])
    assert images[validated].equal(before.splits["val"][0])


def test_positions_count_through_the_splits_of_the_dataset() -> None:
    one = torch.zeros(6, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1] * 3)
    assert [part.tolist() for part in positions({"train": one, "val": one, "test": one}, 2, None, 0).values()] == [
        *([*range(6)], [*range(6, 12)], [*range(12, 18)])
    ]
    merged = positions({"train": one, "val": one, "test": one}, 0, None, 0)
    assert merged["train"].tolist() == [*range(12)]
    taken = positions({"train": one}, 0, 2, 0)
    assert sorted([*taken["train"].tolist(), *taken["test"].tolist()]) == [*range(6)]
    assert len(taken["test"]) == 2


def test_a_run_records_the_list_and_resumes_only_with_it(
    train: RunScript, run_script: RunScript, tmp_path: Path
) -> None:
    file = write_list(tmp_path / "list.csv", *(("train", index) for index in range(60)))
    done = train("data.exclude=list.csv", "data.val_size=0", "trainer.max_epochs=1")
    assert done.status == 0, done.err
    assert "60 of 60 listed training images are left out" in done.out
    assert "540 images to train on" in done.out
    run = done.run
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert json.loads((run / "run.json").read_text())["dataset"]["data.exclude"] == digest
    settings = read_run(run).settings
    assert settings["data.exclude"] == str(file)

    content = file.read_text()
    write_list(file, ("train", 0))
    run_script("train", f"resume={run}", "trainer.max_epochs=2").assert_refused(f"data.exclude={file}: changed")
    file.unlink()
    run_script("train", f"resume={run}", "trainer.max_epochs=2").assert_refused(f"data.exclude={file}: there is no")
    run_script("train", f"resume={run}", "data.exclude=null").assert_refused("data.exclude=null")
    assert run_script("evaluate", f"run={run}").status == 0  # which needs no training images
    file.write_text(content)
    done = run_script("train", f"resume={run}", "trainer.max_epochs=2")
    assert done.status == 0, done.err
    shutil.copytree(run, tmp_path / "other")
    record = json.loads((run / "run.json").read_text())
    record["dataset"]["data.exclude"] = "0"
    (tmp_path / "other" / "run.json").write_text(json.dumps(record))
    assert read_run(tmp_path / "other").settings["dataset"] != read_run(run).settings["dataset"]


EMPTIED = [("train", index) for index in range(600)]


@pytest.mark.parametrize(
    ("rows", "columns", "fragment"),
    [
        ([("train", 600)], "split,index", "line 2: index '600': must be an integer from 0 to 599"),
        ([("train", 1), ("train", -1)], "split,index", "line 3: index '-1'"),
        ([("train", "1.5")], "split,index", "index '1.5'"),
        ([("train", "²")], "split,index", "index '²'"),
        ([("train", "9" * 5000)], "split,index", "index '99999999999999999999'"),
        ([("training", 1)], "split,index", "split 'training': must be train, val or test"),
        ([("train", 1)], "split,number", "the column index is missing"),
        ([], "", "the column split is missing"),
        (EMPTIED, "split,index", "all 50 training images of class 0"),
    ],
)
def test_wrong_lists_are_refused_and_leave_no_run(
    rows: list[tuple[str, int | str]], columns: str, fragment: str, train: RunScript, tmp_path: Path
) -> None:
    write_list(tmp_path / "a.csv", *rows, columns=columns)
    train("data.exclude=a.csv").assert_refused("data.exclude", fragment)
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("content", "fragment"),
    [(None, "there is no such file"), (b"split,index\n\xff", "is no CSV file"), (b"\0" * 200, "the column split")],
)
def test_files_that_are_no_list_are_refused(
    content: bytes | None, fragment: str, train: RunScript, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "a.csv").write_bytes(content)
    train("data.exclude=a.csv").assert_refused("data.exclude=a.csv", fragment)
    train("data.exclude=.").assert_refused("data.exclude=.: there is no such file")


def test_a_list_that_is_too_large_is_not_read(
    train: RunScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmnist.data.splits.MAX_BYTES", 10)
    write_list(tmp_path / "a.csv", ("train", 1))
    train("data.exclude=a.csv").assert_refused("data.exclude=a.csv: is larger than 10 bytes")
