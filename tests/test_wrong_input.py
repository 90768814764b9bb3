"""Invalid input: one line, exit status 2, nothing left behind."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Done, RunScript

from fmnist.data import sources
from fmnist.runs import checkpoints


def assert_one_line(done: Done, *fragments: str) -> None:
    done.assert_refused(*fragments)
    assert not (done.folder / "outputs").exists()


TIMM, VISION = ("model=timm",), ("model=torchvision",)
TRAIN = [
    # Names.
    (["optimzer=sgd"], ["optimzer", "did you mean optimizer"]),
    (["optimizer=sgdd"], ["optimizer=sgdd", "did you mean sgd?"]),
    (["colour=red"], ["colour", "there are", "optimizer"]),
    (["+optimizer.momentun=0.9", "optimizer=sgd"], ["optimizer.momentun", "did you mean momentum"]),
    (["+trainer.max_epoch=3"], ["trainer.max_epoch", "max_epochs"]),
    (["+optimzer.lr=0.1"], ["optimzer: there is no such key; did you mean optimizer"]),
    (["model=mlp", "model.channels=[3]"], ["model.channels", "model.hidden"]),
    (["model=null"], ["model=null: there is no such option", "cnn", "wide_resnet"]),
    (["monitor=val/acuracy"], ["monitor=val/acuracy", "val/accuracy"]),
    (["monitor=test/accuracy"], ["monitor=test/accuracy", "validation"]),
    (["-m", "model.dropuot=0.1,0.2"], ["model.dropuot", "did you mean model.dropout"]),
    (["--nope"], ["--nope", "--help"]),
    # Types.
    (["model.dropout=abc"], ["model.dropout=abc: must be a number"]),
    (["trainer.max_time=abc"], ["trainer", "abc", "DD:HH:MM:SS"]),
    (["trainer.accelerator=toaster"], ["toaster", "cpu"]),
    (["trainer.precision=bf17"], ["trainer.precision=bf17", "bf16-mixed"]),
    (["+callbacks.x=3"], ["callbacks.x=3", "_target_"]),
    # Ranges, up to what no machine has.
    (["model.dropout=1.5"], ["model.dropout=1.5: must be less than 1"]),
    (["model.channels=[1000000000]"], ["model: its weights need", "this machine has"]),
    (["model.channels=[100000000000000000000]"], ["model.channels=[100000000000000000000]", "2147483647"]),
    (["optimizer.lr=-1"], ["optimizer", "-1"]),
    (["optimizer.lr=1e400"], ["optimizer.lr=Infinity: must be finite"]),
    (["trainer.max_epochs=-1"], ["trainer.max_epochs=-1"]),
    (["-m", "seed=range(0,100000000000)"], ["100,000,000,000 jobs", "100,000"]),
    (["-m", "seed=glob(*)"], ["a sweep of 0 jobs"]),
    (["sweep=parallel", "hydra.launcher.n_jobs=0", "seed=0,1"], ["hydra.launcher.n_jobs=0", "at least 1"]),
    # Combinations.
    (["model.channels=[8,[]]"], ["model.channels=[8, []]: "]),
    (["model.channels=[8,[0,4]]"], ["model.channels=[8, [0, 4]]: "]),
    (["model.channels=[8,8,8,8,8,8]"], ["shrinks to nothing", "convolution 5 of 6", "2x2", "1x1"]),
    (["optimizer=adamw", "+optimizer.foreach=true"], ["optimizer", "`fused` and `foreach` cannot be `True` together"]),
    (["augment.alternate=true", "augment.flip=0.4"], ["augment.flip=0.4: must be 0.5", "alternate=true"]),
    (["augment=mixup", "loss=mean_squared_error", "loss._target_=torch.nn.MultiMarginLoss"], ["MarginLoss", "mixup"]),
    (["loss=mean_squared_error", "loss._target_=torch.nn.BCEWithLogitsLoss"], ["BCEWithLogitsLoss", "labels (N)"]),
    (["callbacks=early_stopping", "data.val_size=0"], ["callbacks.early_stopping", "data.val_size=0"]),
    (["callbacks=ema", "trainer.precision=bf16-true"], ["trainer.precision=bf16-true", "callbacks=ema"]),
    (["callbacks=ema", "+callbacks.again=${callbacks.ema}"], ["more than one", "AveragedWeights"]),
    (
        ["+callbacks.x={_target_:lightning.pytorch.callbacks.EMAWeightAveraging,update_starting_at_step:9}"],
        ["callbacks.x._target_=lightning.pytorch.callbacks.EMAWeightAveraging", "callbacks=ema"],
    ),
    (["trainer.max_epochs=null", "trainer.max_time=00:00:00:02"], ["trainer.max_epochs=null", "needs an end"]),
    (["seed=0,1"], ["seed=0,1", "-m", "[1,2]"]),
    (["-m", "model.dropout=1.5,1.7", "seed=0,1"], ["model.dropout=1.5", "less than 1", "1 more such"]),
    (["-m", "resume=a,b"], ["resume", "leave out -m"]),
    (
        ["-m", "optimizer=sgd,adam", "optimizer.betas=[0.8,0.9]"],
        ["not all of optimizer=sgd,adam", "++optimizer.betas="],
    ),
    (["-m", "optimizer=sgd,momentum", "optimizer.nesterov=true"], ["and the default have it", "++optimizer.nesterov="]),
    (["-m", "optimizer=sgd,adam", "optimizer.lrr=1"], ["optimizer.lrr: there is no such key", "mean optimizer.lr"]),
    (["name=2024_01"], ["name=202401: must be a string: in quotes it is one", """'name="..."'"""]),
    *(([f"+trainer.val_check_interval={n}"], [f"trainer.val_check_interval={n}: must be"]) for n in (0, -1, 1.5)),
    # Trackers.
    (["logger=wandbb"], ["logger=wandbb: there is no such option", "did you mean wandb"]),
    (["logger=tensorboard"], ["logger=tensorboard: there is no such option", "csv", "none"]),
    (["logger=csv", "+logger.csv.name=x"], ["logger.csv.name: there is no such argument"]),
    (["+logger.x=3"], ["logger.x=3: must have a _target_"]),
    (["+logger.x={_target_:lightning.pytorch.loggers.CSVLogger,save_dir:x}"], ["logger.x._target_", "TrackerLogger"]),
    (["+logger.x={_target_:os.system}"], ["logger.x._target_=os.system", "fmnist."]),
    (["+logger.x={_target_:fmnist.training.loggers.Nope}"], ["logger.x._target_=fmnist.training.loggers.Nope"]),
    (["+logger.csv={_target_:fmnist.training.loggers.Csv,place:x}"], ["logger.csv.place: cannot be set"]),
    (["logger=[csv,nope]"], ["logger=nope: there is no such option"]),
    (["logger=csv", "+logger.csv.server=http://host"], ["logger.csv.server: must not be given", "docs/trackers.md"]),
    (["+logger.comet.api_key=x"], ["logger.comet.api_key: must not be given", "COMET_API_KEY"]),
    # Several processes.
    (["trainer=ddp_cpu", "trainer.devices=4097"], ["trainer.devices=4097: must be at most ", "four for each core"]),
    (["trainer=ddp_cpu", "trainer.num_nodes=2"], ["trainer.num_nodes=2", "torchrun or srun", "docs/scale.md"]),
    (["trainer=ddp_cpu", "trainer.strategy=dp"], ["trainer.strategy=dp", "'fsdp'"]),
    (["trainer=fsdp", "trainer.accelerator=cpu", "trainer.devices=2"], ["trainer.strategy=fsdp", "GPUs"]),
    (["trainer=ddp_cpu", "data.batch_size=1"], ["data.batch_size=1", "at least 2", "processes"]),
    (["-m", "trainer.devices=2", "seed=0,1"], ["--multirun", "2 processes", "trainer.devices=1"]),
    # Networks by name.
    ([*TIMM, "model.name=resnt18"], ["model.name=resnt18: timm has no such network; did you mean resnet18"]),
    ([*TIMM, "model.name=qqqqqqqq"], ["model.name=qqqqqqqq: timm has no such network; timm.list_models() lists them"]),
    ([*TIMM, "model.name=hf-hub:timm/resnet18.a1_in1k"], ["model.name=hf-hub:timm/resnet18", "did you mean resnet18"]),
    ([*TIMM, "model.name=../x"], ["model.name=../x: timm has no such network"]),
    ([*TIMM, "model.name=resnet18.nope"], ["model.name=resnet18.nope", "did you mean resnet18"]),
    ([*TIMM, "model.name=vit_tiny_patch16_224", "model.input_size=10"], ["model.input_size=10: vit_tiny_patch16_224"]),
    ([*TIMM, "model.name=resnet9000"], ["model.name=resnet9000", "did you mean"]),
    ([*TIMM, "model.name=test_resnet", "model.dropout=0.1"], ["model.dropout: there is no such key", "model.freeze"]),
    ([*TIMM, "+model.checkpoint_path=x"], ["model.checkpoint_path: there is no such argument"]),
    ([*VISION, "model.name=mobilenet"], ["model.name=mobilenet: torchvision has no such network", "mobilenet_v2"]),
    ([*VISION, "model.name=ResNet-18"], ["model.name=ResNet-18", "did you mean resnet18"]),
    ([*VISION, "model.name=quantized_resnet18"], ["model.name=quantized_resnet18", "did you mean resnet18"]),
    ([*VISION, "model.name=fasterrcnn_resnet50_fpn"], ["model.name=fasterrcnn_resnet50_fpn", "no such network"]),
    ([*VISION, "model.name=null"], ["model.name=null: is required, and must be a string"]),
    ([*VISION, "model.input_size=0"], ["model.input_size=0: must be greater than or equal to 1"]),
    ([*VISION, "model.input_size=100000"], ["model.input_size=100000: must be less than or equal to 2048"]),
    ([*VISION, "model.name=inception_v3", "model.input_size=28"], ["model.input_size=28: inception_v3", "null"]),
    ([*VISION, "model.name=vit_b_16", "model.input_size=20"], ["model.input_size=20: vit_b_16 doesn't take it"]),
    ([*VISION, "model.pretrained=yes please"], ["model.pretrained=yes please: must be true or false"]),
    ([*VISION, "model.freeze=true"], ["model.freeze=true: needs model.pretrained=true"]),
    ([*VISION, "model.freeze=2"], ["model.freeze=2: must be true or false"]),
    ([*VISION, "+model.weights=DEFAULT"], ["model.weights: there is no such argument"]),
    ([*VISION, "+model.mean=0.5"], ["model.mean: cannot be set"]),
    (["model=torchvison"], ["model=torchvison: there is no such option; did you mean torchvision"]),
    (["model=wide_resnet", "model.depth=12"], ["model.depth=12: must be 6 * n + 4"]),
    # Targets and arguments that the user can't choose.
    (["model._target_=os.system"], ["model._target_=os.system", "fmnist."]),
    (["model.hidden={_target_:os.system,command:ls}"], ["model.hidden"]),
    (["loss._target_=lightning.pytorch.LightningModule.load_from_checkpoint"], ["loss._target_", "Module"]),
    (["scheduler._target_=fmnist.runs.files.atomic_write"], ["scheduler._target_", "fmnist.training.schedules"]),
    (["-m", "hydra.launcher._target_=os.system", "seed=0,1"], ["os.system"]),
    (["-m", "hydra.sweeper._target_=os.system"], ["os.system"]),
    (["+loss._partial_=true"], ["loss._partial_=true: must be false"]),
    (["+trainer.logger=false"], ["trainer.logger: cannot be set"]),
    (["+trainer.default_root_dir=x"], ["trainer.default_root_dir: must not be given"]),
    (["trainer.gradient_clip_algorithm=value"], ["algorithm=value: needs trainer.gradient_clip_val"]),
    (["+scheduler.step=3"], ["scheduler: ", "'step'"]),
    (["callbacks=early_stopping", "+callbacks.early_stopping.monitor=val/loss"], ["monitor: cannot be set"]),
    (["+callbacks.x={_target_:lightning.pytorch.callbacks.Timer,_partial_:true}"], ["callbacks.x: ", "'monitor'"]),
    *(
        ([f"hydra.{setting}"], [f"hydra.{setting.split('=')[0]}: must not be given", "outputs="])
        for setting in ("run.dir=x", "sweep.dir=x", "sweep.subdir=x", "job.chdir=true", "output_subdir=x")
    ),
    (["-m", "hydra.output_subdir=x", "seed=0,1"], ["hydra.output_subdir: must not be given"]),
    (["+model.num_classes=5"], ["model.num_classes: cannot be set"]),
    # Nothing, and keys that are removed or given twice.
    *(([word], [f"{word} can't be read: must be key=value"]) for word in ("nonsense", "=3", "++=", "+@x=", "~")),
    (["data.root="], ["data.root=", "at least 1 character"]),
    (["~model"], ["model: is required"]),
    (["~data.root"], ["'root'"]),
    (["~nothing"], ["nothing: there is no such key"]),
    (["~resume"], ["resume: it is null"]),
    (["+seed=1"], ["seed: there is one already: leave out the +"]),
    # References.
    (["seed=${nope}"], ["'nope' not found"]),
    (["seed=${seed}"], ["Recursive", "seed"]),
    # Paths.
    (["outputs=/dev/null"], ["outputs=/dev/null", "Not a directory"]),
    (["-m", "outputs=/proc/nope", "seed=0,1"], ["outputs=/proc/nope"]),
    (["data.root=photo.png"], ["data.root"]),
    (["resume=nowhere"], ["resume=nowhere", "no such folder"]),
    ([f"resume={'x' * 5000}"], ["x"]),
    # Letters: look-alikes, halves of some, none at all; numbers and lists without end.
    (["name=größe"], ["name=größe", "quoted"]),
    (["\N{CYRILLIC SMALL LETTER O}ptimizer=sgd"], ["ptimizer=sgd can't be read"]),
    (["optimizer\N{FULLWIDTH EQUALS SIGN}sgd"], ["can't be read"]),
    (["data.batch_size=\N{FULLWIDTH DIGIT NINE}"], ["can't be read"]),
    (["name=\udcff"], [r"name=\udcff can't be read"]),
    ([f"seed={'9' * 5000}"], ["a number is too long"]),
    ([f"model.channels={'[' * 200}{']' * 200}"], ["nested too deeply"]),
]
OTHERS = [
    (["evaluate", "tta=flip"], ["run=", "run=latest", "checkpoint="]),
    (["evaluate", "+a.b=1"], ["a: there is no such key"]),
    (["evaluate", "run=a", "checkpoint=b"], ["either"]),
    (["evaluate", "run=*.ckpt"], ["run=*.ckpt", "no run folder"]),
    (["evaluate", "checkpoint=nowhere.ckpt"], ["no checkpoint nowhere.ckpt"]),
    (["evaluate", "checkpoint=/dev/zero"], ["no checkpoint /dev/zero"]),
    (["evaluate", "checkpoint=photo.png"], ["photo.png", "not a readable checkpoint"]),
    (["evaluate", "checkpoint=photo.png", "split=train"], ["split=train", "'val' or 'test'"]),
    (["evaluate", "checkpoint=photo.png", "tta=flop"], ["tta=flop", "'none', 'flip' or 'flip_shift'"]),
    (["report", "split=val"], ["give run=", "run=latest"]),
    (["predict", "images=photo.png", "output=photo.png"], ["output=photo.png is one of the images"]),
    (["compare", "metric=val/loss"], ["name the folders"]),
    (["compare", "nowhere"], ["runs=nowhere", "no such folder"]),
    (["compare", "\udcff"], ["runs=", "Unicode"]),
    (["show_data", "images=257"], ["images=257", "less than or equal to 256"]),
    (["get_data", "data.root='a\0b'"], [r"root='a\x00b'", "NUL"]),
    (["get_data", "data.root=/proc/nope"], ["data.root=/proc/nope cannot be written to", "by data.root=<folder>"]),
    (["get_data", "root=/proc/nope"], ["root=/proc/nope: there is no such key", "get_data.py data.root=/proc/nope"]),
    (["get_data", "data=image_folder"], ["data.root=null: is required, and must be a string"]),
    (["get_data", "data=mnst"], ["data=mnst: there is no such option", "did you mean mnist"]),
    (["tune", "max_seconds=nan"], ["max_seconds=NaN", "finite"]),
    (["tune", "study=2024_01"], ["study=202401", "in quotes"]),
    (["tune", "+search.augment.shift={low:2,high:1}"], ["search.augment.shift.low=2", "less than"]),
    (["tune", "sampler=nope"], ["sampler=nope", "there are random, tpe"]),
    (["tune", "resume=x"], ["resume=x", "own command"]),
    (["tune", "study=a/b"], ["study=a/b", "letters"]),
]


@pytest.mark.parametrize(
    ("command", "fragments"),
    [*((["train", *words], fragments) for words, fragments in TRAIN), *OTHERS],
    ids=lambda words: " ".join(words)[:60].encode("ascii", "backslashreplace").decode().replace("\0", "0"),
)
def test_commands_refuse(run_script: RunScript, command: list[str], fragments: list[str], tmp_path: Path) -> None:
    if "model=timm" in command:
        pytest.importorskip("timm")
    (tmp_path / "photo.png").write_bytes(os.urandom(1000))
    run_script(*command).assert_refused(*fragments)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_that_is_missing_is_refused(run_script: RunScript) -> None:
    assert_one_line(run_script("train", "trainer=ddp"), "trainer.accelerator=gpu", "no GPU", "trainer=cpu")
    assert_one_line(run_script("train", "trainer.accelerator=cuda"), "trainer.accelerator=cuda: torch finds no GPU")


def test_data_that_no_source_has_is_refused(run_script: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "SYSTEM_FOLDER", Path("nowhere"))
    done = run_script("train", "data.root=empty")
    done.assert_refused(
        "tests are offline", "system folder nowhere (it has none of them)", "apt install", "data.root=<"
    )
    assert not (done.folder / "outputs").exists()


@pytest.mark.parametrize(
    ("override", "fragments"),
    [
        ("data.val_size=600", ["data.val_size=600: must be less than 600"]),
        *((f"trainer.limit_{split}_batches=0.0001", ["leaves nothing"]) for split in ("train", "val", "test")),
        ("trainer.overfit_batches=0.0001", ["trainer.overfit_batches=0.0001 leaves nothing of 10 train batches"]),
        ("+trainer.val_check_interval=11", ["trainer.val_check_interval=11: must be at most 10"]),
        ("+trainer.val_check_interval=1000", ["val_check_interval"]),  # only Lightning checks it
    ],
)
def test_override_that_does_not_fit_the_data_is_refused(train: RunScript, override: str, fragments: list[str]) -> None:
    assert_one_line(train(override), *fragments)


def test_sweep_that_is_refused_touches_nothing(train: RunScript, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("precious")
    assert train("-m", "hydra.sweep.dir=mine", "hydra.sweep.subdir=.", "model.dropout=1.5").status == 2
    assert (tmp_path / "mine" / "precious.txt").read_text() == "precious"


def change_network(run: Path) -> None:
    file = run / "checkpoints" / "best.ckpt"
    checkpoint = checkpoints.load(file)
    checkpoint[checkpoints.CONFIG_KEY]["model"]["channels"] = [4, 9]
    torch.save(checkpoint, file)


def truncate(run: Path) -> None:
    for file in (run / "checkpoints").iterdir():
        file.write_bytes(file.read_bytes()[:-3000])


def config(text: str) -> Callable[[Path], object]:
    return lambda run: (run / "config.yaml").write_text(text)


RESUME = ["train", "resume=run"]


@pytest.mark.parametrize(
    ("spoil", "command", "fragments"),
    [
        (change_network, ["evaluate", "run=run"], ["weights don't fit"]),
        (truncate, ["evaluate", "run=run"], ["not a readable checkpoint"]),
        (truncate, RESUME, ["not a readable checkpoint"]),
        (config(""), RESUME, ["config.yaml has no trainer.accelerator", "another version", "trainer=default"]),
        (
            config("trainer: {accelerator: cpu, devices: 1, num_nodes: 1, strategy: auto}"),
            RESUME,
            ["config.yaml has no trainer.max_epochs"],
        ),
        (None, [*RESUME, "trainer.max_epochs=1"], ["trainer.max_epochs=1: the run has done"]),
        (None, [*RESUME, "trainer.max_steps=1"], ["trainer.max_steps=1: the run has done"]),
        (None, [*RESUME, "optimizer=sgd", "trainer.max_epochs=3"], ["optimizer=sgd", "trainer.<key>"]),
    ],
)
def test_run_that_cannot_be_used_is_refused_and_left_as_it_was(
    finished_run: Path, run_script: RunScript, spoil: Any, command: list[str], fragments: list[str]
) -> None:
    if spoil:
        spoil(finished_run)
    before = {path: path.read_bytes() for path in finished_run.rglob("*") if path.is_file()}
    run_script(*command).assert_refused(*fragments)
    assert before == {path: path.read_bytes() for path in finished_run.rglob("*") if path.is_file()}


def test_timm_that_is_missing_is_named_with_what_installs_it(
    run_script: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert_one_line(run_script("train", "model=timm"), "model: needs timm", "make extras", '"fmnist[timm]"')
