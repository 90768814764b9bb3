"""Callbacks: the table of the epochs, checkpoints, pictures, interruption, the progress bar, averaged weights."""

from fmnist.training.callbacks.averaged_weights import AveragedWeights
from fmnist.training.callbacks.checkpointing import (
    KeepCheckpoint,
    LastCheckpoint,
    RandomStates,
    RegularCheckpoint,
    RunConfig,
)
from fmnist.training.callbacks.divergence import Divergence, Pruning, TrainingDiverged, TrainingPruned
from fmnist.training.callbacks.history import History, RecordSampleStats, StepLoss
from fmnist.training.callbacks.interruption import Interruption, TrainingInterrupted
from fmnist.training.callbacks.pictures import Pictures
from fmnist.training.callbacks.progress import progress_bar

__all__ = [
    "AveragedWeights",
    "Divergence",
    "History",
    "Interruption",
    "KeepCheckpoint",
    "LastCheckpoint",
    "Pictures",
    "Pruning",
    "RandomStates",
    "RecordSampleStats",
    "RegularCheckpoint",
    "RunConfig",
    "StepLoss",
    "TrainingDiverged",
    "TrainingInterrupted",
    "TrainingPruned",
    "progress_bar",
]
