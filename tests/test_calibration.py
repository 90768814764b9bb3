"""Calibrated probabilities and prediction sets, alone and in the commands."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import synthetic
import torch
from conftest import RunScript
from PIL import Image
from torch import Tensor

import fmnist
from fmnist.evaluation.calibration import Calibrator, calibration_metrics, set_metrics
from fmnist.runs import checkpoints


def guesses(count: int, seed: int, classes: int = 5) -> tuple[Tensor, Tensor]:
    """Logits whose probabilities are right, and labels drawn from them."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, classes, generator=generator)
    return logits, torch.multinomial(logits.softmax(dim=1), 1, generator=generator).squeeze(1)


def fitted(logits: Tensor, labels: Tensor) -> Calibrator:
    calibrator = Calibrator.fit(logits, labels)
    assert calibrator is not None
    return calibrator


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_temperature_is_found(temperature: float) -> None:
    logits, labels = guesses(20_000, seed=0)
    found = fitted(logits * temperature, labels)
    assert found.temperature == pytest.approx(temperature, rel=0.03)
    values = calibration_metrics(found, logits * temperature, labels)
    assert values["error_calibrated"] < 0.015
    assert values["loss_calibrated"] <= values["loss"]
    assert torch.equal(found.probabilities(logits).argmax(dim=1), logits.argmax(dim=1))


def test_loss_is_least_at_the_temperature() -> None:
    logits, labels = guesses(5_000, seed=1)
    best = fitted(logits, labels)
    for factor in (0.95, 1.05):
        other = Calibrator(best.temperature * factor, best.scores)
        assert (
            calibration_metrics(other, logits, labels)["loss_calibrated"]
            > calibration_metrics(best, logits, labels)["loss_calibrated"]
        )


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_prediction_sets_cover_other_images_as_often_as_they_say(coverage: float) -> None:
    calibrator = fitted(*guesses(5_000, seed=2))
    logits, labels = guesses(20_000, seed=3)
    values = set_metrics(calibrator, logits, labels, coverage, "abcde")
    assert values["coverage"] == pytest.approx(coverage, abs=0.012)
    assert 1 <= values["size"] < 5
    assert [name for name, *_ in values["classes"]] == list("abcde")
    sets = calibrator.prediction_sets(calibrator.probabilities(logits), coverage)
    assert sets.gather(1, logits.argmax(dim=1, keepdim=True)).all()


def test_few_images_allow_no_small_set() -> None:
    logits, labels = guesses(10, seed=4)
    calibrator = fitted(logits, labels)
    assert calibrator.prediction_sets(calibrator.probabilities(logits), 0.95).all()  # (10 + 1) * 0.95 > 10


def test_few_right_images_make_no_network_certain_and_a_diverged_one_has_no_calibration() -> None:
    logits = 10 * torch.eye(3)
    sure = fitted(logits, torch.arange(3)).probabilities(logits).amax(dim=1)
    assert sure.tolist() == pytest.approx([4 / 6] * 3, abs=1e-3)
    assert Calibrator.fit(logits.fill_(math.nan), torch.arange(3)) is None


@pytest.mark.parametrize(
    "values",
    [
        None,
        [1.0],
        {"temperature": 1.0},
        {"temperature": math.nan, "scores": torch.zeros(3)},
        {"temperature": 0.0, "scores": torch.zeros(3)},
        {"temperature": "1", "scores": torch.zeros(3)},
        {"temperature": 1.0, "scores": torch.zeros(3, 3)},
        {"temperature": 1.0, "scores": torch.zeros(0)},
        {"temperature": 1.0, "scores": torch.zeros(3, dtype=torch.long)},
        {"temperature": 1.0, "scores": [0.1]},
    ],
)
def test_what_is_no_calibration_is_refused(values: Any) -> None:
    with pytest.raises(ValueError, match="calibration: "):
        Calibrator.from_dict(values)


