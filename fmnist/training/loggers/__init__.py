"""Lightning's loggers of W&B, MLflow, Comet and CSV as the runs of this project use them.

Where a tracker is and who is allowed to write there comes from the environment alone, by each package's own variables:
a config holds no address and no key, so that none reaches a run folder, and none is followed from somebody else's.
"""

from fmnist.training.loggers.base import VARIABLES, Place, TrackerLogger
from fmnist.training.loggers.comet import Comet
from fmnist.training.loggers.mlflow import Mlflow, mlflow_name
from fmnist.training.loggers.table import Csv
from fmnist.training.loggers.wandb import Wandb

__all__ = ["VARIABLES", "Comet", "Csv", "Mlflow", "Place", "TrackerLogger", "Wandb", "mlflow_name"]
