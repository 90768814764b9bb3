"""What people type first, and the keys that they mean: epochs=3, --lr 0.1, gpus=2, wandb=true.

A guess is answered by the command line to type. It isn't replaced: a run's record holds what was typed.
"""

import os
import re
import shlex
from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

from fmnist.config.option_files import choices, command_keys, groups, option_keys, options
from fmnist.config.overrides import key_of, program
from fmnist.config.similar import nearest, plain

SETS = ("experiment", "sweep", "search")
"""Groups without keys of their own."""
SAME: dict[str, str] = {
    "trainer.max_epochs": "epochs epoch n_epochs num_epochs nepochs ep",
    "trainer.max_steps": "steps iterations iters max_iters n_steps num_steps",
    "trainer.devices": "n_gpus num_gpus ngpus processes nproc n_devices",
    "trainer.num_nodes": "nodes n_nodes nnodes",
    "trainer.accumulate_grad_batches": "accumulate accumulation grad_accum gradient_accumulation_steps",
    "trainer.gradient_clip_val": "clip grad_clip clip_grad gradient_clip gradient_clipping max_grad_norm",
    "trainer.log_every_n_steps": "log_interval log_every logging_steps",
    "optimizer.lr": "learning_rate lrate step_size eta base_lr max_lr",
    "optimizer.weight_decay": "wd decay l2",
    "optimizer.betas": "beta beta1 beta2",
    "data.batch_size": "bs batch batchsize train_batch_size per_device_train_batch_size",
    "data.eval_batch_size": "test_batch_size val_batch_size",
    "data.val_size": "val_split validation_split valid_size val_ratio",
    "data.root": "data_dir datadir data_path dataset_path data_root data_folder",
    "model.dropout": "drop drop_rate dropout_rate dropout_p p_drop",
    "model.hidden": "hidden_size hidden_dim hidden_units hidden_layers fc",
    "model.channels": "filters num_filters n_filters num_channels",
    "model.activation": "act activation_function nonlinearity",
    "loss.label_smoothing": "smoothing smooth",
    "model": "arch architecture net network backbone model_name",
    "data": "dataset dataset_name ds",
    "optimizer": "opt optim optimiser solver",
    "scheduler": "lr_scheduler schedule sched lr_schedule",
    "loss": "criterion loss_fn loss_function objective",
    "augment": "augmentation augmentations aug transform transforms data_augmentation",
    "experiment": "exp config preset recipe",
    "callbacks": "callback",
    "logger": "tracker loggers logging",
    "seed": "random_seed manual_seed random_state rng_seed",
    "name": "run_name exp_name experiment_name project",
    "outputs": "output_dir out_dir outdir save_dir log_dir logdir default_root_dir results",
    "monitor": "metric monitor_metric",
    "resume": "run checkpoint ckpt ckpt_path resume_from resume_from_checkpoint load weights restore",
    "run": "run_dir run_folder folder",
    "checkpoint": "ckpt ckpt_path weights model_path",
    "runs": "folders run",
    "images": "image files file img input inputs photos photo path",
    "top": "topk top_k k",
    "output": "out output_file save",
    "split": "subset dataset_split",
    "data_root": "root data_dir data_path",
    "corruptions": "corruption perturbation perturbations",
    "strengths": "strength severity severities level levels",
    "n_jobs": "jobs workers num_workers n_workers parallel",
    "trials": "n_trials num_trials max_trials",
    "max_seconds": "timeout seconds max_time budget",
    "steps": "num_training n_steps num_steps iterations",
}
"""Other names of keys and groups, those of the command itself first."""
VALUES: dict[str, dict[str, str]] = {
    "gpus": {"0": "trainer=cpu", "1": "trainer=gpu", "-1": "trainer=ddp", "": "trainer=ddp trainer.devices={}"},
    "gpu": {"0": "trainer=gpu", "false": "trainer=cpu", "": "trainer=gpu"},
    "cuda": {"false": "trainer=cpu", "": "trainer=gpu"},
    "no_cuda": {"false": "", "": "trainer=cpu"},
    "use_cuda": {"false": "trainer=cpu", "": "trainer=gpu"},
    "cpu": {"false": "", "": "trainer=cpu"},
    "device": {"cpu": "trainer=cpu", "auto": "trainer=default", "": "trainer=gpu"},
    "ddp": {"false": "", "": "trainer=ddp"},
    "fsdp": {"false": "", "": "trainer=fsdp"},
    "distributed": {"false": "", "": "trainer=ddp"},
    "fp16": {"false": "trainer.precision=32-true", "": "trainer.precision=16-mixed"},
    "half": {"false": "trainer.precision=32-true", "": "trainer.precision=16-mixed"},
    "amp": {"false": "trainer.precision=32-true", "": "trainer.precision=16-mixed"},
    "bf16": {"false": "trainer.precision=32-true", "": "trainer.precision=bf16-mixed"},
    "mixed_precision": {"false": "trainer.precision=32-true", "": "trainer.precision=bf16-mixed"},
    "debug": {"false": "", "": "trainer=debug"},
    "dry_run": {"false": "", "": "trainer=debug"},
    "overfit": {"false": "", "": "trainer=overfit"},
    "ema": {"false": "callbacks=none", "": "callbacks=ema"},
    "early_stopping": {"false": "callbacks=none", "": "callbacks=early_stopping"},
    "early_stop": {"false": "callbacks=none", "": "callbacks=early_stopping"},
    "augment": {"false": "augment=none", "true": "augment=flip_shift"},
    "wandb": {"false": "", "": "logger=wandb"},
    "use_wandb": {"false": "", "": "logger=wandb"},
    "mlflow": {"false": "", "": "logger=mlflow"},
    "comet": {"false": "", "": "logger=comet"},
    "n_seeds": {"": "sweep=seeds"},
    "seeds": {"": "-m seed={}"},
    "progress_bar": {"": "trainer.enable_progress_bar={}"},
    "resume": {"true": "resume=latest", "last": "resume=latest", "auto": "resume=latest", "false": ""},
    "run": {"last": "run=latest", "newest": "run=latest", "best": "run=latest"},
    "checkpoint": {"last": "run=latest", "latest": "run=latest", "best": "run=latest"},
}
"""What a name with a value means; "" as the value stands for all others, and as the meaning for leaving it out."""
NOTES: dict[str, str] = {
    "num_workers": "there are none to choose, as all images lie in memory: leave it out",
    "workers": "there are none to choose, as all images lie in memory: leave it out",
    "n_workers": "there are none to choose, as all images lie in memory: leave it out",
    "pin_memory": "all images lie in the device's memory: leave it out",
    "shuffle": "the training images are shuffled in each epoch: leave it out",
    "tensorboard": "each run writes TensorBoard's files: leave it out",
    "verbose": "a run logs each epoch, and trainer.enable_progress_bar=true shows a progress bar: leave it out",
    "image_size": "the dataset has its size: leave it out",
    "num_classes": "the dataset has its classes: leave it out",
}
"""Names of what needs no key, and why."""
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
FLAG = re.compile(r"-{1,2}([A-Za-z][\w.-]*)(?:=(.*))?", re.DOTALL)
OVERRIDE = re.compile(r"\+{0,2}([A-Za-z]\w*)=(.*)", re.DOTALL)


