"""Test-time augmentation and ensembles: scripts/evaluate.py tta=... run=[...]."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import RunScript
from torch import Tensor, nn
from torch.nn import functional

from fmnist.config.build import build_datamodule
from fmnist.config.restore import restore
from fmnist.evaluation.calibration import Calibrator, calibration_line, calibration_metrics
from fmnist.evaluation.tta import TestTimeAugmentation as AugmentedNetwork  # pytest would collect a Test*
from fmnist.evaluation.tta import augmented, average_predictions
from fmnist.runs import checkpoints


def test_augmented_copies_are_flipped_and_shifted_and_their_weights_sum_to_1() -> None:
    image = torch.arange(1, 10).view(1, 1, 3, 3)
    flip_shift: dict[str, list[list[int]]] = {
        "original": [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
        "flipped": [[3, 2, 1], [6, 5, 4], [9, 8, 7]],
        "down and right": [[-1, -1, -1], [-1, 1, 2], [-1, 4, 5]],
        "down and right, flipped": [[-1, -1, -1], [2, 1, -1], [5, 4, -1]],
        "up and left": [[5, 6, -1], [8, 9, -1], [-1, -1, -1]],
        "up and left, flipped": [[-1, 6, 5], [-1, 9, 8], [-1, -1, -1]],
    }
    for tta, count in (("none", 1), ("flip", 2), ("flip_shift", 6)):
        weights, copies = zip(*augmented(image, tta, black=[-1]), strict=True)
        assert [copy[0, 0].tolist() for copy in copies] == list(flip_shift.values())[:count]
        assert sum(weights) == 1
    assert weights == (1 / 4, 1 / 4, 1 / 8, 1 / 8, 1 / 8, 1 / 8)


def test_prediction_is_the_weighted_mean_of_the_probabilities() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    images = torch.randn(5, 1, 28, 28)
    expected = sum(weight * network(copy).softmax(1) for weight, copy in augmented(images, "flip_shift", black=[-1]))
    torch.testing.assert_close(AugmentedNetwork(network, "flip_shift", black=[-1])(images).exp(), expected)


def test_mean_of_extreme_logits_is_finite_and_keeps_their_precision() -> None:
    extreme = torch.tensor([[1000.0, 0.0, -1000.0]])
    mean = average_predictions([extreme, extreme.flip(1)])
    assert mean[0].tolist() == pytest.approx([-0.6931, -1000, -0.6931], rel=1e-3)
    assert average_predictions([extreme.bfloat16()]).dtype == torch.float32
    assert average_predictions([extreme.double()]).dtype == torch.float64


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which the first test that trains keeps the runs for the others."""
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def runs(trained: Path, tmp_path: Path, train: RunScript) -> list[Path]:
    """Copies of two run folders."""
    if not any(trained.iterdir()):
        overrides = ("trainer.precision=32-true", "trainer.max_epochs=1", "test=false", "data.batch_size=100")
        for seed, name in enumerate("ab"):
            assert train(*overrides, f"seed={seed}", f"name={name}").status == 0
            (folder,) = tmp_path.glob(f"outputs/{name}/*")
            shutil.copytree(folder, trained / name)
    return [shutil.copytree(trained / name, tmp_path / name) for name in "ab"]


def expected_line(runs: list[Path], *, flip: bool) -> str:
    """Return loss and accuracy on the test images, as evaluate logs them, from a plain PyTorch loop."""
    probabilities: list[Tensor] = []
    for run in runs:
        config, classifier, dataset, *_ = restore(run / "checkpoints" / "best.ckpt", "cpu")
        datamodule = build_datamodule(config)
        datamodule.setup()
        images, labels = datamodule.splits["test"]
        with torch.no_grad():
            for copy in [images, images.flip(-1)] if flip else [images]:
                probabilities.append(classifier.network.eval()(dataset.normalise(copy)).softmax(1))
    mean = torch.stack(probabilities).mean(0)
    loss = functional.nll_loss(mean.log(), labels)
    return f"loss {loss:.4f}, accuracy {(mean.argmax(1) == labels).float().mean():.2%}"


