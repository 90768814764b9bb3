"""A part of an epoch: by the tutorials' own loop, by scripts/train.py's Trainer, and by hand over tensors."""

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from fmnist.training.train import Training
from tools.benchmarks.bench import Bench, title, whole_batches
from tools.benchmarks.clocks import EpochClock
from tools.benchmarks.turns import contest
from tools.benchmarks.usual import Epoch, usual_loader, usual_loop

ONE_EPOCH = ("trainer.max_epochs=1", "trainer.check_val_every_n_epoch=2")
"""Without validation: a part of an epoch would pay for a whole one."""
USUAL = "usual loop, 32-true"


def compare(bench: Bench) -> dict[str, Any]:
    """Images per second of each network, all ways with the same number of images in a turn."""
    return {title(words): race(bench, title(words), words) for words in bench.networks}


def race(bench: Bench, name: str, words: Sequence[str]) -> dict[str, Any]:
    """One network: the usual loop, then ours and a loop by hand in each precision."""

    def way(epoch: Callable[[Training, EpochClock, int], Epoch], precision: str) -> Callable[[], float]:
        def measure() -> float:
            clock = EpochClock()
            with bench.open_session([*words, *ONE_EPOCH, f"trainer.precision={precision}"], clock) as session:
                images, seconds = epoch(session, clock, whole_batches(session, bench.train_images))
            return images / seconds

        return measure

    ways = {USUAL: way(usual_epoch, "32-true")}
    against: dict[str, dict[str, str]] = {}
    for precision in bench.precisions:
        ours, by_hand = f"ours, {precision}", f"by hand, {precision}"
        ways |= {ours: way(trainer_epoch, precision), by_hand: way(epoch_by_hand, precision)}
        against |= {ours: {"usual": USUAL, "by hand": by_hand}, by_hand: {"usual": USUAL}}
    return contest(f"training, {name}", ways, bench.repetitions, against)


def trainer_epoch(session: Training, clock: EpochClock, batches: int) -> Epoch:
    """As scripts/train.py does it, from the epoch's first batch to its row in the history."""
    session.trainer.limit_train_batches = batches
    session.trainer.fit(session.classifier, session.datamodule)
    return Epoch(session.history.images, clock.seconds)


def usual_epoch(session: Training, clock: EpochClock | None, batches: int) -> Epoch:  # noqa: ARG001 (as the others)
    """The same network, loss, optimizer and batch size as the tutorials train them: the images one by one from a
    DataLoader, the loop as everybody writes it."""
    classifier, datamodule = session.classifier, session.datamodule
    loader = usual_loader(datamodule.root, datamodule.batch_size, datamodule.augment)
    return usual_loop(classifier.network, classifier.loss, classifier.optimizer, loader, batches)


def epoch_by_hand(session: Training, clock: EpochClock | None, batches: int) -> Epoch:  # noqa: ARG001 (as the others)
    """The same network, optimizer, schedule, batches and precision as the Trainer's, without it."""
    network, loss_function, datamodule = session.classifier.network, session.classifier.loss, session.datamodule
    loader = datamodule.train_dataloader()
    optimizer = session.classifier.optimizer(network.parameters())
    schedule = LambdaLR(optimizer, lambda step: session.classifier.schedule(step, batches))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=session.trainer.precision == "bf16-mixed")
    network.train()
    start, images_seen = time.perf_counter(), 0
    for batch in itertools.islice(loader, batches):
        images, labels = datamodule.prepared(batch, training=True)
        with autocast:
            loss = loss_function(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        images_seen += len(labels)
    return Epoch(images_seen, time.perf_counter() - start)
