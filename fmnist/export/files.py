"""The files of an export: each format is written, read back, and run."""

import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, get_args

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.export import ExportedProgram

from fmnist.config.build import build_network
from fmnist.data.info import DatasetInfo
from fmnist.export.graph import INPUT, OUTPUTS, Layout, Outputs, PixelsToProbabilities, plain_state, quiet, refusal
from fmnist.runs import untrusted
from fmnist.runs.files import load_json

Format = Literal["onnx", "torch_export", "safetensors"]
Run = Callable[[Tensor], Outputs]
"""Maps images, uint8, to probabilities and features."""
NAMES: Mapping[str, str] = {"onnx": "model.onnx", "torch_export": "model.pt2", "safetensors": "model.safetensors"}
CONFIG = "config.json"
EXTRA = "export"
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "torch_export": (),
    "safetensors": ("safetensors",),
}
"""The optional packages of each format."""


def need(key: str, *packages: str, extra: str = EXTRA) -> None:
    """Refuse what takes a package that isn't installed.

    Args:
        key: with its value, for the message.
        extra: which has the packages.

    Raises:
        ValueError: naming the package and the extra that has it.
    """
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ValueError(
                f'{key}: needs {package}: `make extras` installs it, or pip install "fmnist[{extra}]"'
            ) from error


def write(
    form: Format, file: Path, model: PixelsToProbabilities, traced: ExportedProgram | None, metadata: dict[str, str]
) -> None:
    """Write a file in a format.

    Args:
        traced: the model's graph, for the formats that hold one.
        metadata: texts by name.

    Raises:
        ValueError: if the network has an operation that the format lacks.
    """
    if form == "safetensors":
        from safetensors.torch import save

        file.write_bytes(save(plain_state(model.network), metadata))
        return
    assert traced is not None
    if form == "torch_export":
        with quiet():  # it warns of weights in channels-last order, which it saves correctly
            torch.export.save(traced, file, extra_files={CONFIG: json.dumps(metadata)})
        return
    try:
        with quiet():
            program = torch.onnx.export(
                traced, dynamo=True, input_names=[INPUT], output_names=OUTPUTS, verbose=False, external_data=False
            )
            assert program is not None
            program.model.metadata_props.update(metadata)
            for node in program.model.graph.all_nodes():
                node.metadata_props.clear()  # names of Python's modules and lines of source code
            program.save(file, external_data=False)
    except Exception as error:  # of an operation that ONNX lacks, in any network
        raise refusal(form, model.network, error) from error


def read(form: Format, folder: Path) -> Run:
    """Return what runs an exported file.

    Raises:
        ValueError: if the file doesn't hold what was exported.
    """
    file = folder / NAMES[form]
    if form == "onnx":
        return session(file)
    if form == "torch_export":
        module = torch.export.load(file).module()
        return torch.inference_mode()(module)
    network, dataset, temperature, layout = rebuild(folder)
    return PixelsToProbabilities(network, dataset, temperature, layout).run


def session(file: Path) -> Run:
    """Return what runs an ONNX file with onnxruntime, on as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    # Its threads would wait busily for the next batch, and slow down torch's, with which they take turns.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    loaded = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Outputs:
        probabilities, features = loaded.run(OUTPUTS, {INPUT: images.numpy()})
        return torch.from_numpy(probabilities), torch.from_numpy(features)

    return run


def rebuild(folder: Path) -> tuple[nn.Module, DatasetInfo, float, Layout]:
    """Return the network of an exported folder with its weights, its dataset, the temperature and the layout.

    Nothing in the folder is executed: the network is one of this project, its weights are tensors.

    Raises:
        ValueError: if config.json or the weights are damaged, or don't fit each other.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = load_json(folder / CONFIG)
    try:
        node, temperature, layout = config["network"], float(config["temperature"]), config["layout"]
        untrusted.check_plain(node)
        if layout not in get_args(Layout):
            raise ValueError(f"layout={layout}: must be one of {', '.join(get_args(Layout))}")
        dataset = DatasetInfo.from_dict(config.get("dataset"))
        network = build_network(OmegaConf.create(node), dataset)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG}: {' '.join(str(error).split())[:300]}") from error
    try:
        network.load_state_dict(load_file(folder / NAMES["safetensors"]))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{folder / NAMES['safetensors']}: {' '.join(str(error).split())[:300]}") from error
    network = network.to(memory_format=torch.channels_last)  # as in a training, for the same sums
    return network.eval(), dataset, temperature, layout
