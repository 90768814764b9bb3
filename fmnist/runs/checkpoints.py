"""Checkpoints on disk: replaced as a whole, and read without running any code that they hold."""

import io
import logging
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn

from fmnist.config.errors import is_out_of_memory
from fmnist.runs.files import atomic_path

log = logging.getLogger(__name__)

ZIP = b"PK\3\4"
"""The first bytes of an archive."""

# Keys of a checkpoint:
CONFIG_KEY = "fmnist_config"  # the run's resolved config, as plain values: enough to build everything again
DATASET_KEY = "fmnist_dataset"  # the dataset's description, `DatasetInfo.to_dict`
CALIBRATION_KEY = "fmnist_calibration"  # `Calibrator.to_dict`, after the end of the training
DETECTOR_KEY = "fmnist_detector"  # `Detector.to_dict`, after the end of the training
CURRENT_KEY = "current_model_state"  # the weights to train on with, if `state_dict` holds averaged ones; Lightning's
NETWORK = "network."  # the prefix of the network's names in `state_dict`


class AtomicCheckpointIO(TorchCheckpointIO):
    """Save checkpoints so that a file with a checkpoint's name is always complete.

    Args:
        kept: files whose old version is kept, and its name.
    """

    def __init__(self, kept: Mapping[Path, Path] | None = None) -> None:
        super().__init__()
        self.kept = kept or {}

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        assert storage_options is None
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()  # torch replaces the error of a full disk by one of its own
        torch.save(checkpoint, content)
        with atomic_path(path, keep=self.kept.get(path)) as temporary, temporary.open("xb") as file:
            file.write(content.getbuffer())

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> Any:
        return load(Path(path), map_location)


def load(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Return the content of a checkpoint of this project: tensors and plain values.

    Raises:
        ValueError: if there is no such file, its content is damaged, or it is no checkpoint of this project.
        OSError: if the disk can't read it, which says nothing about its content.
    """
    if not path.is_file():
        raise ValueError(f"there is no checkpoint {path}")
    content = io.BytesIO(_read_archive(path))  # zipfile and torch replace some errors of a disk by their own
    try:
        check_archive(content, content.getbuffer().nbytes)
        content.seek(0)
        checkpoint = torch.load(content, map_location=map_location, weights_only=True)
    except Exception as error:  # damaged files make torch raise almost anything: IndexError, struct.error, ...
        if is_out_of_memory(error):
            raise
        raise ValueError(f"{path} is not a readable checkpoint: truncated, damaged or something else") from error
    if not isinstance(checkpoint, dict) or not {CONFIG_KEY, "state_dict"} <= checkpoint.keys():
        raise ValueError(f"{path} is not a checkpoint of this project: it has no {CONFIG_KEY} or no state_dict")
    return checkpoint


def _read_archive(path: Path) -> bytes:
    """Return a file's content; nothing of a file that is no archive, which may be larger than the memory."""
    try:
        with path.open("rb") as file:
            is_archive = file.read(len(ZIP)) == ZIP
            file.seek(0)
            return file.read() if is_archive else b""
    except OSError as error:
        error.filename = str(path)  # an error in reading has none
        raise


def check_archive(file: IO[bytes], size: int) -> None:
    """Refuse an archive that needs more memory than disk: torch stores each tensor once, uncompressed.

    Also refuse what isn't an archive: old formats of torch allocate memory before they read.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("it is compressed")
    if sum(max(entry.file_size, entry.compress_size) for entry in entries) > size:
        raise ValueError("its parts overlap")


def add(path: Path, **entries: Any) -> None:
    """Add entries to the content of a checkpoint.

    Raises:
        ValueError: if it is damaged.
        OSError: if the disk can't read or write it; it stays as it was.
    """
    AtomicCheckpointIO().save_checkpoint(load(path) | entries, path)


def load_newest(files: Sequence[Path]) -> tuple[Path, dict[str, Any]] | None:
    """Return the first file that exists and is undamaged, and its content; None if no file exists.

    Args:
        files: the newest first. Damaged ones are named in a warning.

    Raises:
        ValueError: if all files that exist are damaged.
        OSError: if the disk can't read a file.
    """
    damaged: ValueError | None = None
    for file in filter(Path.is_file, files):
        try:
            checkpoint = load(file)
        except ValueError as error:
            damaged = damaged or error
        else:
            if damaged:
                log.warning("%s; resuming from the one before, %s", damaged, file.name)
            return file, checkpoint
    if damaged:
        raise damaged
    return None


def restore_network(network: nn.Module, checkpoint: dict[str, Any], assign: bool = False) -> None:
    """Load the weights of a checkpoint into the network of its config.

    Args:
        assign: the network takes the tensors themselves, as one on the meta device must, and not their values.

    Raises:
        ValueError: if they belong to another network.
    """
    try:
        network.load_state_dict(network_weights(checkpoint), assign=assign)
    except RuntimeError as error:
        heading, *problems = str(error).split("\n\t")  # maybe one for each parameter
        problem = (problems or [heading])[0].strip()[:300]
        raise ValueError(f"the weights don't fit the network of the config: {problem}") from error


def network_weights(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the network's part of `state_dict`, under the names that the network gives its parameters.

    Raises:
        ValueError: if it isn't a mapping of names to dense tensors.
    """
    state = checkpoint["state_dict"]
    if not isinstance(state, dict):
        raise ValueError("the weights of the checkpoint are not a mapping")
    weights = {
        name.removeprefix(NETWORK): value
        for name, value in state.items()
        if isinstance(name, str) and name.startswith(NETWORK)
    }
    for name, value in weights.items():
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_meta:
            raise ValueError(f"the checkpoint holds no weights for {name}")
        if value.untyped_storage().nbytes() < value.nbytes:  # an expanded tensor, which would need more memory
            raise ValueError(f"the checkpoint holds only a part of the weights for {name}")
    return weights
