"""What people type first: the command line that they are told to type, and run=latest."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import RunScript

from fmnist.config import guesses, messages
from fmnist.config.command_line import COMMANDS, main
from fmnist.config.guesses import NOTES, SAME, VALUES
from fmnist.config.help import COMMON, WIDTH, choices, groups, help_text
from fmnist.config.option_files import argument_sentences, command_keys, examples, option_keys, options
from fmnist.config.similar import did_you_mean, nearest
from fmnist.runs.latest import named_run, newest_first

GUESSES = [
    # Keys of a group.
    ("train", "epochs=3", "trainer.max_epochs=3"),
    ("train", "epoch=3 lr=0.01", "trainer.max_epochs=3 optimizer.lr=0.01"),
    ("train", "num_epochs=3 seed=1", "trainer.max_epochs=3 seed=1"),
    ("train", "max_epochs=3", "trainer.max_epochs=3"),
    ("train", "steps=100", "trainer.max_steps=100"),
    ("train", "lr=0.01", "optimizer.lr=0.01"),
    ("train", "+lr=0.01", "optimizer.lr=0.01"),
    ("train", "learning_rate=0.01", "optimizer.lr=0.01"),
    ("train", "learningRate=0.01", "optimizer.lr=0.01"),
    ("train", "batch_size=64", "data.batch_size=64"),
    ("train", "batchsize=64", "data.batch_size=64"),
    ("train", "bs=64", "data.batch_size=64"),
    ("train", "dropout=0.4", "model.dropout=0.4"),
    ("train", "hidden=[256]", "'model.hidden=[256]'"),
    ("train", "activation=relu", "model.activation=relu"),
    ("train", "weight_decay=0.1", "optimizer.weight_decay=0.1"),
    ("train", "wd=0.1", "optimizer.weight_decay=0.1"),
    ("train", "optimizer=sgd momentum=0.8", "optimizer=sgd optimizer.momentum=0.8"),
    ("train", "nesterov=true", "optimizer=momentum optimizer.nesterov=true"),
    ("train", "patience=5", "callbacks=early_stopping callbacks.early_stopping.patience=5"),
    ("train", "label_smoothing=0.2", "loss.label_smoothing=0.2"),
    ("train", "val_split=0.1", "data.val_size=0.1"),
    ("train", "data_dir=/data", "data.root=/data"),
    ("train", "grad_clip=1", "trainer.gradient_clip_val=1"),
    ("train", "precision=16-mixed", "trainer.precision=16-mixed"),
    ("train", "-m lr=0.1,0.2 seed=0,1", "-m optimizer.lr=0.1,0.2 seed=0,1"),
    ("train", "mixup=0.2", "augment.mixup=0.2"),
    ("tune", "epochs=3 n_trials=9", "trainer.max_epochs=3 trials=9"),
    ("tune", "n_workers=2", "n_jobs=2"),
    ("show_data", "batch_size=9", "data.batch_size=9"),
    # Groups.
    ("train", "dataset=mnist", "data=mnist"),
    ("train", "arch=mlp", "model=mlp"),
    ("train", "net=ResNet", "model=resnet"),
    ("train", "network=cnn", "model=cnn"),
    ("train", "opt=SGD", "optimizer=sgd"),
    ("train", "lr_scheduler=cosine", "scheduler=cosine"),
    ("train", "criterion=cross_entropy", "loss=cross_entropy"),
    ("train", "augmentation=cutmix", "augment=cutmix"),
    ("train", "augmentation=false", "augment=none"),
    ("train", "augment=true", "augment=flip_shift"),
    # Hardware.
    ("train", "gpus=2", "trainer=ddp trainer.devices=2"),
    ("train", "gpus=1", "trainer=gpu"),
    ("train", "gpus=0", "trainer=cpu"),
    ("train", "device=cuda", "trainer=gpu"),
    ("train", "device=cpu", "trainer=cpu"),
    ("train", "fp16=true", "trainer.precision=16-mixed"),
    ("train", "bf16=True", "trainer.precision=bf16-mixed"),
    ("train", "amp=false", "trainer.precision=32-true"),
    ("train", "accelerator=cpu", "trainer.accelerator=cpu"),
    # Switches.
    ("train", "debug=true", "trainer=debug"),
    ("train", "ema=true", "callbacks=ema"),
    ("train", "early_stopping=1", "callbacks=early_stopping"),
    # Flags.
    ("train", "--epochs 3", "trainer.max_epochs=3"),
    ("train", "--epochs=3 --lr 0.1", "trainer.max_epochs=3 optimizer.lr=0.1"),
    ("train", "--batch-size 64 seed=1", "data.batch_size=64 seed=1"),
    ("train", "-lr 0.1", "optimizer.lr=0.1"),
    ("train", "--seed 3", "seed=3"),
    ("train", "--optimizer sgd", "optimizer=sgd"),
    ("train", "--experiment deep", "experiment=deep"),
    ("train", "--trainer.max_epochs 3", "trainer.max_epochs=3"),
    ("train", "--debug", "trainer=debug"),
    ("train", "--no-cuda", "trainer=cpu"),
    ("train", "-m --lr 0.1,0.2", "-m optimizer.lr=0.1,0.2"),
    ("evaluate", "--split val --run=outputs/x", "split=val run=outputs/x"),
    ("predict", "--images photo.jpg --top 5", "images=photo.jpg top=5"),
    # Without an equals sign.
    ("train", "lr 0.1", "optimizer.lr=0.1"),
    ("train", "optimizer.lr 0.1 seed=1", "optimizer.lr=0.1 seed=1"),
    ("train", "-m optimizer.lr = 0.1,0.2", "-m optimizer.lr=0.1,0.2"),
    ("train", "optimizer.lr: 0.1", "optimizer.lr=0.1"),
    ("train", "optimizer sgd seed 3", "optimizer=sgd seed=3"),
    ("train", "mlp", "model=mlp"),
    ("get_data", "mnist", "data=mnist"),
    ("evaluate", "run=a split val", "run=a split=val"),
    ("predict", "run latest images photo.jpg", "run=latest images=photo.jpg"),
    ("find_lr", "num_steps=50", "steps=50"),
    # Runs.
    ("train", "run=latest", "resume=latest"),
    ("train", "checkpoint=a/last.ckpt", "resume=a/last.ckpt"),
    ("train", "resume=true", "resume=latest"),
    ("train", "--resume", "resume=latest"),
    ("train", "checkpoint=last", "resume=latest"),
    ("evaluate", "run=last", "run=latest"),
    ("evaluate", "checkpoint=best", "run=latest"),
    ("evaluate", "ckpt=a.ckpt", "checkpoint=a.ckpt"),
    ("report", "data_dir=x run=y", "data_root=x run=y"),
    ("predict", "run=x image=photo.jpg", "run=x images=photo.jpg"),
    ("compare", "folders=outputs", "runs=outputs"),
]


@pytest.mark.parametrize(("command", "typed", "corrected"), GUESSES, ids=lambda text: text)
def test_guess_is_answered_by_the_command_line_to_type(
    run_script: RunScript, command: str, typed: str, corrected: str
) -> None:
    done = run_script(command, *typed.split())
    done.assert_refused(f"; did you mean:  python scripts/{command}.py {corrected}\n".rstrip())
    assert done.err.endswith(f"{command}.py {corrected}\n")


@pytest.mark.parametrize("tracker", ["wandb", "mlflow", "comet"])
def test_tracker_is_an_option_of_the_group_logger(run_script: RunScript, tracker: str) -> None:
    done = run_script("train", f"{tracker}=true")
    done.assert_refused(f"logger={tracker}" if "logger" in groups("train") else f"{tracker}: there is no such key")


@pytest.mark.parametrize(
    ("command", "typed", "fragments"),
    [
        ("train", "num_workers=4", ["num_workers: ", "leave it out"]),
        ("train", "--workers 4", ["workers: ", "leave it out"]),
        ("train", "tensorboard=true", ["tensorboard: each run writes"]),
        ("train", "hello", ["hello can't be read: must be key=value, as optimizer.lr=0.1"]),
        ("train", "optimizer.lr", ["optimizer.lr can't be read: must be key=value, as optimizer.lr=0.1"]),
        ("train", "model=CNN", ["error: model=CNN: there is no such option; did you mean cnn?"]),
        ("train", "model.channels=16", ["model.channels=16: must be a list, as 'model.channels=[16]'"]),
        ("train", "--dropuot 0.3", ["--dropuot: there is no such flag; did you mean model.dropout=...?"]),
        ("train", "--nope", ["--nope: there is no such flag (--help lists"]),
        # By Hydra, with the names of the composed config.
        ("train", "dropuot=0.4", ["dropuot: there is no such key; did you mean model.dropout?"]),
        ("train", "model.dropuot=0.4", ["model.dropuot: there is no such key; did you mean model.dropout?"]),
        ("train", "trainer.epochs=3", ["trainer.epochs: there is no such key; did you mean trainer.max_epochs=3?"]),
        ("train", "optimizer.nesterov=true", ["did you mean optimizer=momentum optimizer.nesterov=true?"]),
        ("train", "model.lr=0.1", ["model.lr: there is no such key; did you mean optimizer.lr=0.1?"]),
        ("train", "optimizer=Adam", ["optimizer=Adam: there is no such option; did you mean adam?"]),
        ("evaluate", "epochs=3 run=x", ["epochs: there is no such key; there are accelerator, "]),
        ("train", "--help lrr", ["--help lrr: there is no such key; did you mean optimizer.lr?"]),
        ("train", "--help xyzzy", ["--help xyzzy: there is no such key"]),
    ],
)
def test_other_guesses_get_a_reason_or_the_nearest_key(
    run_script: RunScript, command: str, typed: str, fragments: list[str]
) -> None:
    run_script(command, *typed.split()).assert_refused(*fragments)


def test_network_that_a_library_has_is_told_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    own = ["cnn", "resnet"]
    monkeypatch.setattr(messages, "options", lambda _: own)
    missing = "model=resnet18: there is no such option; did you mean resnet?"
    assert messages.no_option("model", "resnet18") == missing
    own.append("timm")
    by_name = "; a network by its name is model=timm model.name=resnet18"
    assert messages.no_option("model", "resnet18") == missing + by_name
    monkeypatch.setattr(guesses, "options", lambda _: own)
    assert guesses._assigned("model", "resnet18") == ["model=timm", "model.name=resnet18"]
    assert guesses._assigned("model", "CNN") == ["model=cnn"]


def test_names_in_the_tables_mean_something() -> None:
    known = {key for command in COMMANDS for key in (*groups(command), *command_keys(command))} | {"logger"}
    known |= {f"{group}.{key}" for group in groups("train") for o in options(group) for key in option_keys(group, o)}
    assert SAME.keys() <= known
    assert not NOTES.keys() & {name for names in SAME.values() for name in names.split()} - {
        "num_workers",
        "workers",
        "n_workers",
    }
    for meanings in VALUES.values():
        for override in " ".join(meanings.values()).split():
            assert override == "-m" or override.split("=")[0] in known


def test_unlike_names_are_not_suggested() -> None:
    assert nearest("epochs", ["report", "outputs"]) == []
    assert nearest("model.dropuot", ["model.dropout", "model.pooling", "model.stride"]) == ["model.dropout"]
    assert nearest("Batch-Size", ["data.batch_size", "data.val_size"]) == ["data.batch_size"]
    assert nearest("val/acuracy", ["val/accuracy", "val/loss"]) == ["val/accuracy"]
    assert did_you_mean("report", ["epochs"]) == "; there are epochs"


def test_path_that_looks_like_a_guess_is_a_path(run_script: RunScript, tmp_path: Path) -> None:
    (tmp_path / "lr=0.1,seed=0").mkdir()
    run_script("evaluate", "lr=0.1,seed=0").assert_refused("lr=0.1,seed=0 is not a run folder")


@pytest.mark.parametrize("command", ["evaluate", "report", "robustness", "predict", "export", "compare"])
def test_command_without_arguments_says_how_it_is_used(command: str, run_script: RunScript) -> None:
    done = run_script(command)
    assert (done.status, done.out) == (2, "")
    assert done.err.count(f"  python scripts/{command}.py ") == 3  # the usage and two examples


# --help


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_narrow_and_in_sentences(command: str) -> None:
    text = help_text(command)
    for line in text.splitlines():
        assert len(line) <= WIDTH
    assert len(examples((Path(__file__).parent.parent / "conf" / f"{command}.yaml").read_text())) == 2
    sentences = [line for line in text.splitlines() if line[3:4].isalpha() and "=" in line.split()[0]]
    for line in sentences:
        assert len(line.split(maxsplit=1)) == 2, line


def test_help_shows_the_common_keys_first_and_each_key_once() -> None:
    lines = re.findall(r"^ [* ] ([\w.]+=\S*)", help_text("train"), re.MULTILINE)
    assert tuple(line.split("=")[0] for line in lines[: len(COMMON)]) == COMMON
    assert lines[0] == "optimizer.lr=0.15"
    chosen = choices("train")
    keys = [f"{group}.{key}" for group, o in chosen.items() for key in option_keys(group, o) if group != "experiment"]
    for key in (*keys, *command_keys("train")):
        assert [line.split("=")[0] for line in lines].count(key) == 1, key


@pytest.mark.parametrize("group", sorted({group for command in COMMANDS for group in groups(command)}))
def test_help_of_a_group_describes_each_key_of_each_option(group: str) -> None:
    command = "train" if group in groups("train") else "tune"
    text = help_text(command, [group])
    for option in options(group):
        assert f" {group}={option} " in text
        for key, line in option_keys(group, option).items():
            assert f" {key}=" in text or f" {group}.{key}=" in text
            assert line.comment or group in ("experiment", "sweep", "search"), f"{group}={option}: {key}"
    assert max(map(len, text.splitlines())) <= WIDTH


def test_help_of_choices_and_keys() -> None:
    assert "   optimizer.nesterov=true " in help_text("train", ["optimizer=sgd"])
    assert " * optimizer=sgd " in help_text("train", ["optimizer=sgd"])
    lines = help_text("train", ["lr"]).splitlines()
    assert lines[0].startswith("   optimizer.lr=0.15 ")
    assert any(line.startswith("   optimizer=sgd optimizer.lr=0.1 ") for line in lines)


def test_sentences_come_from_docstrings() -> None:
    assert argument_sentences("fmnist.models.CNN")["kernel_size"] == "width and height of the filters."
    assert argument_sentences("fmnist.training.optimizers.Muon")["adam_lr"].startswith("of AdamW")
    assert argument_sentences("torch.optim.SGD") == argument_sentences("fmnist.nowhere.Nothing") == {}


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_fmnist_lists_its_commands(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/fmnist", *words])
    main()
    lines = capsys.readouterr().out.splitlines()
    for command in COMMANDS:
        assert [line for line in lines if line.startswith(f"   {command.replace('_', '-')} ")], command


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "error: fmnist trian: there is no such command; did you mean train?"),
        (["serve"], "error: fmnist serve: there is no such command; there are "),
        (["lr-find"], "error: fmnist lr-find: there is no such command; did you mean find-lr?"),
        (["train", "epochs=3"], "error: epochs=3: there is no such key; did you mean:  fmnist train trainer.max_ep"),
        (["find-lr", "num_training=50"], "error: num_training=50: there is no such key; did you mean:  fmnist find-lr"),
        (["predict"], "Classify your own image files"),
    ],
)
def test_fmnist_shows_itself_as_it_was_called(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/fmnist", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith(message)
    assert "scripts/" not in shown


# run=latest


@pytest.fixture
def three_runs(tmp_path: Path) -> list[Path]:
    """Folders of runs that look as if they were trained one after the other: finished, finished, interrupted."""
    folders = [tmp_path / "outputs" / name for name in ("train/a", "sweep/x/b", "train/c")]
    for i, (folder, status) in enumerate(zip(folders, ("finished", "finished", "interrupted"), strict=True)):
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.yaml").write_text("{}")
        (folder / "checkpoints" / "last.ckpt").write_bytes(b"")
        (folder / "run.json").write_text(json.dumps({"status": status}))
        os.utime(folder / "run.json", (1_000_000_000 + i,) * 2)
    return folders


def test_latest_is_the_newest_finished_run(
    three_runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [run.folder for run in newest_first(Path("outputs"))] == three_runs[::-1]
    assert named_run("run", "latest").folder == three_runs[1]
    (three_runs[1] / "run.json").write_text("damaged")
    assert named_run("run", "latest").folder == three_runs[0]
    shutil.copytree(three_runs[2], tmp_path / "latest")
    assert named_run("run", "latest").folder == tmp_path / "latest"  # a folder of this name


@pytest.mark.parametrize("command", ["evaluate", "report", "predict"])
def test_latest_run_is_told_in_a_line(command: str, finished_run: Path, run_script: RunScript) -> None:
    folder = finished_run.parent / "outputs" / "train" / "one"
    folder.parent.mkdir(parents=True)
    shutil.move(finished_run, folder)
    (folder / "photo.png").write_bytes(b"")
    arguments = [str(folder / "photo.png")] if command == "predict" else ["split=val"]
    done = run_script(command, "run=latest", *arguments)
    assert done.err.splitlines()[0] == f"run=latest: {folder}"
    assert done.status == (1 if command == "predict" else 0)  # the photo can't be read


def test_latest_without_runs_is_refused(run_script: RunScript) -> None:
    run_script("evaluate", "run=latest").assert_refused("run=latest: there is no finished run in outputs")
    run_script("train", "resume=latest").assert_refused("resume=latest: there is no run that can be resumed in outputs")
    run_script("compare", "latest").assert_refused("runs=latest: there is no finished run in outputs")


def test_resume_latest_takes_the_newest_that_can_be_resumed(finished_run: Path, run_script: RunScript) -> None:
    runs = finished_run.parent / "outputs" / "train"
    runs.mkdir(parents=True)
    shutil.move(finished_run, runs / "one")
    run_script("train", "resume=latest").assert_refused("no run that can be resumed")  # it is finished
    done = run_script("train", "resume=latest", "trainer.max_epochs=3")
    assert done.status == 0
    assert done.err.splitlines()[0] == f"resume=latest: {runs / 'one'}"
    assert "epoch 3/3" in done.out


@pytest.mark.usefixtures("finished_run")
def test_messages_about_data_name_the_key_of_the_command(run_script: RunScript) -> None:
    for command in ("evaluate", "report"):
        done = run_script(command, "run=run", "split=val", "data_root=empty")
        done.assert_refused("data_root=", "empty")
        assert "data.root" not in done.err


def test_command_line_of_the_installed_program_is_told(tmp_path: Path) -> None:
    program = tmp_path / "fmnist"
    program.write_text("from fmnist.config.command_line import main; main()")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, str(program), "train", "--lr", "0.1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith("did you mean:  fmnist train optimizer.lr=0.1\n")