def expected_calibration(run: Path) -> str:
    """Return what evaluate logs on the calibration with mirror images, whose temperature is one of its own."""
    config, classifier, dataset, *_ = restore(run / "checkpoints" / "best.ckpt", "cpu")
    datamodule = build_datamodule(config)
    datamodule.setup()
    logits = {}
    for split in ("val", "test"):
        images, _ = datamodule.splits[split]
        with torch.no_grad():
            both = [classifier.network.eval()(dataset.normalise(copy)).softmax(1) for copy in (images, images.flip(-1))]
        logits[split] = torch.stack(both).mean(0).log()
    calibrator = Calibrator.fit(logits["val"], datamodule.splits["val"][1])
    assert calibrator is not None
    return calibration_line(calibrator, calibration_metrics(calibrator, logits["test"], datamodule.splits["test"][1]))


def test_evaluate_logs_augmented_and_ensemble_results(runs: list[Path], run_script: RunScript) -> None:
    one, both = str(runs[0]), f"[{runs[0]},{runs[1]}]"
    pattern = f"{runs[0].parent}/*"  # also matches outputs/, which is no run folder
    lines = {}
    for run, tta in [(one, "none"), (one, "flip"), (both, "none"), (pattern, "none"), (both, "flip")]:
        done = run_script("evaluate", f"run={run}", f"tta={tta}", "accelerator=cpu")
        assert (done.status, done.err) == (0, "")
        lines[run, tta] = done.out.splitlines()
    assert lines[both, "none"] == lines[pattern, "none"]
    results = {key: next(line for line in found if line.startswith("test: ")) for key, found in lines.items()}
    assert {key: results[key] for key in [(one, "none"), (one, "flip"), (both, "none"), (both, "flip")]} == {
        (one, "none"): f"test: {expected_line(runs[:1], flip=False)}",
        (one, "flip"): f"test: {expected_line(runs[:1], flip=True)} (test-time augmentation flip)",
        (both, "none"): f"test: {expected_line(runs, flip=False)} (mean of 2 runs)",
        (both, "flip"): f"test: {expected_line(runs, flip=True)} (mean of 2 runs; test-time augmentation flip)",
    }
    assert expected_calibration(runs[0]) in lines[one, "flip"]
    accuracy = results[one, "none"].split(", ")[1]
    assert f"test of {one}/checkpoints/best.ckpt: {accuracy}" in lines[both, "none"]


def change(run: Path, how: Callable[[dict[str, Any]], None]) -> None:
    """Change the config in a run's checkpoint."""
    file = run / "checkpoints" / "best.ckpt"
    checkpoint = checkpoints.load(file)
    how(checkpoint[checkpoints.CONFIG_KEY])
    torch.save(checkpoint, file)


@pytest.mark.parametrize(
    ("values", "fragments"),
    [
        ({"split_seed": 3}, ["split=val", "data.split_seed is 0 in", "and 3 in"]),
        ({"val_size": 0}, ["split=val", "no validation images"]),
    ],
)
def test_ensemble_is_validated_only_on_images_that_none_was_trained_on(
    runs: list[Path], run_script: RunScript, values: dict[str, int], fragments: list[str]
) -> None:
    change(runs[1], lambda config: config["data"].update(values))
    run_script("evaluate", f"run=[{runs[0]},{runs[1]}]", "split=val").assert_refused(*fragments)


def test_ensemble_is_evaluated_only_on_the_same_images(
    runs: list[Path], run_script: RunScript, data_root: Path, tmp_path: Path
) -> None:
    both = f"run=[{runs[0]},{runs[1]}]"
    other = shutil.copytree(data_root, tmp_path / "data")
    change(runs[1], lambda config: config["data"].update(root=str(other)))
    assert run_script("evaluate", both).status == 0  # the same files
    images = next(other.rglob("t10k-images*"))
    images.write_bytes(images.read_bytes()[:-1] + b"\x07")
    run_script("evaluate", both).assert_refused("split=test", "data.root is", str(runs[0]), str(other), "same images")
    assert run_script("evaluate", both, f"data_root={data_root}").status == 0
    change(runs[1], lambda config: config["data"].update(root=str(data_root), eval_batch_size=7))
    assert run_script("evaluate", both).status == 0
    change(runs[0], lambda config: config["data"].update(eval_batch_size=7))
    change(runs[1], lambda config: config["trainer"].update(limit_test_batches=1))
    run_script("evaluate", both).assert_refused("run: ", "trainer.limit_test_batches")
    run_script("evaluate", f"run=[{runs[0]},{runs[0]}/]").assert_refused(f"run={runs[0]}/: given twice")
