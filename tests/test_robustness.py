"""scripts/robustness.py: corruptions by value, and the scores as a user gets them."""

import csv
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import RunScript
from PIL import Image
from torch import Tensor
from torch.nn import functional

from fmnist.config.build import build_datamodule
from fmnist.config.restore import restore
from fmnist.config.trainer import build_evaluation_trainer
from fmnist.evaluation.measure import measure
from fmnist.evaluation.robustness import Robustness, Scores, read_robustness
from fmnist.robustness.corruptions import CHUNK, CORRUPTIONS, STRENGTHS, corrupt
from fmnist.robustness.files import write_scores
from fmnist.runs import checkpoints
from fmnist.runs.files import sha256
from fmnist.runs.run import Run
from fmnist.training.metrics import calibration

FEW = ("corruptions=[noise,inversion]", "strengths=[1,5]", "accelerator=cpu")


def images(count: int = 50, channels: int = 1, height: int = 28, width: int = 28) -> Tensor:
    """Return images with structures of a few pixels."""
    coarse = torch.rand(count, channels, 7, 7, generator=torch.Generator().manual_seed(3)) * 255
    return functional.interpolate(coarse, (height, width), mode="bilinear").round().to(torch.uint8)


def difference(one: Tensor, other: Tensor) -> Tensor:
    """Return the mean absolute difference of each image (N)."""
    return (one.float() - other.float()).abs().flatten(1).mean(dim=1)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 40)], ids=str)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_stronger_corruptions_change_images_more(name: str, shape: tuple[int, int, int]) -> None:
    before = images(50, *shape)
    changes = []
    for strength in STRENGTHS:
        after = corrupt(before, name, strength, seed=0)
        assert (after.shape, after.dtype) == (before.shape, torch.uint8)
        changes.append(difference(after, before).mean().item())
    assert changes == sorted(changes)
    assert changes[0] > 0.5
    assert changes[-1] > 1.5 * changes[0]


def test_corruptions_have_the_value_of_their_strength() -> None:
    before = images()
    pixels = before.double()
    assert torch.equal(corrupt(before, "inversion", 5, 0), 255 - before)
    assert (corrupt(before, "inversion", 1, 0) - (0.6 * pixels + 51)).abs().max() <= 0.51
    noise = corrupt(torch.full((50, 1, 28, 28), 128, dtype=torch.uint8), "noise", 2, 0).double()
    assert noise.std().item() == pytest.approx(25, rel=0.03)
    assert noise.mean().item() == pytest.approx(128, abs=0.5)
    faded = corrupt(before, "contrast", 2, 0).double()
    assert (faded.flatten(1).std(dim=1) / pixels.flatten(1).std(dim=1)).sub(0.5).abs().max() < 0.02
    black = corrupt(before.clamp(min=1), "erasing", 3, 0) == 0
    assert set(black.flatten(1).sum(dim=1).tolist()) == {13 * 13}  # a fifth of 28 x 28, whole pixels
    assert black.any(dim=0).float().mean() > 0.9  # anywhere
    blurred = corrupt(before, "blur", 3, 0).double()
    assert (blurred.mean(dim=(1, 2, 3)) - pixels.mean(dim=(1, 2, 3))).abs().max() < 8
    file = io.BytesIO()
    Image.fromarray(before[7, 0].numpy()).save(file, "JPEG", quality=12)
    with Image.open(file) as picture:
        read = torch.from_numpy(np.asarray(picture).copy())
    assert torch.equal(corrupt(before, "jpeg", 3, 0)[7, 0], read)
    point = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    point[..., 8:20, 8:20] = 200
    low = corrupt(point, "resolution", 2, 0)
    assert low[0, 0, 14, 14] == 200
    assert 0 < low[0, 0, 7, 14] < 200


