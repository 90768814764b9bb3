"""Mistakes on the command line: one clear line, exit status 2, nothing left behind."""

import os
from pathlib import Path

import pytest
import torch
from conftest import Done, RunScript

from fmnist.data import sources
from fmnist.runs import checkpoints


def assert_one_line(done: Done, *fragments: str) -> None:
    done.assert_refused(*fragments)
    assert not (done.folder / "outputs").exists()


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["optimzer=sgd"], ["optimzer", "did you mean optimizer"]),
        (["model.dropuot=0.4"], ["model.dropuot", "did you mean model.dropout"]),
        (["optimizer=sgdd"], ["optimizer=sgdd", "did you mean sgd?"]),
        (["experiment=lenett"], ["experiment=lenett", "did you mean intro_lenet?"]),
        (["colour=red"], ["colour", "there are", "optimizer"]),
        (["optimizer={momentum:0.9}"], ["optimizer.momentum: there is no such key", "optimizer.lr"]),
        (["+colour=red"], ["colour", "there are", "monitor"]),
        (["+model.colour=red"], ["model.colour", "no such argument"]),
        (["+optimizer.momentun=0.9", "optimizer=sgd"], ["optimizer.momentun", "did you mean momentum"]),
        (["+trainer.max_epoch=3"], ["trainer.max_epoch", "max_epochs"]),
        (["nonsense"], ["nonsense", "key=value"]),
        (["model.dropout=1.5"], ["model.dropout=1.5", "less than 1"]),
        (["model.dropout=-0.1"], ["model.dropout=-0.1", "greater than or equal to 0"]),
        (["model.dropout=abc"], ["model.dropout=abc", "number"]),
        (["model.dropout='0.4'"], ["model.dropout=0.4", "number"]),
        (["model.channels=[]"], ["model.channels=[]", "at least 1"]),
        (["model.channels=[8,0]"], ["model.channels=[8, 0]", "greater than or equal to 1"]),
        (["model.channels=[8,8,8,8,8,8]"], ["shrinks to nothing", "convolution 5 of 6", "2x2", "1x1"]),
        (["model.kernel_size=[3,3]"], ["kernel_size has 2 values for 3 blocks"]),
        (["model.activation=rellu"], ["model.activation=rellu", "'relu'"]),
        (["model._target_=os.system"], ["model._target_=os.system", "fmnist."]),
        (["model._target_=fmnist.runs.run.shutil.rmtree"], ["fmnist.runs.run.shutil.rmtree"]),
        (["model.hidden={_target_:os.system,command:ls}"], ["model.hidden"]),
        (["model._target_=fmnist.models.RNN"], ["fmnist.models.RNN"]),
        (["optimizer.lr=-1"], ["optimizer", "-1"]),
        (["optimizer.lr=fast"], ["optimizer.lr=fast", "number"]),
        (["+optimizer.foreach=true"], ["optimizer", "`fused` and `foreach` cannot be `True` together"]),
        (["scheduler.peak=2"], ["scheduler.peak=2", "less than 1"]),
        (["data.batch_size=0"], ["data.batch_size=0", "greater than or equal to 1"]),
        (["data.val_size=60001"], ["data.val_size=60001", "59999"]),
        (["augment.flip=2"], ["augment.flip=2", "less than or equal to 1"]),
        (["augment.alternate=true", "augment.flip=0.4"], ["augment: alternate=true", "flip=0.5, not flip=0.4"]),
        (["augment=none", "augment.alternate=true"], ["augment: alternate=true", "flip=0.5, not flip=0.0"]),
        (["augment.alternate=1"], ["augment.alternate=1", "valid boolean"]),
        (["augment.mixup=-0.1"], ["augment.mixup=-0.1", "greater than or equal to 0"]),
        (["augment.cutmix=101"], ["augment.cutmix=101", "less than or equal to 100"]),
        (
            ["augment=mixup", "loss=mean_squared_error", "loss._target_=torch.nn.MultiMarginLoss"],
            ["loss._target_=torch.nn.MultiMarginLoss", "shares of the classes (N, K)", "augment.mixup"],
        ),
        (
            ["loss=mean_squared_error", "loss._target_=torch.nn.BCEWithLogitsLoss"],
            ["torch.nn.BCEWithLogitsLoss", "labels (N)"],
        ),
        (["augment.until=0"], ["augment.until=0", "greater than 0"]),
        (["augment=mixup", "augment.mix=1.1"], ["augment.mix=1.1", "less than or equal to 1"]),
        (["pictures.every_n_epochs=0"], ["pictures.every_n_epochs=0", "greater than or equal to 1"]),
        (["pictures.embedding=-1"], ["pictures.embedding=-1", "greater than or equal to 0"]),
        (["model.pooling=l3"], ["model.pooling=l3", "'l2'"]),
        (["loss=mean_squared_eror"], ["loss=mean_squared_eror", "did you mean mean_squared_error?"]),
        (["sweep=batchsize"], ["sweep=batchsize", "did you mean batch_size?"]),
        (["monitor=val/acuracy"], ["monitor=val/acuracy", "val/accuracy"]),
        (["monitor=test/accuracy"], ["monitor=test/accuracy", "validation"]),
        (["callbacks=early_stopping", "data.val_size=0"], ["callbacks.early_stopping", "data.val_size=0"]),
        (["callbacks=ema", "callbacks.ema.decay=1"], ["callbacks.ema.decay=1", "less than 1"]),
        (["callbacks=ema", "callbacks.ema.decay=-0.1"], ["callbacks.ema.decay=-0.1", "greater than or equal to 0"]),
        (["callbacks=ema", "+callbacks.ema.start=9"], ["callbacks.ema.start", "there are decay"]),
        (["callbacks=ema", "trainer.precision=bf16-true"], ["trainer.precision=bf16-true", "callbacks=ema"]),
        (["callbacks=ema", "+callbacks.again=${callbacks.ema}"], ["more than one", "AveragedWeights"]),
        (
            ["+callbacks.x={_target_:lightning.pytorch.callbacks.EMAWeightAveraging,update_starting_at_step:9}"],
            ["callbacks.x._target_=lightning.pytorch.callbacks.EMAWeightAveraging", "callbacks=ema"],
        ),
        (["trainer.accelerator=toaster"], ["toaster", "cpu"]),
        (["trainer.max_epochs=abc"], ["trainer.max_epochs=abc", "integer"]),
        (["trainer.precision=bf17"], ["trainer.precision=bf17", "bf16-mixed"]),
        (["trainer.max_epochs=-1"], ["trainer.max_epochs=-1"]),
        (["trainer.limit_val_batches=0"], ["trainer.limit_val_batches=0", "greater than 0"]),
        (["trainer.limit_test_batches=0.0"], ["trainer.limit_test_batches=0", "greater than 0"]),
        (["trainer=ddp_cpu", "trainer.devices=0"], ["trainer.devices=0", "greater than or equal to 1"]),
        (["trainer=ddp_cpu", "trainer.devices=4097"], ["trainer.devices=4097", "four to each core"]),
        (["trainer=ddp_cpu", "trainer.devices=two"], ["trainer.devices=two", "auto"]),
        (["trainer=ddp_cpu", "trainer.num_nodes=0"], ["trainer.num_nodes=0", "greater than or equal to 1"]),
        (["trainer=ddp_cpu", "trainer.num_nodes=2"], ["trainer.num_nodes=2", "torchrun or srun", "docs/scale.md"]),
        (["trainer=ddp_cpu", "trainer.strategy=dp"], ["trainer.strategy=dp", "'fsdp'"]),
        (["trainer=fsdp", "trainer.accelerator=cpu", "trainer.devices=2"], ["trainer.strategy=fsdp", "GPUs"]),
        (["trainer=ddp_cpu", "data.batch_size=1"], ["data.batch_size=1", "2 processes"]),
        (["-m", "trainer=ddp_cpu", "seed=0,1"], ["--multirun", "2 processes", "trainer.devices=1"]),
        (["trainer.accumulate_grad_batches=0"], ["trainer.accumulate_grad_batches=0"]),
        (["trainer.check_val_every_n_epoch=0"], ["trainer.check_val_every_n_epoch=0"]),
        (["trainer.max_epochs=0"], ["trainer.max_epochs=0"]),
        (["trainer.max_epochs=null", "trainer.max_time=00:00:00:02"], ["trainer.max_epochs=null", "needs an end"]),
        (["+trainer.logger=false"], ["trainer.logger", "not to be chosen"]),
        (["+model.num_classes=5"], ["model.num_classes", "not to be chosen"]),
        (["loss._target_=lightning.pytorch.LightningModule.load_from_checkpoint"], ["loss._target_", "Module"]),
        (["scheduler._target_=fmnist.runs.files.atomic_write"], ["scheduler._target_", "fmnist.training.schedules"]),
        (["data=folder", "data.root=null"], ["data.root=null"]),
        (["model=mlp", "model.channels=[3]"], ["model.channels", "model.hidden"]),
        (["model=null"], ["model=null: there is no such option", "cnn"]),
        (["name=größe"], ["name=größe", "quoted"]),
        (["-m", "model.dropout=1.5,1.7", "seed=0,1"], ["model.dropout=1.5", "less than 1", "1 more such"]),
        (["-m", "model.dropuot=0.1,0.2"], ["model.dropuot", "did you mean model.dropout"]),
        (["seed=0,1"], ["seed=0,1", "-m", "[1,2]"]),
        (["seed={}"], ["seed={}", "valid integer"]),
        (["report={a: 1}"], ["report=", "valid boolean"]),
        (["seed=0,1", "optimizer=sgdd"], ["optimizer=sgdd", "did you mean sgd?"]),
        (["-m", "trainer=ddp_cpu", "seed=0,1"], ["2 processes", "trainer.devices=1"]),
        (["-m", "trainer.devices=2", "seed=0,1"], ["2 processes", "trainer.devices=1"]),
        (["-m", "resume=a,b"], ["resume", "leave out -m"]),
        (["sweep=parallel", "hydra.launcher.n_jobs=0", "seed=0,1"], ["hydra.launcher.n_jobs=0", "at least 1"]),
        (["sweep=parallel", "hydra.launcher.n_jobs=-7", "seed=0,1"], ["hydra.launcher.n_jobs=-7", "at least 1"]),
        (["-m", "optimizer=sgd,sgdd"], ["optimizer=sgdd", "did you mean sgd?"]),
        (["-m", "name=a/b", "seed=0,1"], ["name='a/b'"]),
        (["-m", "outputs=/proc/nope", "seed=0,1"], ["outputs=/proc/nope"]),
        (["~scheduler"], ["scheduler"]),
        (["+callbacks.x=3"], ["callbacks.x=3", "_target_"]),
        (["data.split_seed=100000000000000000000"], ["data.split_seed=1", "4294967295"]),
        (["seed=4294967296"], ["seed=4294967296", "4294967295"]),
        (["seed=abc"], ["seed=abc", "integer"]),
        (["seed=-1"], ["seed=-1"]),
        (["test=perhaps"], ["test=perhaps", "boolean"]),
        (["compile=perhaps"], ["compile=perhaps", "boolean"]),
        (["name=a/b"], ["name='a/b'"]),
        (["resume=nowhere"], ["resume=nowhere", "no such folder"]),
        (["resume=."], ["resume=.", "not a run folder"]),
    ],
)
def test_train_refuses(run_script: RunScript, arguments: list[str], fragments: list[str], tmp_path: Path) -> None:
    words = arguments if "data=folder" in arguments else [*arguments, f"data.root={tmp_path}/none"]
    done = run_script("train", *words)
    assert_one_line(done, *fragments)
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("trainer", ["gpu", "ddp", "fsdp"])
def test_train_refuses_a_gpu_that_is_not_there(run_script: RunScript, trainer: str) -> None:
    assert_one_line(run_script("train", f"trainer={trainer}"), "trainer", "gpu")


