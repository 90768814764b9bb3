"""What a terminal of 80 columns shows: no line that wraps, no bar that stays, nothing but text elsewhere."""

import logging
import re
import sys

import pytest
from conftest import RunScript

from fmnist.config import logs
from fmnist.evaluation.calibration import Calibrator, calibration_line
from fmnist.plotting.terminal import WIDTH, shows_progress
from fmnist.training.callbacks.history import epoch_line
from fmnist.training.callbacks.progress import progress_bar


def test_lines_of_a_training_fit(train: RunScript) -> None:
    done = train("trainer.max_epochs=1", "trainer.limit_train_batches=0.5")
    assert (done.status, done.err) == (0, "")
    for line in done.out.splitlines():
        assert len(re.sub(r"/\S+", "", line)) <= WIDTH
        assert line.isprintable()


def test_line_of_an_epoch_has_both_losses_and_accuracies() -> None:
    trained = {"epoch": 100, "seconds": 1234.56, "train/loss": 2.34567, "train/accuracy": 0.98765}
    validated = {"val/loss": 0.12345, "val/accuracy": 1.0}
    line = epoch_line({**trained, **validated}, 100)
    assert line == "epoch 100/100: loss 2.3457 (val 0.1235), accuracy 98.77% (val 100.00%), 1234.6 s"
    assert len(line) <= WIDTH
    assert epoch_line({**trained, "epoch": 3}, -1) == "epoch 3: loss 2.3457, accuracy 98.77%, 1234.6 s"


def test_line_of_the_calibration_fits() -> None:
    values = {"error": 0.3333, "error_calibrated": 0.1111, "loss": 1.0, "loss_calibrated": 0.5}
    line = calibration_line(Calibrator(0.526, None), values)  # type: ignore[arg-type]
    assert line == "calibrated with temperature 0.53: expected calibration error 11.1% (was 33.3%)"


def test_the_bar_is_one_line_that_goes_at_the_end(train: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    from fmnist.training.callbacks import progress

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "SHOWN_EVERY", 1e-3)
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    done = train("trainer.max_epochs=100", "trainer.max_steps=20", "test=false")
    assert done.status == 0, done.err
    text = re.sub(r"\x1b\[[\d;?]*[A-JL-Za-z]", "", done.out)  # all codes but that which clears the line
    frames = [frame for frame in re.split(r"\x1b\[2K|\r|\n", text) if "loss: " in frame]
    assert frames
    for frame in frames:
        assert re.fullmatch(r"epoch \d/100 [━╸╺]+ \d+/10 [\d:-]+ loss: [\d.]+ accuracy: [\d.]+% *", frame)
        assert len(frame.rstrip()) <= WIDTH
    assert "\x1b[1A\x1b[2K" in done.out.rpartition("accuracy: ")[2]


def test_a_line_that_repeats_the_one_before_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    logs.to_terminal()
    log = logging.getLogger("fmnist.test")
    for text in ("4 files", "4 files", "result", "4 files"):
        log.info("%s", text)
    assert capsys.readouterr().out == "4 files\nresult\n4 files\n"


@pytest.mark.parametrize(("terminal", "shown"), [("xterm-256color", True), ("dumb", False)])
def test_a_terminal_that_can_only_add_lines_has_no_bar(
    terminal: str, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", terminal)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert shows_progress(sys.stdout) is shown
    assert (progress_bar() is not None) is shown
