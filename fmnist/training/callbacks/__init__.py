"""Callbacks: the table of the epochs, checkpoints, pictures, interruption, the progress bar, averaged weights."""

from fmnist.training.callbacks.averaged_weights import AveragedWeights
from fmnist.training.callbacks.divergence import Divergence, TrainingDiverged
from fmnist.training.callbacks.history import History
from fmnist.training.callbacks.interruption import Interruption, TrainingInterrupted
from fmnist.training.callbacks.keep_checkpoint import KeepCheckpoint
from fmnist.training.callbacks.pictures import Pictures
from fmnist.training.callbacks.progress import Progress
from fmnist.training.callbacks.pruning import Pruning, TrainingPruned
from fmnist.training.callbacks.random_states import RandomStates
from fmnist.training.callbacks.regular_checkpoint import RegularCheckpoint
from fmnist.training.callbacks.run_config import RunConfig
from fmnist.training.callbacks.sample_stats import RecordSampleStats
from fmnist.training.callbacks.step_loss import StepLoss

__all__ = [
    "AveragedWeights",
    "Divergence",
    "History",
    "Interruption",
    "KeepCheckpoint",
    "Pictures",
    "Progress",
    "Pruning",
    "RandomStates",
    "RecordSampleStats",
    "RegularCheckpoint",
    "RunConfig",
    "StepLoss",
    "TrainingDiverged",
    "TrainingInterrupted",
    "TrainingPruned",
]