def test_train_says_when_no_source_has_the_data(run_script: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_: Path) -> tuple[Path, ...]:
        raise sources.DataUnavailableError("not today")

    for source in ("_torchvision_download", "_debian_package"):
        monkeypatch.setattr(sources, source, nothing)
    monkeypatch.setattr(sources, "SYSTEM_FOLDER", Path("nowhere"))
    done = run_script("train", "data.root=empty")
    assert done.status == 2
    assert "Traceback" not in done.err
    message = done.err[done.err.index("error: ") :]
    assert message.count("not today") == 2
    assert "system folder nowhere: none of the wanted files" in message
    assert "apt install" in message
    assert not (done.folder / "outputs").exists()


def test_train_refuses_an_outputs_folder_that_cannot_be_made(run_script: RunScript, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = run_script("train", "outputs=file")
    assert_one_line(done, "outputs=file")


def test_train_refuses_a_data_folder_that_cannot_be_made(run_script: RunScript, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert_one_line(run_script("train", "data.root=file"), "data.root")


def test_a_val_size_that_leaves_nothing_is_refused(train: RunScript) -> None:
    assert_one_line(train("data.val_size=600"), "data.val_size=600", "600 training images")


@pytest.mark.parametrize(
    ("command", "fragments"),
    [
        # Types.
        (["train", "model.channels=8"], ["model.channels=8", "array"]),
        (["train", "model.channels=[a]"], ['model.channels=["a"]', "integer"]),
        (["train", "model.channels=[[8]]"], ["model.channels=[[8]]", "integer"]),
        (["train", "model.channels=[1.5]"], ["model.channels=[1.5]", "integer"]),
        (["train", "model.channels={a:1}"], ["model.channels={a:1}"]),
        (["train", "optimizer.lr=[0.1]"], ["optimizer.lr=[0.1]", "number"]),
        (["train", "optimizer.betas=[0.9]"], ["optimizer.betas=[0.9]", "more items"]),
        (["train", "data.batch_size=1.5"], ["data.batch_size=1.5", "integer"]),
        (["train", "data.batch_size=true"], ["data.batch_size=true", "integer"]),
        (["train", "seed=1.0"], ["seed=1.0", "integer"]),
        (["train", "name=[a]"], ['name=["a"]', "string"]),
        (["train", "resume=[a]"], ['resume=["a"]', "string"]),
        (["train", "trainer.enable_progress_bar=3"], ["trainer.enable_progress_bar=3", "boolean"]),
        (["train", "trainer.accelerator=[cpu]"], ['trainer.accelerator=["cpu"]', "string"]),
        (["train", "trainer.max_time=abc"], ["trainer", "abc", "DD:HH:MM:SS"]),
        (["evaluate", "run=3"], ["run=3", "string"]),
        (["evaluate", "run=[3]"], ["run=[3]", "string"]),
        (["evaluate", "run=[]"], ["run=[]", "at least 1 item"]),
        (["report", "run=[a]"], ['run=["a"]', "string"]),
        (["predict", "images=[a]"], ['images=["a"]', "string"]),
        (["compare", "runs=[3]"], ["runs=[3]", "string"]),
        (["compare", ".", "metric=3"], ["metric=3", "string"]),
        (["show_data", "index=x"], ["index=x", "integer"]),
        (["tune", "trials=x"], ["trials=x", "integer"]),
        (["get_data", "root=3"], ["root=3", "string"]),
        # Ranges, up to what no machine has.
        (["train", "model.channels=[1000000000]"], ["model: its weights need", "this machine has"]),
        (["train", "model.channels=[100000000000000000000]"], ["model.channels=[100000000000000000000]", "2147483647"]),
        (["train", "optimizer.lr=inf"], ["optimizer.lr=Infinity", "finite"]),
        (["train", "optimizer.lr=1e400"], ["optimizer.lr=Infinity", "finite"]),
        (["train", "optimizer.lr=nan"], ["optimizer.lr=NaN", "finite"]),
        (["train", "model.dropout=nan"], ["model.dropout=NaN", "finite"]),
        (["train", "data.val_size=-1"], ["data.val_size=-1", "greater than or equal to 0"]),
        (["train", "augment.shift=28"], ["augment.shift=28", "less than 28"]),
        (["train", "trainer.gradient_clip_val=-1"], ["trainer.gradient_clip_val=-1", "greater than or equal to 0"]),
        (["train", "trainer.max_steps=-2"], ["trainer.max_steps=-2", "-1"]),
        (["train", "checkpoint_every_n_steps=0"], ["checkpoint_every_n_steps=0"]),
        (["train", "checkpoint_every_minutes=nan"], ["checkpoint_every_minutes=NaN", "finite"]),
        (["train", "-m", "seed=range(0,100000000000)"], ["100,000,000,000 jobs", "100,000"]),
        (["train", "-m", "seed=glob(*)"], ["a sweep of 0 jobs"]),
        (["predict", "images=.", "top=0"], ["top=0", "greater than or equal to 1"]),
        (["predict", "images=.", "batch_size=0"], ["batch_size=0", "greater than or equal to 1"]),
        (["show_data", "images=257"], ["images=257", "less than or equal to 256"]),
        (["show_data", "seed=4294967296"], ["seed=4294967296", "4294967295"]),
        (["tune", "n_jobs=0"], ["n_jobs=0", "greater than or equal to 1"]),
        (["tune", "max_seconds=nan"], ["max_seconds=NaN", "finite"]),
        (["tune", "+search.data.prune={low:2,high:1}"], ["search.data.prune.low=2", "less than"]),
        # Nothing where there has to be something.
        (["train", ""], ["can't be read", "key=value"]),
        (["train", "seed"], ["seed can't be read", "key=value"]),
        *(
            (["train", word], [f"{word} can't be read", "key=value"])
            for word in ("=3", "=", "+=", "++=", "+@x=", "~", "~=")
        ),
        (["train", "name="], ["name=''"]),
        (["train", "data.root="], ["data.root=", "at least 1 character"]),
        (["train", "optimizer.lr="], ["optimizer.lr=", "number"]),
        (["train", "seed=null"], ["seed=null", "integer"]),
        (["train", "seed=???"], ["seed"]),
        (["train", "loss=null"], ["loss=null: there is no such option", "cross_entropy"]),
        (["get_data", "root="], ["root=", "at least 1 character"]),
        (["compare"], ["name the folders"]),
        (["predict"], ["images"]),
        (["report"], ["give run="]),
        # Keys that are taken out, put in twice, or aren't there.
        (["train", "~model"], ["model: there has to be one"]),
        (["train", "~seed"], ["seed: there has to be one"]),
        (["train", "~report"], ["report: there has to be one"]),
        (["train", "~data.root"], ["'root'"]),
        (["train", "~nothing"], ["nothing: there is no such key"]),
        (["train", "~resume"], ["resume: it is null"]),
        (["train", "+seed=1"], ["seed: there is one already: leave out the +"]),
        (["train", "+loss._partial_=true"], ["loss._partial_=true", "false"]),
        (["train", "+trainer._partial_=true"], ["trainer._partial_=true", "false"]),
        (["train", "model=/etc/passwd"], ["there is no such option"]),
        (["train", "data=3"], ["data=3: there is no such option", "folder"]),
        (["train", "+callbacks.x={_target_:os.system,command:ls}"], ["callbacks.x._target_=os.system"]),
        (["train", "-m", "hydra.launcher._target_=os.system", "seed=0,1"], ["os.system"]),
        (["train", "-m", "hydra.sweeper._target_=os.system"], ["os.system"]),
        (["train", "--nope"], ["--nope", "--help"]),
        (["train", "--cfg", "x"], ["--cfg", "'job'"]),
        (["evaluate", "~split", "checkpoint=x"], ["split: there has to be one"]),
        (["report", "rn=x"], ["rn", "did you mean run"]),
        (["show_data", "~images"], ["images: there has to be one"]),
        (["tune", "~trials"], ["trials: there has to be one"]),
        (["tune", "sampler=nope"], ["sampler=nope", "did you mean tpe?"]),
        (["tune", "search=null"], ["search=null: there is no such option", "default"]),
        (["get_data", "rot=x"], ["rot", "did you mean root"]),
        # What would be looked up.
        (["train", "seed=${nope}"], ["'nope' not found"]),
        (["train", "seed=${seed}"], ["Recursive", "seed"]),
        (["train", "seed=${oc.env:NOPE}"], ["NOPE"]),
        # Combinations.
        (["compare", ".", "runs=x"], ["runs=", "not both"]),
        (["predict", "images=.", "preview=x.png", "output=x.png"], ["preview=x.png", "output"]),
        (["tune", "resume=x"], ["resume=x", "own command"]),
        (["tune", "name=x"], ["name=x", "study=x"]),
        (["tune", "-m", "seed=0,1"], ["-m"]),
        # Paths.
        (["train", "name=.."], ["name='..'"]),
        (["train", "name=../x"], ["name='../x'"]),
        (["train", "outputs=/dev/null"], ["outputs=/dev/null", "Not a directory"]),
        (["train", f"resume={'x' * 5000}"], ["x"]),
        (["evaluate", "checkpoint=/dev/zero"], ["no checkpoint /dev/zero"]),
        (["evaluate", "checkpoint=."], ["no checkpoint ."]),
        (["report", "run=nowhere"], ["run=nowhere", "no such folder"]),
        (["predict", "images=nowhere"], ["images=nowhere", "no such file"]),
        (["predict", "images=photo.png", "output=nowhere/x"], ["output=nowhere/x", "no folder nowhere"]),
        (["predict", "images=photo.png", "output=photo.png"], ["output=photo.png is one of the images"]),
        (["compare", "nowhere"], ["runs=nowhere", "no such folder"]),
        (["get_data", "root=/proc/nope"], ["data.root=/proc/nope cannot be written to"]),
        (["tune", "study=a/b"], ["study=a/b", "letters"]),
        # Letters: look-alikes, halves of some, none at all.
        (["train", "\N{CYRILLIC SMALL LETTER O}ptimizer=sgd"], ["ptimizer=sgd can't be read"]),
        (["train", "optimizer\N{FULLWIDTH EQUALS SIGN}sgd"], ["can't be read"]),
        (["train", "data.batch_size=\N{FULLWIDTH DIGIT NINE}"], ["can't be read"]),
        (["train", "data.root='a\0b'"], [r"data.root='a\x00b'", "NUL"]),
        (["train", "outputs='a\0b'"], [r"outputs='a\x00b'", "NUL"]),
        (["train", "name=\udcff"], [r"name=\udcff can't be read"]),
        (["compare", "\udcff"], ["runs=", "Unicode"]),
        (["get_data", "root='a\0b'"], [r"root='a\x00b'", "NUL"]),
        (["train", f"seed={'9' * 5000}"], ["a number is too long"]),
        (["train", f"model.channels={'[' * 200}{']' * 200}"], ["nested too deeply"]),
    ],
    ids=lambda words: " ".join(words)[:60].encode("ascii", "backslashreplace").decode().replace("\0", "0"),
)
def test_every_script_refuses(run_script: RunScript, command: list[str], fragments: list[str], tmp_path: Path) -> None:
    (tmp_path / "photo.png").touch()
    script, *words = command
    done = run_script(script, *words)
    done.assert_refused(*fragments)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        ([], ["run=", "checkpoint="]),
        (["run=a", "checkpoint=b"], ["either"]),
        (["run=nowhere"], ["run=nowhere", "no such folder"]),
        (["run=[nowhere]"], ["run=nowhere", "no such folder"]),
        (["run=[.,nowhere]"], ["run=.", "not a run folder"]),
        (["run=*.ckpt"], ["run=*.ckpt", "no run folder"]),
        (["run=[a*]", "tta=flip"], ["run=a*", "no run folder"]),
        (["run=[a,b]", "checkpoint=b"], ["either"]),
        (["run=."], ["run=.", "not a run folder"]),
        (["checkpoint=nowhere.ckpt"], ["no checkpoint nowhere.ckpt"]),
        (["checkpoint=garbage.ckpt"], ["garbage.ckpt", "not a readable checkpoint"]),
        (["checkpoint=foreign.ckpt"], ["foreign.ckpt", "not a checkpoint of this project"]),
        (["checkpoint=garbage.ckpt", "split=train"], ["split=train", "'val' or 'test'"]),
        (["checkpoint=garbage.ckpt", "tta=flop"], ["tta=flop", "'none', 'flip' or 'flip_shift'"]),
        (["checkpoint=garbage.ckpt", "tta=null"], ["tta=null", "'none', 'flip' or 'flip_shift'"]),
        (["checkpont=garbage.ckpt"], ["checkpont", "did you mean checkpoint"]),
    ],
)
def test_evaluate_refuses(run_script: RunScript, arguments: list[str], fragments: list[str], tmp_path: Path) -> None:
    (tmp_path / "garbage.ckpt").write_bytes(os.urandom(1000))
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    assert_one_line(run_script("evaluate", *arguments), *fragments)


