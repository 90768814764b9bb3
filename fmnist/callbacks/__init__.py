"""What happens around training: the table of its epochs, checkpoints, pictures, interruption, the progress bar."""

from fmnist.callbacks.history import History
from fmnist.callbacks.interruption import Interruption, TrainingInterrupted
from fmnist.callbacks.keep_checkpoint import KeepCheckpoint
from fmnist.callbacks.pictures import Pictures
from fmnist.callbacks.progress import Progress
from fmnist.callbacks.pruning import Pruning, TrainingPruned
from fmnist.callbacks.random_states import RandomStates
from fmnist.callbacks.run_config import RunConfig

__all__ = [
    "History",
    "Interruption",
    "KeepCheckpoint",
    "Pictures",
    "Progress",
    "Pruning",
    "RandomStates",
    "RunConfig",
    "TrainingInterrupted",
    "TrainingPruned",
]