def test_a_run_keeps_its_calibration_and_every_command_uses_it(train: RunScript, run_script: RunScript) -> None:
    done = train("optimizer=adamw", "report=true")  # which makes mistakes
    assert (done.status, done.err) == (0, "")
    run = done.run
    metrics = json.loads((run / "metrics.json").read_text())["calibration"]
    kept = checkpoints.load(run / "checkpoints" / "best.ckpt")[checkpoints.CALIBRATION_KEY]
    assert kept["temperature"] == metrics["temperature"]
    assert len(kept["scores"]) == 100
    assert metrics["val"]["loss_calibrated"] <= metrics["val"]["loss"]
    (line,) = (line for line in done.out.splitlines() if line.startswith("calibrated with temperature"))
    assert f"{metrics['test']['error_calibrated']:.1%} (was {metrics['test']['error']:.1%})" in line
    page = (run / "report.html").read_text()
    assert f"temperature of {metrics['temperature']:.2f}" in " ".join(page.split())
    assert "Prediction sets" in page
    assert f"expected calibration error {100 * metrics['test']['error_calibrated']:.2f} %" in page
    again = run_script("evaluate", f"run={run}", "accelerator=cpu")
    assert line in again.out
    both = run_script("evaluate", f"run={run}", "accelerator=cpu", "tta=flip")
    (flipped,) = (line for line in both.out.splitlines() if line.startswith("calibrated with temperature"))
    assert flipped != line

    Image.fromarray(synthetic.make(1, seed=1, black=True)[0][0].numpy()).save("image.png")
    words = (f"run={run}", "image.png", "accelerator=cpu", "top=10", "coverage=0.9", "min_confidence=0.999")
    (shown,) = json.loads(run_script("predict", *words, "format=json").out)
    probabilities = {entry["class"]: entry["probability"] for entry in shown["top"]}
    highest = 1 - kept["scores"][math.ceil(101 * 0.9) - 1].item()
    expected = [name for name, value in probabilities.items() if value >= highest]
    assert shown["set"] == (expected or [shown["top"][0]["class"]])
    assert shown["unsure"] is (shown["top"][0]["probability"] < 0.999)
    (row,) = csv.DictReader(run_script("predict", *words, "format=csv").out.splitlines())
    assert row["set"].split("|") == shown["set"]
    assert row["unsure"] == str(shown["unsure"])
    table = run_script("predict", *words).out.splitlines()
    assert table[0].split()[-2:] == ["set", "file"]
    assert table[2].count("%") == len(shown["set"])
    prediction = fmnist.load(run).predict("image.png", coverage=0.9, min_confidence=0.999)
    assert prediction.marks == {name: shown[name] for name in ("set", "unsure", "unfamiliar")}
    assert {name: round(value, 6) for name, value in prediction.probabilities.items()} == probabilities


def test_without_validation_images_nothing_is_calibrated(
    train: RunScript, run_script: RunScript, tmp_path: Path
) -> None:
    done = train("data.val_size=0", "report=true")
    assert "calibrated" not in done.out
    assert "calibration" not in json.loads((done.run / "metrics.json").read_text())
    assert "not calibrated" in (done.run / "report.html").read_text()
    assert "not calibrated: that takes validation images" in run_script("evaluate", f"run={done.run}").out
    image = tmp_path / "image.png"
    Image.new("L", (28, 28)).save(image)
    refused = run_script("predict", f"run={done.run}", str(image), "coverage=0.9")
    refused.assert_refused("coverage=0.9", "not calibrated", "data.val_size")


@pytest.mark.parametrize(
    ("override", "fragments"),
    [
        ("coverage=0", ["coverage=0", "greater than 0"]),
        ("coverage=1", ["coverage=1", "less than 1"]),
        ("coverage=95%", ["coverage=95%", "number"]),
        ("min_confidence=1.5", ["min_confidence=1.5", "less than 1"]),
        ("min_confidence=0", ["min_confidence=0", "greater than 0"]),
    ],
)
def test_what_is_no_probability_is_refused(run_script: RunScript, override: str, fragments: list[str]) -> None:
    run_script("predict", "run=there-is-none", "image.png", override).assert_refused(*fragments)
