"""The commands of README.md, as they stand there, with small data and few steps."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import synthetic
from conftest import SMALL, RunScript
from PIL import Image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TRAINING = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^ {4}python scripts/(\w+)\.py ?(.*?)(?: {2,}#.*)?$", README, re.MULTILINE)
ELSEWHERE = {"demo", "export"}
"""Tested with their own files, as they need an extra."""
FEW_STEPS = ("trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1")


def few_steps(script: str, arguments: list[str], data_root: Path) -> list[str]:
    """Return overrides that keep a command of the README small."""
    if script == "robustness":
        return ["images=20"]
    if script == "tune":
        small = [word for word in SMALL if not word.startswith(("data.batch_size", "pictures", "report"))]
        return ["trials=1", *small, f"data.root={data_root}", *FEW_STEPS]
    if script != "train" or "--help" in arguments:
        return []
    if "resume=latest" in arguments:
        return ["trainer.max_epochs=3"]
    given = {argument.partition("=")[0] for argument in arguments}
    own_network = {"model", "experiment"} & given
    small = [word for word in SMALL if not (own_network and word.startswith("model."))]
    return [*small, f"data.root={data_root}", "test=false", *FEW_STEPS]


def test_readme_has_commands_of_all_kinds() -> None:
    scripts = {script for script, _ in COMMANDS}
    assert {"train", "evaluate", "tune", "predict", "robustness", "export", "demo"} == scripts
    assert len(COMMANDS) >= 12


@pytest.mark.parametrize(("script", "text"), [pair for pair in COMMANDS if pair[0] not in ELSEWHERE])
def test_every_command_runs(
    script: str, text: str, run_script: RunScript, finished_run: Path, data_root: Path, tmp_path: Path
) -> None:
    shutil.move(finished_run, tmp_path / "outputs" / "train" / "first")
    (tmp_path / "photos").mkdir()
    Image.fromarray(synthetic.make(1, seed=1, black=True)[0][0].numpy()).save(tmp_path / "photos" / "one.png")
    arguments = shlex.split(text)
    done = run_script(script, *arguments, *few_steps(script, arguments, data_root))
    assert done.status == 0, done.err


def test_readme_shows_the_error_that_is_printed(run_script: RunScript) -> None:
    ((text, line),) = re.findall(r"^ {4}\$ python scripts/train\.py (.*)\n {4}(error: .*)$", README, re.MULTILINE)
    run_script("train", *shlex.split(text)).assert_refused(line)


def shape(line: str) -> str:
    """A line of a training without its numbers and what depends on the machine."""
    return re.sub(r"\d[\d.,_-]*", "0", re.sub(r"in (bf16-mixed|32-true)", "in ...", line))


def test_lines_of_a_training_are_those_that_are_printed(train: RunScript) -> None:
    done = train("report=true")
    printed = {shape(line.replace(str(done.folder), "<here>")) for line in done.out.splitlines()}
    for text in (README, TRAINING):
        ((block,),) = [re.findall(r"`make train` prints:\n\n((?: {4}.*\n)+)", text)]
        lines = [line[4:] for line in block.splitlines() if line[4] not in " ."]  # without the table
        assert len(lines) >= 7
        assert [line for line in lines if shape(line) not in printed] == []


def test_readme_is_short() -> None:
    prose = re.sub(r"^(    |\|).*$", "", README, flags=re.MULTILINE)
    assert len(README.splitlines()) <= 130
    assert len(prose.split()) <= 700
