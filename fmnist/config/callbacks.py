"""The callbacks of the config, and which of Lightning's own don't go with a run."""

import os
import re

from lightning.pytorch import Callback, callbacks
from omegaconf import DictConfig, OmegaConf

from fmnist.config.instantiate import build, find_target, plain_config
from fmnist.training.callbacks import AveragedWeights
from fmnist.training.metric_names import direction

OWN_FILES = ("best", "last", "previous")
"""Names of a run's own checkpoints."""
REFUSED: dict[type[Callback], str] = {
    callbacks.BaseFinetuning: "no network here has a backbone to freeze",
    callbacks.BasePredictionWriter: "a training predicts nothing; scripts/predict.py writes predictions",
    callbacks.BatchSizeFinder: "config.yaml would name another batch size than it trains with: sweep=batch_size",
    callbacks.GradientAccumulationScheduler: "schedules count on as many steps in each epoch: "
    "trainer.accumulate_grad_batches=N",
    callbacks.LambdaCallback: "a config holds no functions",
    callbacks.LearningRateFinder: "config.yaml would name another learning rate than it trains with: "
    "sweep=learning_rate",
    callbacks.ModelPruning: "no checkpoint holds its masks, and a resumed run would prune again",
    callbacks.ModelSummary: "the report has the layers",
    callbacks.OnExceptionCheckpoint: "a run writes only in its own folder: checkpoint_every_n_steps=N",
    callbacks.ProgressBar: "trainer.enable_progress_bar=true shows one on a terminal",
    callbacks.SpikeDetection: "it writes outside of the run's folder; stop_on_nan=true ends a training that diverges",
    callbacks.StochasticWeightAveraging: "no checkpoint holds its average; callbacks=ema averages weights",
    callbacks.ThroughputMonitor: "a config holds no functions, which it needs; metrics.csv has images_per_second",
    callbacks.WeightAveraging: "with a late start it validates the initial weights; callbacks=ema averages weights",
}
"""Why a callback is refused, and what to take instead; the same holds for the classes that descend from it."""


def build_callbacks(cfg: DictConfig) -> list[Callback]:
    """Build the callbacks of the config; one that is `_partial_` gets the monitored metric and its direction.

    Raises:
        ValueError: naming the callback that can't be built, or doesn't go with a run.
    """
    return [build_callback(f"callbacks.{name!s}", node, cfg) for name, node in cfg.callbacks.items()]


def build_callback(key: str, node: DictConfig, cfg: DictConfig) -> Callback:
    """Build one callback; arguments and errors as for `build_callbacks`."""
    monitored = {}
    if isinstance(node, DictConfig):  # `build` refuses other values
        check_callback(key, node)
        arguments = plain_config(node)
        if arguments.pop("_partial_", False):
            if not cfg.data.val_size:
                raise ValueError(f"{key} monitors {cfg.monitor}, but there are no validation images (data.val_size=0)")
            monitored = {"monitor": cfg.monitor, "mode": direction(cfg.monitor)}
        node = OmegaConf.create(arguments)
    callback: Callback = build(key, node, Callback, **monitored)
    return callback


def check_callback(key: str, node: DictConfig) -> None:
    """Refuse a callback that doesn't go with a run.

    Raises:
        ValueError: naming the callback, or its argument.
    """
    for argument, value in plain_config(node).items():
        if re.search("path|dir", argument) or ("file" in argument and os.sep in str(value)):
            raise ValueError(f"{key}.{argument}={value}: a run writes only in its own folder")
    target = find_target(key, str(node.get("_target_")), Callback)
    assert isinstance(target, type)
    for refused, reason in REFUSED.items():
        if issubclass(target, refused) and not issubclass(target, AveragedWeights):
            raise ValueError(f"{key}._target_={node._target_}: {reason}")
    if issubclass(target, callbacks.ModelCheckpoint) and (node.get("save_last") or node.get("filename") in OWN_FILES):
        raise ValueError(f"{key}: a run keeps best.ckpt and last.ckpt itself: without save_last, and another filename")