def test_weights_of_another_network_are_refused(train: RunScript, run_script: RunScript) -> None:
    file = train("trainer.max_epochs=1", "test=false").run / "checkpoints" / "best.ckpt"
    checkpoint = checkpoints.load(file)
    checkpoint[checkpoints.CONFIG_KEY]["model"]["channels"] = [4, 9]
    torch.save(checkpoint, file)
    done = run_script("evaluate", f"checkpoint={file}")
    assert done.status == 2
    (line,) = done.err.splitlines()
    assert "weights don't fit" in line


def test_a_truncated_checkpoint_is_refused_by_evaluate_and_resume(train: RunScript, run_script: RunScript) -> None:
    run = train("trainer.max_epochs=1", "test=false").run
    for name in ("best", "last"):
        checkpoint = run / "checkpoints" / f"{name}.ckpt"
        checkpoint.write_bytes(checkpoint.read_bytes()[:-3000])
    before = sorted(run.rglob("*"))
    for script, key in (("evaluate", "run"), ("train", "resume")):
        done = run_script(script, f"{key}={run}")
        assert done.status == 2
        (line,) = done.err.splitlines()
        assert "not a readable checkpoint" in line
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("trainer: {max_epochs: 1, max_steps: -1}", ["no trainer.accelerator", "another version", "trainer=default"]),
        ("", ["no trainer.accelerator"]),
        ("trainer: {accelerator: cpu, devices: 1, num_nodes: 1, strategy: auto}", ["no trainer.max_epochs"]),
    ],
)
def test_a_run_of_another_version_says_so(
    train: RunScript, run_script: RunScript, text: str, fragments: list[str]
) -> None:
    run = train("trainer.max_epochs=1", "test=false").run
    (run / "config.yaml").write_text(text)
    done = run_script("train", f"resume={run}")
    assert done.status == 2
    (line,) = done.err.splitlines()
    for fragment in (f"{run}/config.yaml", *fragments):
        assert fragment in line


