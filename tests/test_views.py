"""Test-time augmentation and several runs together: scripts/evaluate.py views=... run=[...]."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from conftest import RunScript
from torch import Tensor, nn
from torch.nn import functional

from fmnist.config.build import build_datamodule
from fmnist.config.restore import restore
from fmnist.data.augment import normalise
from fmnist.evaluation.main import settings
from fmnist.evaluation.tta import VIEWS, TestTimeAugmentation, View, average_predictions
from fmnist.runs import checkpoints


def test_views_by_name() -> None:
    assert tuple(VIEWS) == get_args(get_type_hints(settings)["views"])
    assert {name: (len(views), sum(view.share for view in views)) for name, views in VIEWS.items()} == {
        "none": (1, 1),
        "flip": (2, 1),
        "flip_shift": (6, 1),
    }


def test_a_view_shifts_mirrors_and_lets_black_come_in() -> None:
    pixels = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3)
    shown: dict[tuple[int, bool], list[list[int]]] = {
        (0, False): [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
        (0, True): [[3, 2, 1], [6, 5, 4], [9, 8, 7]],
        (1, False): [[0, 0, 0], [0, 1, 2], [0, 4, 5]],
        (-1, False): [[5, 6, 0], [8, 9, 0], [0, 0, 0]],
        (1, True): [[0, 0, 0], [2, 1, 0], [5, 4, 0]],
        (-1, True): [[0, 6, 5], [0, 9, 8], [0, 0, 0]],
    }
    for (shift, mirrored), expected in shown.items():
        found = View(1.0, shift, mirrored).of(normalise(pixels))
        assert torch.equal(found, normalise(torch.tensor([[expected]], dtype=torch.uint8)))
    assert {(view.shift, view.mirrored) for view in VIEWS["flip_shift"]} == shown.keys()


@pytest.mark.parametrize("name", ["flip", "flip_shift"])
def test_the_answer_is_the_mean_of_the_probabilities(name: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    images = normalise(torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8))

    def probabilities(shown: Tensor) -> Tensor:
        both = network(shown), network(shown.flip(-1))
        return (both[0].softmax(1) + both[1].softmax(1)) / 2

    expected = probabilities(images)
    if name == "flip_shift":
        black = normalise(torch.zeros(1, dtype=torch.uint8)).item()
        padded = functional.pad(images, (1, 1, 1, 1), value=black)
        shifted = (probabilities(padded[..., :28, :28]) + probabilities(padded[..., 2:, 2:])) / 2
        expected = (expected + shifted) / 2
    found = TestTimeAugmentation(network, VIEWS[name])(images)
    torch.testing.assert_close(found.softmax(1), expected)
    torch.testing.assert_close(found.exp(), expected)


def test_a_network_that_knows_no_left_and_right_answers_the_same() -> None:
    class Rows(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean(dim=3).flatten(1)[:, :10]

    images = torch.rand(5, 1, 28, 28)
    torch.testing.assert_close(
        TestTimeAugmentation(Rows(), VIEWS["flip"])(images).softmax(1), Rows()(images).softmax(1)
    )


def test_the_mean_of_sure_answers_is_finite_and_as_precise_as_they_are() -> None:
    sure = torch.tensor([[1000.0, 0.0, -1000.0]])
    assert average_predictions([sure, sure.flip(1)])[0].tolist() == pytest.approx([-0.6931, -1000, -0.6931], rel=1e-3)
    assert average_predictions([sure.bfloat16()]).dtype == torch.float32
    assert average_predictions([sure.double()]).dtype == torch.float64


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the runs of the first test that trains some are kept for the others."""
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def runs(trained: Path, tmp_path: Path, train: RunScript) -> list[Path]:
    """The folders of two runs, to be spoilt."""
    if not any(trained.iterdir()):
        words = ("trainer.precision=32-true", "trainer.max_epochs=1", "test=false", "data.batch_size=100")
        for seed, name in enumerate("ab"):
            assert train(*words, f"seed={seed}", f"name={name}").status == 0
        for name in "ab":
            (folder,) = tmp_path.glob(f"outputs/{name}/*")
            shutil.copytree(folder, trained / name)
    return [shutil.copytree(trained / name, tmp_path / name) for name in "ab"]


