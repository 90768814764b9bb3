"""What each key of a training may be, whether it can change on resume, and whether it makes a difference to the result.

A key that stands nowhere here takes what its group's class or function says; it cannot change on resume and makes a
difference to the result.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_type_hints

from annotated_types import Ge, Gt, Le, MinLen

MAX_SEED = 2**32 - 1  # NumPy's


@dataclass(frozen=True)
class Facts:
    """What is to be known about a key besides its values."""

    resume: bool = False
    """Whether it can change when a run is resumed."""
    result: bool = True
    """Whether it makes a difference to the result: runs that differ in no such key are repetitions of one setting."""


NO_DIFFERENCE = Facts(result=False)
FREE = Facts(resume=True, result=False)
RESUMABLE = Facts(resume=True)

Steps = Annotated[int, Ge(1)]
Minutes = Annotated[float, Gt(0)]
Fraction = Annotated[int, Gt(0)] | Annotated[float, Gt(0), Le(1)]
"""Of the batches: an int is their number, a float their share."""


@dataclass
class TrainKeys:
    """The keys of conf/train.yaml that belong to no group."""

    name: Annotated[str, NO_DIFFERENCE]
    seed: Annotated[int, Ge(0), Le(MAX_SEED), NO_DIFFERENCE]
    monitor: str
    test: Annotated[bool, FREE]
    report: Annotated[bool, FREE]
    outputs: Annotated[str, NO_DIFFERENCE]
    compile: Annotated[bool, NO_DIFFERENCE]
    cuda_graph: Annotated[bool, FREE]
    checkpoint_every_n_steps: Annotated[Steps | None, FREE]
    checkpoint_every_minutes: Annotated[Minutes | None, FREE]
    stop_on_nan: Annotated[bool, FREE]
    resume: Annotated[str | None, NO_DIFFERENCE]
    max_restarts: Annotated[int, Ge(0), FREE] = 0


@dataclass
class TrainerKeys:
    """The arguments of the Trainer that it would take and then fail with, and those that change no result."""

    accelerator: Annotated[str, FREE]
    devices: Annotated[Steps | Literal[-1, "auto"] | Annotated[list[Annotated[int, Ge(0)]], MinLen(1)], FREE]
    num_nodes: Annotated[Steps, FREE]
    strategy: Annotated[Literal["auto", "ddp", "fsdp"], FREE]
    max_epochs: Annotated[Steps | Literal[-1] | None, RESUMABLE]
    max_steps: Annotated[Steps | Literal[-1], RESUMABLE]
    accumulate_grad_batches: Annotated[Steps, RESUMABLE]
    check_val_every_n_epoch: Annotated[Steps | None, RESUMABLE]
    val_check_interval: Annotated[Fraction | str | dict[str, float] | None, RESUMABLE]  # the latter two are times
    log_every_n_steps: Annotated[Steps, FREE]
    limit_train_batches: Annotated[Fraction, RESUMABLE]
    limit_val_batches: Annotated[Fraction, RESUMABLE]
    limit_test_batches: Annotated[Fraction, RESUMABLE]
    gradient_clip_val: Annotated[Annotated[float, Ge(0)] | None, RESUMABLE]
    enable_progress_bar: Annotated[bool, FREE]


GROUPS: dict[str, Facts] = {
    "hydra": NO_DIFFERENCE,
    "sweep": NO_DIFFERENCE,
    "pictures": NO_DIFFERENCE,
    "logger": FREE,
    "data.root": FREE,
    "data.verify": NO_DIFFERENCE,  # other data are told by their checksums
    "data.eval_batch_size": NO_DIFFERENCE,
    "trainer": RESUMABLE,
    **{
        f"trainer.{name}": FREE
        for name in (
            *("deterministic", "benchmark", "detect_anomaly", "profiler", "logger", "default_root_dir"),
            *("enable_model_summary", "enable_checkpointing"),
        )
    },
}
"""Keys and groups, of which the longest that a key begins with says what holds for it."""


def affects_result(key: str) -> bool:
    """Return whether a dotted key makes a difference to the result of a training."""
    return facts(key).result and not key.endswith("_partial_")


def can_change_on_resume(key: str) -> bool:
    """Return whether a dotted key can change when a run is resumed."""
    return facts(key).resume


def flat_settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of a config by dotted key, without those that are null."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat_settings(value, f"{prefix}{key}.")
        elif value is not None:
            found[f"{prefix}{key}"] = value
    return found


@functools.cache
def facts(key: str) -> Facts:
    """Return what holds for a dotted key."""
    group, _, name = key.partition(".")
    hints = _hints(TrainerKeys) if group == "trainer" else _hints(TrainKeys)
    for fact in getattr(hints.get(name if group == "trainer" else key), "__metadata__", ()):
        if isinstance(fact, Facts):
            return fact
    while key and key not in GROUPS:
        key = key.rpartition(".")[0]
    return GROUPS.get(key, Facts())


@functools.cache
def _hints(keys: type) -> dict[str, object]:
    return get_type_hints(keys, include_extras=True)