@pytest.mark.parametrize(("name", "strength"), [("brightness", 2), ("rotation", 2), ("shift", 3), ("scale", 3)])
def test_direction_is_drawn_for_each_image_and_is_the_same_at_all_strengths(name: str, strength: int) -> None:
    square = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    square[..., 10:18, 10:22] = 60
    after = corrupt(square.expand(200, -1, -1, -1), name, strength, seed=1)
    kinds, group = after.flatten(1).unique(dim=0, return_inverse=True)
    assert len(kinds) == {"shift": 4}.get(name, 2)
    assert group.bincount().min() > 25
    other = corrupt(square.expand(200, -1, -1, -1), name, strength + 1, seed=1).flatten(1)
    assert len(torch.cat([group[:, None].to(torch.uint8), other], dim=1).unique(dim=0)) == len(kinds)
    if name == "brightness":
        assert sorted(kinds.amax(dim=1).tolist()) == [40, 90]
    if name == "shift":
        expected = {square[0, 0].roll((y, x), (0, 1)).flatten() for y in (3, -3) for x in (3, -3)}
        assert {tuple(kind.tolist()) for kind in kinds} == {tuple(each.tolist()) for each in expected}
    if name == "scale":
        areas = (kinds.double() / 60).sum(dim=1).sqrt() / (8 * 12) ** 0.5
        assert sorted(areas.tolist()) == pytest.approx([1 / 1.35, 1.35], rel=0.03)
    if name == "rotation":
        assert (
            torch.equal(kinds[0].view(28, 28), kinds[1].view(28, 28).flip(1))
            or difference(kinds[:1].view(1, 28, 28).flip(1), kinds[1:].view(1, 28, 28)) < 5
        )


def test_docs_have_the_strengths_of_the_code() -> None:
    text = (Path(__file__).parent.parent / "docs" / "robustness.md").read_text()
    for name, corruption in CORRUPTIONS.items():
        cells = [name, *(f"{value:g}" for value in corruption.values), corruption.unit]
        assert f"| {' | '.join(cells)} |" in text


def test_same_seed_gives_the_same_images_and_leaves_torchs_generator_alone() -> None:
    before = images(CHUNK + 10)
    state = torch.get_rng_state()
    first = corrupt(before, "noise", 1, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert torch.equal(corrupt(before, "noise", 1, seed=0), first)
    assert not torch.equal(corrupt(before, "noise", 1, seed=1), first)
    noise = first.float() - before
    assert not torch.equal(noise[:10], noise[CHUNK:])  # another draw for each part


def rows_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "robustness.csv").read_text().splitlines()))


def test_scores_of_a_run_are_those_of_its_network_on_the_corrupted_images(
    finished_run: Path, run_script: RunScript
) -> None:
    done = run_script("robustness", "run=run", *FEW)
    assert (done.status, done.err) == (0, "")
    file = finished_run / "checkpoints" / "best.ckpt"
    config, classifier, _, calibrator, _ = restore(file, "cpu")
    assert calibrator
    datamodule = build_datamodule(config)
    datamodule.setup()
    originals, labels = datamodule.splits["test"]
    rows = rows_of(finished_run)
    named = [("clean", 0), ("noise", 1), ("noise", 5), ("inversion", 1), ("inversion", 5)]
    assert [(row["corruption"], int(row["strength"])) for row in rows] == named
    for row, (name, strength) in zip(rows, named, strict=True):
        shown = corrupt(originals, name, strength, 0) if strength else originals
        datamodule.splits["test"] = shown, labels
        result = measure(build_evaluation_trainer(config), classifier, datamodule, "test")
        probabilities = calibrator.probabilities(result.logits)
        assert float(row["accuracy"]) == pytest.approx(result.accuracy)
        assert float(row["calibration_error"]) == pytest.approx(calibration(probabilities, labels).error, abs=1e-5)
        assert float(row["confidence"]) == pytest.approx(probabilities.amax(dim=1).mean().item(), abs=1e-5)
    assert [row["value"] for row in rows] == ["", "10.0", "90.0", "0.2", "1.0"]

    written = json.loads((finished_run / "robustness.json").read_text())
    assert (written["images"], written["seed"], written["all_corruptions"]) == (200, 0, False)
    accuracies = [float(row["accuracy"]) for row in rows]
    (values,) = written["runs"]
    assert values["calibrated"] is True
    assert values["clean"]["accuracy"] == pytest.approx(accuracies[0])
    assert values["mean"]["accuracy"] == pytest.approx(sum(accuracies[1:]) / 4)
    assert values["corruptions"]["noise"]["mean"]["accuracy"] == pytest.approx(sum(accuracies[1:3]) / 2)
    assert values["corruptions"]["inversion"]["5"]["accuracy"] == pytest.approx(accuracies[4])
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[2] == ["corruption", "clean", "1", "5", "mean", "ECE", "confidence"]
    shown = [f"{100 * value:.1f}" for value in (accuracies[0], *accuracies[1:3], sum(accuracies[1:3]) / 2)]
    assert lines[4][:5] == ["noise", *shown]
    assert f"under the chosen corruptions {100 * values['mean']['accuracy']:.2f}% (2 x 2)" in " ".join(done.out.split())
    page = (finished_run / "robustness.html").read_text()
    assert page.count("<svg") == 2
    assert "comparable" in page
    assert "<script" not in page