class Word(NamedTuple):
    """An argument that may be a guess."""

    name: str
    value: str
    is_flag: bool
    length: int
    """2 if its value is the next argument."""


def check_guesses(command: str, arguments: Sequence[str], flags: Mapping[str, bool]) -> None:
    """Refuse arguments that are no key of the command, where it is known which key is meant.

    Args:
        command: its name.
        arguments: of the command line.
        flags: Hydra's, and whether a value follows each.

    Raises:
        ValueError: with the whole command line to type.
    """
    known = {*groups(command), *command_keys(command)}
    reason, wrong, corrected, at = "", [], [], 0
    while at < len(arguments):
        word = read_word(arguments, at, flags, known) or bare_word(command, arguments, at, flags)
        typed = list(arguments[at : at + (word.length if word else 1 + flags.get(arguments[at], False))])
        at += len(typed)
        instead = meaning(command, word, known, arguments) if word else None
        if word is None or (instead is None and not word.is_flag):
            corrected += typed
        elif instead is None:
            raise ValueError(f"{typed[0]}: there is no such flag{_near(command, word.name, arguments)}")
        else:
            value_only = "there is no such value" if word.name in known else "there is no such key"
            reason = reason or ("keys are typed as key=value" if word.is_flag else value_only)
            wrong.append(" ".join(typed))
            corrected += instead
    if wrong:
        raise ValueError(
            f"{', '.join(wrong)}: {reason}; did you mean:  {shlex.join([*program(command).split(), *corrected])}"
        )


def read_word(arguments: Sequence[str], at: int, flags: Mapping[str, bool], known: Container[str]) -> Word | None:
    """Return an argument that may be a guess; None for Hydra's flags, for paths, and for keys of groups."""
    argument, following = arguments[at], arguments[at + 1 : at + 2]
    if os.path.exists(argument) or (at and flags.get(arguments[at - 1])):  # noqa: PTH110 (any length)
        return None
    if found := OVERRIDE.fullmatch(argument):
        return Word(found[1], found[2], is_flag=False, length=1)
    found = FLAG.fullmatch(argument)
    name = found[1].replace("-", "_") if found else ""
    begun = name not in known and any(flag.startswith(argument) for flag in flags)
    is_hydras = argument in flags or begun or ("=" in argument and flags.get(argument.partition("=")[0], False))
    if not found or is_hydras:
        return None
    if found[2] is not None:
        return Word(name, found[2], is_flag=True, length=1)
    if following and not following[0].startswith("-") and "=" not in following[0]:
        return Word(name, following[0], is_flag=True, length=2)
    return Word(name, "true", is_flag=True, length=1)


