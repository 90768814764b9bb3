"""Measure how fast the parts are and what they need, in turns with what they replace."""

import contextlib
import gc
import logging
import tempfile
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MinLen
from hydra import compose
from hydra.errors import HydraException
from lightning.pytorch import Callback
from omegaconf import DictConfig

from fmnist.config import logs
from fmnist.config.build import build_training
from fmnist.config.instantiate import one_line, plain_config
from fmnist.config.overrides import quoted
from fmnist.config.trainer import hardware_precision
from fmnist.config.validation import check_arguments
from fmnist.data.sources import ensure_files
from fmnist.predict.main import network_of
from fmnist.runs import provenance as record
from fmnist.runs.files import write_json
from fmnist.runs.run import Run, new_run
from fmnist.training.train import Training, set_up
from tools.benchmarks.bench import Bench, whole_batches
from tools.benchmarks.tables import TABLES

log = logging.getLogger(__name__)

What = Literal["input", "training", "arithmetic", "start", "evaluation", "memory", "growth"]
Size = Annotated[int, Ge(1)]


def settings(
    what: Annotated[Sequence[What], MinLen(1)],
    repetitions: Size,
    data_root: str,
    batch_size: Size,
    train_images: Size | None,
    networks: Annotated[Sequence[Sequence[str]], MinLen(1)],
    arithmetic_networks: Annotated[Sequence[Sequence[str]], MinLen(1)],
    overrides: Sequence[str],
    matrix_sizes: Annotated[Sequence[Size], MinLen(1)],
    memory_batch_sizes: Annotated[Sequence[Size], MinLen(1)],
    memory_epochs: Annotated[int, Ge(3)],
    doublings: Annotated[int, Ge(1), Le(8)],
    outputs: str,
) -> None:
    """The keys of conf/benchmark.yaml, and what they may be."""


def main(cfg: DictConfig, hydra: DictConfig) -> None:  # noqa: ARG001 (what every job gets)
    """Shows a table for each comparison as soon as it is made, and writes all values as JSON.

    Raises:
        ValueError: if the config asks for something that can't be; then nothing has been measured.
    """
    logs.to_terminal()
    check_arguments("", settings, plain_config(cfg))
    bench = make_bench(cfg)
    run = new_run(Path(cfg.outputs), "benchmark")
    file = run.folder / "benchmark.json"
    gc.freeze()  # or each collection between the turns would look through all modules, for most of a second
    try:
        ensure_files(Path(cfg.data_root))
        check_words(bench, cfg.what)
        results: dict[str, Any] = record.environment() | {"settings": plain_config(cfg)}
        for what in dict.fromkeys(cfg.what):
            results[what] = import_module(f"tools.benchmarks.{what}").compare(bench)
            write_json(file, results)
            log.info("%s, medians (lowest..highest):\n%s", what, TABLES[what](results[what]))
    except BaseException:
        if not file.exists():
            run.discard()
        raise
    finally:
        gc.unfreeze()
    log.info("%s", file)


def make_bench(cfg: DictConfig) -> Bench:
    """What the comparisons get."""
    words = [f"data.root={quoted(str(Path(cfg.data_root).absolute()))}", "trainer=cpu", *cfg.overrides]
    config = plain_config(cfg)
    return Bench(
        open_session=SessionsOf(words),
        open_network=lambda checkpoint: network_of(checkpoint, "cpu"),
        words=words,
        precisions=list(dict.fromkeys(["32-true", hardware_precision("cpu")])),
        data_root=Path(cfg.data_root),
        **{
            key: config[key]
            for key in (
                "batch_size",
                "repetitions",
                "train_images",
                "networks",
                "arithmetic_networks",
                "matrix_sizes",
                "memory_batch_sizes",
                "memory_epochs",
                "doublings",
            )
        },
    )


class SessionsOf:
    """Opens trainings that have the same words, and others of their own; see `OpenSession`.

    Args:
        words: of all.
        keys: what a person has typed them as, which a mistake's message begins with.
    """

    def __init__(self, words: Sequence[str], keys: str = "overrides or networks: ") -> None:
        self.words = words
        self.keys = keys
        self._composed: dict[tuple[str, ...], DictConfig] = {}

    @contextlib.contextmanager
    def __call__(self, words: Sequence[str], *callbacks: Callback) -> Iterator[Training]:
        """Their lines don't reach the terminal.

        Raises:
            ValueError: if a word can't be.
        """
        with tempfile.TemporaryDirectory() as folder, logs.off_terminal():
            session = build_training(self._compose(tuple(words)), Run(Path(folder)), extra_callbacks=callbacks)
            set_up(session)
            yield session
        del session
        gc.collect()  # Trainer and callbacks know each other, and with them 50 MB of images

    def _compose(self, words: tuple[str, ...]) -> DictConfig:
        """The config, which takes half a second, once for all turns."""
        if words not in self._composed:
            try:
                self._composed[words] = compose("train", [*self.words, "pictures=none", *words])
            except HydraException as error:
                raise ValueError(f"{self.keys}{one_line(error)}") from error
        return self._composed[words]


def check_words(bench: Bench, what: Sequence[str]) -> None:
    """Builds once what will be trained, so that a mistake shows before anything is measured.

    Raises:
        ValueError: naming what can't be.
    """
    trained: list[Sequence[str]] = [[]] if {*what} - {"input", "training", "arithmetic"} else []
    trained += bench.networks if "training" in what else []
    trained += bench.arithmetic_networks if "arithmetic" in what else []
    for words in trained:
        with bench.open_session(words) as session:
            whole_batches(session, bench.train_images)
