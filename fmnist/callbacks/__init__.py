"""What happens around training: the table of its epochs, checkpoints, pictures, interruption, the progress bar.

And, where they are asked for, averaged weights.
"""

from fmnist.callbacks.averaged_weights import AveragedWeights
from fmnist.callbacks.divergence import Divergence, TrainingDiverged
from fmnist.callbacks.history import History
from fmnist.callbacks.interruption import Interruption, TrainingInterrupted
from fmnist.callbacks.keep_checkpoint import KeepCheckpoint
from fmnist.callbacks.pictures import Pictures
from fmnist.callbacks.progress import Progress
from fmnist.callbacks.pruning import Pruning, TrainingPruned
from fmnist.callbacks.random_states import RandomStates
from fmnist.callbacks.regular_checkpoint import RegularCheckpoint
from fmnist.callbacks.run_config import RunConfig

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
    "RegularCheckpoint",
    "RunConfig",
    "TrainingDiverged",
    "TrainingInterrupted",
    "TrainingPruned",
]