def bare_word(command: str, arguments: Sequence[str], at: int, flags: Mapping[str, bool]) -> Word | None:
    """Return a key whose '=' is missing, with its value: `optimizer.lr 0.1`, `lr = 0.1`; or a group's option: `mlp`."""
    name, *following = arguments[at : at + 3]
    name = name.removesuffix(":")
    if not re.fullmatch(r"[A-Za-z][\w.]*", name) or os.path.exists(name) or (at and flags.get(arguments[at - 1])):  # noqa: PTH110
        return None
    is_key = {name, name.partition(".")[0]} & {*groups(command), *command_keys(command)}
    value = following[1:] if following[:1] == ["="] else following[:1]
    if value and not re.match(r"-+[A-Za-z]|.*=", value[0]) and (is_key or meant_keys(command, name, arguments)):
        return Word(name, value[0], is_flag=True, length=3 if following[0] == "=" else 2)
    having = [group for group in groups(command) if name in options(group)]
    return Word(having[0], name, is_flag=True, length=1) if len(having) == 1 else None


def meaning(command: str, word: Word, known: Container[str], arguments: Sequence[str]) -> list[str] | None:
    """Return what to type instead of an argument; None if it is right, or there is no guess.

    Raises:
        ValueError: if nothing has to be typed, with the reason.
    """
    if word.name in known:
        value = _read(VALUES.get(word.name, {}), word.value, exactly=True)
        return value if value is not None else [f"{word.name}={word.value}"] if word.is_flag else None
    if word.name in NOTES and not meant_keys(command, word.name, arguments):
        raise ValueError(f"{word.name}: {NOTES[word.name]}")
    instead = _read(VALUES.get(word.name, {}), word.value)
    if instead is not None and _exist(command, instead):
        return instead
    if "." in word.name and word.name.split(".")[0] in known:  # as LightningCLI has it
        return [f"{word.name}={word.value}"]
    return next((_assigned(key, word.value) for key in meant_keys(command, word.name, arguments)), None)


def meant_keys(command: str, name: str, arguments: Sequence[str]) -> list[str]:
    """Return the keys that a name may mean, the most likely first; `group=option group.key` where a choice lacks it.

    Args:
        command: whose keys they are.
        name: of a key that there isn't, with or without a group.
        arguments: of the command line, for the choices in it.
    """
    group, _, last = name.rpartition(".")
    chosen = choices(command, arguments)
    here = [
        f"{group}.{key}" for group, option in chosen.items() if group not in SETS for key in option_keys(group, option)
    ]
    own = [] if group else [*groups(command), *command_keys(command)]
    found = [key for key, names in SAME.items() if plain(last) in map(plain, names.split()) and key in {*own, *here}]
    found.sort(key=lambda key: key not in own)
    found += [key for key in (*own, *here) if plain(key.rpartition(".")[2]) == plain(last)]
    typed = {key_of(argument) for argument in arguments}
    for other in groups(command):
        if group and other != group:
            continue
        for option in options(other) if other not in (*SETS, *typed) else ():
            found += [
                f"{other}={option} {other}.{key}"
                for key in option_keys(other, option)
                if key.rpartition(".")[2] == last
            ]
    found = [key for key in dict.fromkeys(found) if key.partition(" ")[2] not in here]
    return sorted(found, key=lambda key: key.rpartition(" ")[2].partition(".")[0] != group) if group else found


def did_you_mean_key(command: str, key: str, value: str | None, arguments: Sequence[str]) -> str | None:
    """Return "; did you mean ...?" for a key that there isn't, if its name means another one."""
    if not (meant := meant_keys(command, key, arguments)):
        return None
    return f"; did you mean {' '.join(_assigned(meant[0], value))}?"


def _assigned(key: str, value: str | None) -> list[str]:
    """Return `group=option` where it is needed, and key=value, as the arguments to type."""
    *choice, key = key.split(" ")
    if value is None:
        return [*choice, key]
    if key in VALUES and (instead := _read(VALUES[key], value, exactly=True)) is not None:
        return instead
    if "." not in key and options(key) and value not in options(key):
        value = next((option for option in options(key) if plain(option) == plain(value)), value)
        if key == "model" and value not in options(key) and "timm" in options(key):
            return ["model=timm", f"model.name={value}"]
    return [*choice, f"{key}={value}"]


def _read(table: Mapping[str, str], value: str, *, exactly: bool = False) -> list[str] | None:
    """Return what a table says on a value; its entry "" is for all other values, unless they have to be there."""
    low = value.lower()
    word = "true" if low in TRUE else "false" if low in FALSE else low
    default = None if exactly else table.get("")
    instead = table.get(low, table.get(word, default))
    return None if instead is None else [part.format(value) for part in instead.split()]


def _exist(command: str, overrides: Sequence[str]) -> bool:
    """Return whether a command has the groups of the overrides."""
    return all(override.split("=")[0].split(".")[0] in groups(command) for override in overrides if "=" in override)


def _near(command: str, name: str, arguments: Sequence[str]) -> str:
    """Return "; did you mean ...?" with keys whose name, or another name of them, is like one."""
    chosen = choices(command, arguments)
    here = [
        f"{group}.{key}" for group, option in chosen.items() if group not in SETS for key in option_keys(group, option)
    ]
    near = nearest(name, [*groups(command), *command_keys(command), *here])
    return f"; did you mean {' or '.join(f'{key}=...' for key in near)}?" if near else " (--help lists what there is)"