def test_all_corruptions_of_several_runs_are_compared_in_a_new_folder(
    finished_run: Path, run_script: RunScript
) -> None:
    other = shutil.copytree(finished_run, finished_run.parent / "other")
    checkpoint = checkpoints.load(other / "checkpoints" / "best.ckpt")
    for value in checkpoints.network_weights(checkpoint).values():
        value.copy_(torch.zeros_like(value))
    torch.save(checkpoint, other / "checkpoints" / "best.ckpt")
    done = run_script("robustness", "run", "other", "images=20", "accelerator=cpu")
    assert (done.status, done.err) == (0, "")
    (folder,) = done.folder.glob("outputs/robustness/*")
    assert sorted(file.name for file in folder.iterdir()) == [f"robustness.{end}" for end in ("csv", "html", "json")]
    for run in (finished_run, other):  # only its own scores, for its report
        assert [file.name for file in run.glob("robustness*")] == ["robustness.json"]
        own = read_robustness(Run(run), run / "checkpoints" / "best.ckpt")
        assert (own.name, own.images, own.seed, own.complete, own.calibrated) == (run.name, 20, 0, True, True)
        assert len(own.corrupted) == len(CORRUPTIONS) * 5
    rows = rows_of(folder)
    assert len(rows) == 2 * (1 + len(CORRUPTIONS) * 5)
    assert len({row["accuracy"] for row in rows if row["run"] == "other"}) == 1  # always the same class
    written = json.loads((folder / "robustness.json").read_text())
    assert (written["images"], written["all_corruptions"]) == (20, True)
    assert [values["run"] for values in written["runs"]] == ["run", "other"]
    first, second = (values["mean"]["accuracy"] for values in written["runs"])
    assert first > second
    lines = {line.split("  ")[0].strip(): line.split()[-2:] for line in done.out.splitlines()}
    assert lines["accuracy (%)"] == ["1", "2"]
    assert lines["mean of corruptions"] == [f"{100 * first:.1f}", f"{100 * second:.1f}"]
    assert f"1: run: mean corruption accuracy {100 * first:.2f}% (11 x 5)" in " ".join(done.out.split())
    assert own.mean().accuracy == second
    assert [line.split() for line in done.out.splitlines()][-1][-2:] == ["scripts/report.py", "run=<run>"]
    page = (folder / "robustness.html").read_text()
    assert page.count("<svg") == len(CORRUPTIONS)
    assert "comparable" not in page
    assert "<h3" in page

    alone = run_script("robustness", "run=other", "images=20", *FEW, "output=new/folder")
    assert alone.status == 0
    again = {(row["corruption"], row["strength"]): row for row in rows_of(done.folder / "new" / "folder")}
    for row in rows:
        if row["run"] == "other" and (key := (row["corruption"], row["strength"])) in again:
            assert again[key] == row


