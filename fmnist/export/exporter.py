"""From a network to the files of a folder, each compared with the network before it counts."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmnist.evaluation.unfamiliar import Detector
from fmnist.export import files, quantize
from fmnist.export.check import LARGE, SIZES, Reference, other_classes
from fmnist.export.describe import KNOWN, ExportedFile, texts
from fmnist.export.files import CONFIG, NAMES, Format, Run
from fmnist.export.graph import PixelsToProbabilities
from fmnist.export.latency import interleaved
from fmnist.export.usage import example_of, example_text, preprocess_text
from fmnist.plotting.terminal import as_text, grid
from fmnist.runs.files import atomic_write, sha256, write_json

log = logging.getLogger(__name__)

RUNTIMES: Mapping[str, str] = {"onnx": "onnxruntime", "torch_export": "PyTorch"}
NETWORK = "the network"


@dataclass(frozen=True)
class Exporter:
    """Writes the files of an export.

    Args:
        model: what is exported.
        reference: its outputs for images.
        labels: of the images (N), or None for random images.
        description: see `describe`.
        detector: of images unlike the training images; None for none.
    """

    model: PixelsToProbabilities
    reference: Reference
    labels: Tensor | None
    description: Mapping[str, Any]
    detector: Detector | None = None

    def write(self, folder: Path, formats: Sequence[Format], calibration: Tensor | None) -> list[ExportedFile]:
        """Write all files but the model card, and return those that hold the network.

        Args:
            folder: an empty one.
            formats: of the files.
            calibration: images (N, C, H, W), uint8, for an ONNX file of 8 bits; None for none.

        Raises:
            ValueError: if a file can't be made, or gives something else than the network.
        """
        write_json(folder / CONFIG, dict(self.description))  # from which the weights' network is built again
        graphs = [form for form in formats if form != "safetensors"]
        traced = self.model.trace(graphs[0]) if graphs else None
        runs: dict[str, Run] = {}
        differences: dict[str, float] = {}
        for form in formats:
            name = NAMES[form]
            files.write(form, folder / name, self.model, traced, texts(self.description))
            runs[name] = files.read(form, folder)
            differences[name] = self.reference.compare(runs[name], name, exactly=form != "onnx")
            log.info("%s: %s", name, self.checked(differences[name]))
        accuracy = self.accuracy(self.reference.probabilities)
        accuracies: dict[str, float | None] = dict.fromkeys([NETWORK, *runs], accuracy)
        if calibration is not None:
            runs[quantize.FILE], accuracies[quantize.FILE] = self.write_int8(folder, calibration)
        seconds = self.latencies(runs)
        self.log_table(folder, runs, accuracies, seconds)
        written = [
            self.exported(folder / name, accuracies[name], differences.get(name), seconds.get(name, {}))
            for name in runs
        ]
        self.write_usage(folder)
        entries = {
            file.name: {
                "bytes": file.size,
                "sha256": file.sha256,
                "accuracy": file.accuracy,
                "difference": file.difference,
            }
            for file in written
        }
        write_json(folder / CONFIG, {**self.description, "checked_on": self.images, "files": entries})
        return written

    def write_int8(self, folder: Path, calibration: Tensor) -> tuple[Run, float | None]:
        """Write the ONNX file of 8 bits; return what runs it, and its accuracy."""
        file = folder / quantize.FILE
        quantize.quantize(folder / NAMES["onnx"], file, self.model.in_layout(calibration))
        run = files.session(file)
        outputs = self.reference.run(run, file.name)[: self.reference.parts]
        found = torch.cat([probabilities for probabilities, _ in outputs])
        changed = other_classes(found, self.reference.probabilities).double().mean().item()
        log.info("%s: another class than in float32 for %.2f%% of %s", file.name, 100 * changed, self.images)
        return run, self.accuracy(found)

    def accuracy(self, probabilities: Tensor) -> float | None:
        """Return the fraction of images that probabilities (N, K) classify correctly; None for random images."""
        if self.labels is None:
            return None
        return (probabilities.argmax(dim=1) == self.labels).double().mean().item()

    @property
    def images(self) -> str:
        """On which images the files are compared with the network."""
        kind = "random" if self.labels is None else "test"
        return f"{len(self.reference.probabilities):,} {kind} images"

    def checked(self, difference: float) -> str:
        """Return what a comparison has shown."""
        same = f"within {difference:.1e}" if difference else "to the last bit"
        return f"same classes, outputs {same}, on {self.images}"

    def latencies(self, runs: Mapping[str, Run]) -> dict[str, dict[int, float]]:
        """Return the median seconds of the network and of each ONNX file, by the number of images."""
        timed = {NETWORK: self.model.run} | {name: run for name, run in runs.items() if name.endswith(".onnx")}
        found: dict[str, dict[int, float]] = {name: {} for name in timed}
        for size in (1, LARGE):
            images = self.reference.batches[self.reference.parts + SIZES.index(size)]
            for name, seconds in interleaved({name: partial(run, images) for name, run in timed.items()}).items():
                found[name][size] = seconds
        return found

    def log_table(
        self,
        folder: Path,
        runs: Mapping[str, Run],
        accuracies: Mapping[str, float | None],
        seconds: Mapping[str, Mapping[int, float]],
    ) -> None:
        """Log accuracy, size and latency of the network and of each file."""
        rows = []
        for name in (NETWORK, *runs):
            accuracy, times = accuracies[name], seconds.get(name, {})
            size = "" if name == NETWORK else f"{(folder / name).stat().st_size / 2**20:.2f}"
            shown = [f"{1000 * times[count]:.2f}" if times else "" for count in (1, LARGE)]
            runtime = "PyTorch" if name == NETWORK else runtime_of(name) or ""
            rows.append([name, runtime, "" if accuracy is None else f"{100 * accuracy:.2f}", size, *shown])
        headings = ["file", "run by", "accuracy\n(%)", "MiB", "1 image\n(ms)", f"{LARGE:,} images\n(ms)"]
        log.info("%s", as_text(grid(headings, rows, words=["file", "run by"])))
        threads = torch.get_num_threads()
        log.info("ms: medians, interleaved, on %d thread%s of this CPU", threads, "s" if threads > 1 else "")

    def exported(
        self, file: Path, accuracy: float | None, difference: float | None, seconds: Mapping[int, float]
    ) -> ExportedFile:
        """Return the facts of a file."""
        return ExportedFile(
            file.name, runtime_of(file.name), file.stat().st_size, sha256(file), accuracy, difference, seconds
        )

    def write_usage(self, folder: Path) -> None:
        """Write what to do with a picture, the known features, and a program that runs one of the files."""
        dataset, layout, shape = self.model.dataset, self.model.layout, self.model.input_shape
        atomic_write(folder / "preprocess.md", preprocess_text(dataset, layout, shape))
        if self.detector is not None:
            np.save(folder / KNOWN, self.detector.known.numpy())
        form = example_of([file.name for file in folder.iterdir()])
        if form is not None:
            atomic_write(folder / "example.py", example_text(form, marked=self.detector is not None))


def runtime_of(name: str) -> str | None:
    """Return what runs a file; None for one that holds weights alone."""
    return RUNTIMES["onnx"] if name.endswith(".onnx") else RUNTIMES["torch_export"] if name.endswith(".pt2") else None