@pytest.mark.parametrize("limit", ["max_epochs", "max_steps"])
def test_a_resumed_run_cannot_end_before_it_was(train: RunScript, run_script: RunScript, limit: str) -> None:
    run = train("trainer.max_epochs=2", "test=false").run
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "run.log"}
    done = run_script("train", f"resume={run}", f"trainer.{limit}=1")
    assert done.status == 2
    assert f"trainer.{limit}=1: the run has done" in done.err
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "run.log"}


def test_what_only_the_trainer_notices_leaves_no_run_either(train: RunScript) -> None:
    done = train("+trainer.val_check_interval=1000")
    assert done.status == 2
    assert "val_check_interval" in done.err.splitlines()[-1]
    assert "Traceback" not in done.err
    assert not (done.folder / "outputs").exists()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_limit_that_leaves_nothing_is_refused(train: RunScript, split: str) -> None:
    assert_one_line(train(f"trainer.limit_{split}_batches=0.0001"), f"trainer.limit_{split}_batches", "leaves nothing")


def test_a_sweep_touches_nothing_that_was_there(train: RunScript, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("precious")
    done = train("-m", "hydra.sweep.dir=mine", "hydra.sweep.subdir=.", "model.dropout=1.5")
    assert done.status == 2
    assert (tmp_path / "mine" / "precious.txt").read_text() == "precious"


def test_a_resumed_run_keeps_its_choices(train: RunScript, run_script: RunScript) -> None:
    run = train("trainer.max_epochs=1", "test=false").run
    done = run_script("train", f"resume={run}", "optimizer=sgd", "trainer.max_epochs=2")
    assert done.status == 2
    (line,) = done.err.splitlines()
    assert "optimizer=sgd" in line
    assert "trainer.<key>" in line