def test_report_has_the_scores_of_the_checkpoint_and_otherwise_the_command(
    finished_run: Path, run_script: RunScript
) -> None:
    assert run_script("report", "run=run", "split=test", "accelerator=cpu").err == ""
    page = (finished_run / "report.html").read_text()
    assert f"<pre>python scripts/robustness.py run={finished_run}</pre>" in page
    assert run_script("robustness", "run=run", *FEW).status == 0
    assert run_script("report", "run=run", "split=test", "accelerator=cpu").err == ""
    page = (finished_run / "report.html").read_text()
    assert "robustness.py" not in page
    section = page[page.index('<section id="robustness"') :]
    measured = read_robustness(Run(finished_run), finished_run / "checkpoints" / "best.ckpt")
    assert f"200 test images, corruptions of seed 0: {measured.sentence()}." in section
    accuracies = [measured.clean, measured.corrupted["noise", 1], measured.corrupted["noise", 5]]
    cells = "".join(f"<td>{100 * scores.accuracy:.1f}</td>" for scores in accuracies)
    assert f'<tr><th scope="row">noise</th>{cells}' in section
    assert "comparable" in section

    file = finished_run / "checkpoints" / "best.ckpt"  # as after more training
    checkpoint = checkpoints.load(file)
    checkpoint["epoch"] += 1
    torch.save(checkpoint, file)
    done = run_script("report", "run=run", "split=test", "accelerator=cpu")
    assert done.status == 0
    assert done.err.strip().endswith("robustness.json is of another checkpoint than best.ckpt is now")
    assert "<pre>python scripts/robustness.py" in (finished_run / "report.html").read_text()


def damaged(content: dict[str, Any], *keys: Any, value: Any) -> str:
    """Return the JSON with another value at the end of some keys."""
    place: Any = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return json.dumps(content)


