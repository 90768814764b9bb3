"""Checkpoints on disk: written whole or not at all, read without running anything that stands in them."""

import io
import logging
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn

from fmnist.runs.files import atomic_path

log = logging.getLogger(__name__)

CONFIG_KEY = "fmnist_config"
"""Where a checkpoint holds the resolved config of its run, as plain values: enough to build everything again."""
DATASET_KEY = "fmnist_dataset"
"""Where it holds the facts of the dataset, as plain values."""
CURRENT_KEY = "current_model_state"
"""Where it holds the network's weights to go on with, if those of its state are averaged ones; Lightning's name."""
NETWORK = "network."
"""What the names of the network's own part of a state begin with."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside, flushes and renames, so that the file with a checkpoint's name is always a complete one.

    Args:
        kept: by file, the name under which the one that stood there before stays.
    """

    def __init__(self, kept: Mapping[Path, Path] | None = None) -> None:
        super().__init__()
        self.kept = kept or {}

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        assert storage_options is None
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()  # torch would hide the error of a full disk in one of its own
        torch.save(checkpoint, content)
        with atomic_path(path) as beside:
            with beside.open("xb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            if path in self.kept and path.is_file():
                path.replace(self.kept[path])

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> Any:
        return load(Path(path), map_location)


def load(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """A checkpoint of this project: tensors and plain values, nothing that is run.

    Raises:
        ValueError: if the file isn't there, isn't a checkpoint of this project, or is damaged.
    """
    if not path.is_file():
        raise ValueError(f"there is no checkpoint {path}")
    try:
        check_archive(path)
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # on damaged files torch raises almost anything: IndexError, struct.error, ...
        raise ValueError(f"{path} is not a readable checkpoint: truncated, damaged or something else") from error
    if not isinstance(checkpoint, dict) or not {CONFIG_KEY, "state_dict"} <= checkpoint.keys():
        raise ValueError(f"{path} is not a checkpoint of this project: it holds no config to build its network from")
    return checkpoint


def check_archive(path: Path) -> None:
    """Refuses a file that would be more in memory than on disk: torch stores tensors as they are, each once.

    Raises:
        ValueError: if it isn't as torch writes it; what is no archive at all would be allocated before it is read.
        zipfile.BadZipFile: likewise.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("it is compressed")
    if sum(max(entry.file_size, entry.compress_size) for entry in entries) > path.stat().st_size:
        raise ValueError("its parts overlap")


def load_newest(files: Sequence[Path]) -> tuple[Path, dict[str, Any]] | None:
    """The first of the files that is there and whole, newest first; a damaged one is named, and the next one taken.

    Raises:
        ValueError: if there are files, and all are damaged.
    """
    damaged: ValueError | None = None
    for file in files:
        if not file.is_file():
            continue
        try:
            checkpoint = load(file)
        except ValueError as error:
            damaged = damaged or error
        else:
            if damaged:
                log.warning("%s; going back to the one before, %s", damaged, file.name)
            return file, checkpoint
    if damaged:
        raise damaged
    return None


def restore_network(network: nn.Module, checkpoint: dict[str, Any]) -> None:
    """Puts the weights of a checkpoint into its network.

    Raises:
        ValueError: if they are another network's.
    """
    try:
        network.load_state_dict(network_weights(checkpoint))
    except RuntimeError as error:
        raise ValueError(f"the weights don't fit the network of the config: {' '.join(str(error).split())}") from error


def check_weights(network: nn.Module, checkpoint: dict[str, Any]) -> None:
    """Refuses weights that aren't the network's, by names and shapes alone: it may be one without memory.

    Raises:
        ValueError: naming the first that isn't.
    """
    there, wanted = network_weights(checkpoint), network.state_dict()
    for name in [*wanted, *there]:
        found = [str(list(state[name].shape)) if name in state else "nothing" for state in (there, wanted)]
        if found[0] != found[1]:
            raise ValueError(
                f"the weights don't fit the network of the config: {name} is {found[0]} in the checkpoint, "
                f"and {found[1]} in the network"
            )
        if there[name].untyped_storage().nbytes() < there[name].nbytes or there[name].is_meta:
            raise ValueError(f"the weights of {name} aren't all in the checkpoint")


def network_weights(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The network's own part of the state, under the names that the network gives its parameters."""
    state = checkpoint["state_dict"]
    if not isinstance(state, dict):
        raise ValueError("the weights of the checkpoint have no names")
    weights = {
        name.removeprefix(NETWORK): value
        for name, value in state.items()
        if isinstance(name, str) and name.startswith(NETWORK)
    }
    if not all(isinstance(value, torch.Tensor) and value.layout == torch.strided for value in weights.values()):
        raise ValueError("the weights of the checkpoint aren't all tensors")
    return weights