def by_hand(runs: list[Path], mirrored: bool) -> str:
    """Loss and accuracy on the test images, as evaluate writes them."""
    answers = []
    for run in runs:
        saved, classifier = restore(run / "checkpoints" / "best.ckpt", "cpu")
        datamodule = build_datamodule(saved)
        datamodule.setup()
        images, labels = datamodule.splits["test"]
        with torch.no_grad():
            network = classifier.network.eval()
            answers += [
                network(normalise(part)).softmax(1) for part in ([images, images.flip(-1)] if mirrored else [images])
            ]
    mean = torch.stack(answers).mean(0)
    loss = functional.nll_loss(mean.log(), labels)
    return f"loss {loss:.4f}, accuracy {(mean.argmax(1) == labels).float().mean():.2%}"


def test_what_evaluate_says_of_views_and_of_several_runs(runs: list[Path], run_script: RunScript) -> None:
    one, both = str(runs[0]), f"[{runs[0]},{runs[1]}]"
    said = {}
    pattern = f"{runs[0].parent}/*"  # outputs/, which is beside them, is no run folder
    some = [(one, "none"), (f"[{one}]", "none"), (one, "flip"), (both, "none"), (pattern, "none"), (both, "flip")]
    for run, views in some:
        done = run_script("evaluate", f"run={run}", f"views={views}", "accelerator=cpu")
        assert (done.status, done.err) == (0, "")
        said[run, views] = done.out.splitlines()
    assert said[one, "none"] == said[f"[{one}]", "none"]
    assert said[both, "none"] == said[pattern, "none"]
    last = {key: lines[-1] for key, lines in said.items()}
    assert last[one, "none"] == f"test: {by_hand(runs[:1], mirrored=False)}"
    augmented = "test-time augmentation, 2 views of each image"
    assert last[one, "flip"] == f"test: {by_hand(runs[:1], mirrored=True)} ({augmented})"
    assert last[both, "none"] == f"test: {by_hand(runs, mirrored=False)} (the mean of 2 runs)"
    assert last[both, "flip"] == f"test: {by_hand(runs, mirrored=True)} (the mean of 2 runs; {augmented})"
    assert len(set(last.values())) == 4
    alone = last[one, "none"].split(", ")[1]
    assert f"test of {one}/checkpoints/best.ckpt: {alone}" in said[both, "none"]
    assert "test of 2 runs together:" in said[both, "flip"]


def change(run: Path, how: Callable[[dict[str, Any]], None]) -> None:
    """Changes the config in a run's checkpoint."""
    file = run / "checkpoints" / "best.ckpt"
    checkpoint = checkpoints.load(file)
    how(checkpoint[checkpoints.CONFIG_KEY])
    torch.save(checkpoint, file)


@pytest.mark.parametrize(
    ("spoil", "fragments"),
    [
        (lambda config: config["data"].update(val_size=90), ["split=val: data.val_size is 100 in", "and 90 in"]),
        (lambda config: config["data"].update(split_seed=3), ["split=val: data.split_seed is 0 in", "and 3 in"]),
        (lambda config: config["data"].update(val_size=0), ["split=val", "no validation images"]),
    ],
)
def test_runs_that_kept_other_images_are_not_validated_together(
    runs: list[Path], run_script: RunScript, spoil: Callable[[dict[str, Any]], None], fragments: list[str]
) -> None:
    change(runs[1], spoil)
    both = f"run=[{runs[0]},{runs[1]}]"
    run_script("evaluate", both, "split=val").assert_refused(*fragments)
    assert run_script("evaluate", both).status == 0


def test_runs_of_other_images_are_not_measured_together(
    runs: list[Path], run_script: RunScript, data_root: Path, tmp_path: Path
) -> None:
    both = f"run=[{runs[0]},{runs[1]}]"
    other = shutil.copytree(data_root, tmp_path / "data")
    change(runs[1], lambda config: config["data"].update(root=str(other)))
    assert run_script("evaluate", both).status == 0  # the same files
    images = next(other.rglob("t10k-images*"))
    images.write_bytes(images.read_bytes()[:-1] + b"\x07")
    run_script("evaluate", both).assert_refused("split=test: data.root is", str(runs[0]), str(other), "same images")
    assert run_script("evaluate", both, f"data_root={data_root}").status == 0
    change(runs[1], lambda config: config["data"].update(root=str(data_root), eval_batch_size=7))
    assert run_script("evaluate", both).status == 0
    change(runs[1], lambda config: config["trainer"].update(fast_dev_run=True))
    change(runs[0], lambda config: config["data"].update(eval_batch_size=7))
    run_script("evaluate", both).assert_refused("run: ", "trainer.limit_test_batches")
    run_script("evaluate", f"run=[{runs[0]},{runs[0]}/]").assert_refused(f"run={runs[0]}/ stands there twice")