@pytest.mark.parametrize(
    ("keys", "value", "fragment"),
    [
        (["images"], 0, "images: "),
        (["runs"], {}, "runs: "),
        (["runs", 0], None, "runs.0: "),
        (["runs", 0, "checkpoint"], "0", "another checkpoint"),
        (["runs", 0, "clean", "accuracy"], 1.5, "runs.0.clean.accuracy: "),
        (["runs", 0, "clean", "accuracy"], "1", "runs.0.clean.accuracy: "),
        (["runs", 0, "corruptions"], {}, "runs.0.corruptions: "),
        (["runs", 0, "corruptions", "<b>"], {"6": {}}, "runs.0.corruptions.<b>.6"),
        (["runs", 0, "corruptions", "noise"], {}, "the same strengths"),
        (
            ["runs", 0, "corruptions", "noise"],
            {"mean": {"accuracy": 1, "calibration_error": 0, "confidence": 1}},
            "same",
        ),
        (["runs", 0, "corruptions", "x" * 50], {}, "at most 40"),
        (["runs", 0, "corruptions", "\x1b\n"], {"1": {}}, r"corruptions.\x1b\n.1"),
    ],
)
def test_damaged_scores_are_refused(tmp_path: Path, keys: list[Any], value: Any, fragment: str) -> None:
    checkpoint = tmp_path / "best.ckpt"
    checkpoint.write_bytes(b"weights")
    scores = Scores(0.5, None, 0.25)
    corrupted = {("noise", 1): scores, ("noise", 2): scores, ("blur", 1): scores, ("blur", 2): scores}
    measured = Robustness("run", sha256(checkpoint), True, 20, 3, False, Scores(1.0, 0.0, 1.0), corrupted)
    run = Run(tmp_path)
    write_scores(run, measured)
    assert read_robustness(run, checkpoint) == measured
    content = json.loads(run.robustness_file.read_text())
    run.robustness_file.write_text(damaged(content, *keys, value=value))
    with pytest.raises(ValueError, match=re.escape(fragment)) as refused:
        read_robustness(run, checkpoint)
    assert str(refused.value).startswith(str(run.robustness_file))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", [b"", b"[", b"\xff\xfe", b"[" * 100_000, b'"' + b"x" * 2**20 + b'"'])
def test_no_json_is_refused(tmp_path: Path, text: bytes) -> None:
    run = Run(tmp_path)
    run.robustness_file.write_bytes(text)
    with pytest.raises(ValueError, match=r"robustness\.json is"):
        read_robustness(run, tmp_path / "best.ckpt")


def test_scores_of_another_checkpoint_of_a_run_do_not_go_to_its_folder(
    finished_run: Path, run_script: RunScript
) -> None:
    assert run_script("robustness", "checkpoint=run/checkpoints/last.ckpt", *FEW).status == 0
    assert not list(finished_run.glob("robustness*"))
    assert list(finished_run.parent.glob("outputs/robustness/*/robustness.html"))


def test_folder_that_can_not_be_written_to_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scores = Scores(0.5, 0.1, 0.25)
    write_scores(Run(tmp_path / "gone"), Robustness("run", "0", True, 20, 3, True, scores, {("noise", 1): scores}))
    assert "gone/robustness.json: can't be written: No such file or directory" in caplog.text


def test_run_without_validation_images_is_measured_uncalibrated(train: RunScript, run_script: RunScript) -> None:
    run = train("data.val_size=0", "trainer.max_epochs=1", "test=false").run
    done = run_script("robustness", f"run={run}", "corruptions=noise", "strengths=[1]")
    assert done.status == 0
    assert "not calibrated" in done.out + done.err
    (values,) = json.loads((run / "robustness.json").read_text())["runs"]
    assert values["calibrated"] is False


def test_network_of_nan_has_an_accuracy_and_no_confidence(finished_run: Path, run_script: RunScript) -> None:
    file = finished_run / "checkpoints" / "best.ckpt"
    checkpoint = checkpoints.load(file)
    for value in checkpoints.network_weights(checkpoint).values():
        value.copy_(torch.full_like(value, float("nan")) if value.is_floating_point() else value)
    torch.save(checkpoint, file)
    done = run_script("robustness", "run=run", *FEW)
    assert done.status == 0
    (values,) = json.loads((finished_run / "robustness.json").read_text())["runs"]
    assert values["mean"]["confidence"] is None
    assert 0 <= values["mean"]["accuracy"] <= 0.2


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        ("seed=0", ["run=<run folder>", "checkpoint="]),
        ("run=nowhere", ["run=nowhere", "no such folder"]),
        ("run=[run,run]", ["run=run", "given twice"]),
        ("run=run corruptions=[fog]", ["corruptions=fog", "no such corruption", "blur"]),
        ("run=run corruptions=[blurr]", ["corruptions=blurr", "did you mean blur?"]),
        ("run=run corruptions=[blur,blur]", ["corruptions=blur", "given twice"]),
        ("run=run corruptions=[]", ["corruptions=[]"]),
        ("run=run strengths=[0]", ["strengths=[0]", "greater than or equal to 1"]),
        ("run=run strengths=[1,6]", ["strengths=[1, 6]", "less than or equal to 5"]),
        ("run=run strengths=[2,2]", ["strengths=[2, 2]", "given twice"]),
        ("run=run images=201", ["images=201", "at most 200"]),
        ("run=run output=", ["output=: must be a folder"]),
        ("run=run output=run/run.json", ["output=run/run.json", "must be a folder"]),
        ("run=run output=run/run.json/new", ["output=run/run.json/new", "is a file"]),
        ("run=run output=/proc/new", ["output=/proc/new", "can't be written"]),
        ("run=run data_root=empty", ["data_root=", "empty"]),
        ("run=run accelerator=abacus", ["abacus"]),
        ("run=[run,digits]", ["digits", "other test images"]),
        ("checkpoint=run/run.json", ["run.json", "not a readable checkpoint"]),
    ],
)
def test_wrong_input_is_refused_and_writes_no_file(
    arguments: str, fragments: list[str], finished_run: Path, run_script: RunScript, tmp_path: Path
) -> None:
    if "digits" in arguments:
        shutil.copytree(finished_run, tmp_path / "digits")
        file = tmp_path / "digits" / "checkpoints" / "best.ckpt"
        other = shutil.copytree(data_folder(file), tmp_path / "data")
        images_file = next(other.glob("FashionMNIST/raw/t10k-images*"))
        content = bytearray(images_file.read_bytes())
        content[-1] ^= 1
        images_file.write_bytes(content)
        checkpoint = checkpoints.load(file)
        checkpoint[checkpoints.CONFIG_KEY]["data"]["root"] = str(other)
        torch.save(checkpoint, file)
    before = sorted(tmp_path.rglob("*"))
    done = run_script("robustness", *arguments.split())
    done.assert_refused(*fragments)
    assert "accuracy" not in done.out
    assert sorted(tmp_path.rglob("*")) == before


def data_folder(file: Path) -> Path:
    return Path(checkpoints.load(file)[checkpoints.CONFIG_KEY]["data"]["root"])
