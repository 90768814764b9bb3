"""Lightning's choice of checkpoints, in folders that may be moved."""

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint


class KeepCheckpoint(ModelCheckpoint):
    """Keeps one checkpoint in one file, also after its folder was moved or copied.

    Lightning's `ModelCheckpoint` forgets its best score when the folder has another name than the checkpoint says.

    Args:
        file: where the checkpoint is kept.
        choice: arguments of ModelCheckpoint: which checkpoint, and when.
    """

    def __init__(self, file: Path, **choice: Any) -> None:
        super().__init__(file.parent, file.stem, enable_version_counter=False, **choice)
        self.file = file

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        def here(path: str) -> str:
            return str(self.file) if path else path  # never the stored one: Lightning may remove the file at this path

        paths = {name: here(state_dict[name]) for name in state_dict if name.endswith("_model_path")}
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "dirpath": str(self.dirpath), "best_k_models": best})
