"""scripts/export.py as a user runs it, and the files that it writes."""

import ast
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import synthetic
import torch
from conftest import Done, RunScript
from test_options import composed, need
from torch import Tensor, nn

from fmnist.config import build, instantiate
from fmnist.config.help import options
from fmnist.config.restore import restore
from fmnist.data.info import FASHION_MNIST, DatasetInfo
from fmnist.evaluation.robustness import Robustness, Scores
from fmnist.evaluation.unfamiliar import features_and_logits
from fmnist.export import card, check, describe, exporter, files, folder, latency, quantize, usage
from fmnist.export.graph import PixelsToProbabilities
from fmnist.models import CNN
from fmnist.runs import checkpoints
from fmnist.runs.files import sha256

IMAGES, LABELS = synthetic.make(synthetic.TEST, seed=1)  # the test split of the run
PIXELS = IMAGES[:, None]
CLASSES = FASHION_MNIST.classes
ONNX_FILES = ("model.onnx", "model.int8.onnx")
BLOCKED = """
import runpy, sys
for name in ("torch", "lightning", "fmnist"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a program as where torch and this project aren't installed."""


@pytest.fixture(autouse=True)
def quick_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "FEWEST", 1)
    monkeypatch.setattr(latency, "MOST", 1)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """What the tests of this module share."""
    return SimpleNamespace(folder=tmp_path_factory.mktemp("export"), done=None)


@pytest.fixture
def run(kept: SimpleNamespace, train: RunScript) -> Path:
    """A run that was trained in bf16, to be read only."""
    place: Path = kept.folder / "2026-01-01_00-00-00"
    if not place.exists():
        done = train("trainer.precision=bf16-mixed", "trainer.max_epochs=1", "trainer.limit_train_batches=4", "seed=1")
        assert done.status == 0, done.err
        shutil.copytree(done.run, place)
    return place


@pytest.fixture
def exported(kept: SimpleNamespace, run: Path, run_script: RunScript) -> Path:
    """The folder that the whole command has made of the run, to be read only."""
    pytest.importorskip("onnxruntime")
    place: Path = kept.folder / "exported"
    if kept.done is None:
        words = ("format=[onnx,torch_export,safetensors]", "quantize=int8", f"output={place}")
        kept.done = run_script("export", f"run={run}", *words)
    assert (kept.done.status, kept.done.err) == (0, "")
    return place


@pytest.fixture
def network_of(run: Path) -> Callable[[], Tensor]:
    """Returns the probabilities of the test images by the network in float32 and its calibration."""

    def probabilities() -> Tensor:
        _, classifier, dataset, calibrator, _ = restore(run / "checkpoints" / "best.ckpt", "cpu")
        assert calibrator is not None
        with torch.inference_mode():
            return calibrator.probabilities(classifier.network.eval()(dataset.normalise(PIXELS)))

    return probabilities


def small_model(layout: Any = "nchw", temperature: float = 1.5) -> PixelsToProbabilities:
    torch.manual_seed(0)
    return PixelsToProbabilities(CNN((1, 28, 28), 10, channels=[4]), FASHION_MNIST, temperature, layout)


@pytest.mark.extras
def test_onnx_file_takes_bytes_and_gives_the_calibrated_probabilities(
    exported: Path, network_of: Callable[[], Tensor]
) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(exported / "model.onnx"))
    (given,), (returned, other) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape[1:]) == ("images", "tensor(uint8)", [1, 28, 28])
    assert (returned.name, returned.type, returned.shape[1:]) == ("probabilities", "tensor(float)", [10])
    assert (other.name, other.type) == ("features", "tensor(float)")
    expected = network_of()
    for count in (1, 2, 200):
        found, features = session.run(None, {"images": PIXELS[:count].numpy()})
        assert np.linalg.norm(features, axis=1) == pytest.approx(np.ones(count), abs=1e-5)
        assert np.abs(found - expected[:count].numpy()).max() < 1e-5
        assert (found.argmax(1) == expected[:count].argmax(1).numpy()).all()
    facts = session.get_modelmeta().custom_metadata_map
    config = json.loads((exported / "config.json").read_text())
    assert json.loads(facts["classes"]) == config["classes"] == list(CLASSES)
    assert json.loads(facts["image_shape"]) == config["image_shape"] == [1, 28, 28]
    assert (facts["layout"], facts["run"], facts["licence"]) == ("nchw", "2026-01-01_00-00-00", "unknown")
    assert json.loads(facts["temperature"]) == config["temperature"] != 1
    assert facts["fmnist"] == config["fmnist"] != "unknown"


@pytest.mark.extras
def test_torch_export_is_the_network_to_the_last_bit(exported: Path, network_of: Callable[[], Tensor]) -> None:
    module = torch.export.load(exported / "model.pt2").module()
    with torch.inference_mode():
        assert torch.equal(module(PIXELS)[0], network_of())


@pytest.mark.extras
def test_safetensors_hold_the_weights_under_their_names_and_build_the_network_again(exported: Path, run: Path) -> None:
    from safetensors.torch import load_file

    weights = checkpoints.network_weights(checkpoints.load(run / "checkpoints" / "best.ckpt"))
    found = load_file(exported / "model.safetensors")
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], value) for name, value in weights.items())
    network, dataset, temperature, layout = files.rebuild(exported)
    assert isinstance(network, CNN)
    assert (dataset.classes, layout) == (CLASSES, "nchw")
    assert (
        temperature == checkpoints.load(run / "checkpoints" / "best.ckpt")[checkpoints.CALIBRATION_KEY]["temperature"]
    )


@pytest.mark.extras
@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        ({"network": {"_target_": "os.system", "command": "true"}}, "_target_=os.system"),
        ({"network": {"_target_": "fmnist.models.CNN", "channels": "${oc.env:HOME}"}}, "looked up on this machine"),
        ({"network": {"_target_": "fmnist.models.CNN", "channels": [8]}}, "model.safetensors"),
        ({"network": None}, "not a mapping"),
        ({"temperature": "hot"}, "config.json"),
        ({"layout": "chwn"}, "layout=chwn"),
        ({"dataset": {}}, "not the facts of a dataset"),
    ],
)
def test_folders_of_strangers_are_not_believed(
    change: dict[str, Any], fragment: str, exported: Path, tmp_path: Path
) -> None:
    place = shutil.copytree(exported, tmp_path / "copy")
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=re.escape(fragment)):
        files.rebuild(place)


@pytest.mark.extras
def test_eight_bits_are_a_second_file_that_is_nearly_as_accurate(
    exported: Path, network_of: Callable[[], Tensor]
) -> None:
    import onnx

    names = [node.op_type for node in onnx.load(exported / "model.int8.onnx").graph.node]
    assert names.count("QuantizeLinear") >= 3
    found, _ = files.session(exported / "model.int8.onnx")(PIXELS)
    assert 0 < (found - network_of()).abs().max() < 0.2
    assert (found.argmax(1) == network_of().argmax(1)).double().mean() > 0.95
    facts = [{each.key: each.value for each in onnx.load(exported / name).metadata_props} for name in ONNX_FILES]
    assert facts[0] == facts[1]
    assert "temperature" in facts[0]


@pytest.mark.extras
def test_command_tells_what_was_checked_and_what_float32_changes(exported: Path, kept: SimpleNamespace) -> None:
    out = kept.done.out
    right = re.search(r"exported in float32: test accuracy ([\d.]+)% \([\d.]+% in bf16-mixed, as trained\)", out)
    assert right
    checked = [line for line in out.splitlines() if re.match(r"model\..*, on 200 test images$", line)]
    assert [line.split(":")[0] for line in checked] == ["model.onnx", "model.pt2", "model.safetensors"]
    assert ["to the last bit" in line for line in checked] == [False, True, True]
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.startswith(" model.")}
    assert max(len(line) for line in out.splitlines() if os.sep not in line) <= 80
    assert {"model.onnx", "model.int8.onnx", "model.pt2", "model.safetensors"} <= rows.keys()
    (network,) = (line.split() for line in out.splitlines() if line.strip().startswith("the network"))
    assert rows["model.onnx"][2] == network[3] == right[1]
    assert len(rows["model.onnx"]) == len(rows["model.int8.onnx"]) == 6
    assert out.splitlines()[-1] == f"exported: {exported}"


@pytest.mark.extras
def test_folder_holds_no_path_of_this_machine(exported: Path, kept: SimpleNamespace, data_root: Path) -> None:
    here = {str(kept.folder), str(data_root), sys.prefix, str(Path(__file__).parents[1]), "site-packages", '.py", line'}
    names = {path.name for path in exported.iterdir()}
    expected = {"model.onnx", "model.int8.onnx", "model.pt2", "model.safetensors", "config.json", "README.md"}
    assert names == expected | {"preprocess.md", "example.py", "training_features.npy"}
    for path in exported.iterdir():
        assert not [text for text in here if text.encode() in path.read_bytes()], path.name


@pytest.mark.extras
def test_example_runs_where_there_is_neither_torch_nor_this_project(exported: Path, run: Path, tmp_path: Path) -> None:
    images = torch.cat([PIXELS[:4], check.random_images((1, 28, 28), 1)])
    np.save(tmp_path / "images.npy", images.numpy())
    shutil.copytree(exported, tmp_path / "elsewhere")
    command = [sys.executable, "-c", BLOCKED, "elsewhere/example.py", "images.npy"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    _, classifier, dataset, calibrator, detector = restore(run / "checkpoints" / "best.ckpt", "cpu")
    assert calibrator is not None
    assert detector is not None
    with torch.inference_mode():
        features, logits = features_and_logits(classifier.network.eval(), dataset.normalise(images))
    best = calibrator.probabilities(logits).max(dim=1)
    marks = (detector.distances(features) > detector.threshold).tolist()
    assert marks[-1]
    assert not all(marks)
    expected = [
        f"{CLASSES[k]}{' (unlike the training images)' if mark else ''}"
        for k, mark in zip(best.indices, marks, strict=True)
    ]
    assert [line.split(" ", 1)[1] for line in done.stdout.splitlines()] == expected
    found = [float(line.split()[0]) for line in done.stdout.splitlines()]
    assert found == pytest.approx(best.values.tolist(), abs=1e-4)


@pytest.mark.slow
@pytest.mark.extras
def test_example_runs_in_an_environment_of_onnxruntime_and_numpy(exported: Path, tmp_path: Path) -> None:
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        pytest.skip("needs uv")
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(tmp_path / "env")], check=True)
    installed = subprocess.run(
        [uv, "pip", "install", "--quiet", "--python", str(python), "onnxruntime", "numpy"], check=False
    )
    if installed.returncode:
        pytest.skip("needs a package index")
    np.save(tmp_path / "images.npy", PIXELS[:3].numpy())
    command = [str(python), str(exported / "example.py"), "images.npy"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 3
    missing = subprocess.run([str(python), "-c", "import torch"], capture_output=True, check=False)
    assert missing.returncode != 0


@pytest.mark.extras
def test_examples_are_short_and_use_nothing_else() -> None:
    for form in usage.PACKAGES:
        text = usage.example_text(form, marked=True)
        used = {
            alias.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import) for alias in node.names
        }
        runtime = "onnxruntime" if form == "onnx" else "torch"
        assert used == {"json", "sys", "numpy", runtime}
        assert len([line for line in text.splitlines() if line.strip()]) <= 17


@pytest.mark.extras
def test_model_card_has_the_metadata_of_hubs_and_the_results(exported: Path, run: Path) -> None:
    from huggingface_hub import ModelCard

    loaded = ModelCard.load(exported / "README.md")
    data = loaded.data
    assert (data.license, data.pipeline_tag, data.library_name) == ("unknown", "image-classification", "onnx")
    config = json.loads((exported / "config.json").read_text())
    accuracy = config["files"]["model.onnx"]["accuracy"]
    assert [result.metric_value for result in data.eval_results] == [accuracy]
    (row,) = (line for line in loaded.text.splitlines() if line.startswith("| all |"))
    correct = round(200 * accuracy)
    low, high = card.wilson(correct, 200)
    assert row == f"| all | {correct} | 200 | {accuracy:.2%} | {low:.2%} to {high:.2%} |"
    record = json.loads((run / "run.json").read_text())
    for name, value in record["dataset"].items():
        assert f"| `{name}` | `{value}` |" in loaded.text
    assert "scripts/train.py" in loaded.text
    assert "trainer.precision=bf16-mixed" in loaded.text
    assert "seed=1" in loaded.text
    assert "data.root=FOLDER" in loaded.text
    values = json.loads((run / "metrics.json").read_text())["calibration"]["test"]
    assert f"| test | with | {values['error_calibrated']:.2%} | {values['loss_calibrated']:.4f} |" in loaded.text
    for name, facts in config["files"].items():
        assert facts["sha256"] == sha256(exported / name)
        assert facts["sha256"] in loaded.text


@pytest.mark.slow
@pytest.mark.extras
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("option", options("model"))
def test_every_network_is_exported(option: str, layout: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    need(option)
    torch.manual_seed(0)
    node = composed("model", option).model
    network = build.build_network(node, FASHION_MNIST).to(memory_format=torch.channels_last).eval()
    randomise_statistics(network)
    model = PixelsToProbabilities(network, FASHION_MNIST, 0.5, layout)
    reference = check.Reference.of(model, PIXELS[:20])
    description = describe.describe(model, instantiate.plain_config(node), "run", calibrated=True, detector=None)
    every = ("onnx", "torch_export", "safetensors")
    written = exporter.Exporter(model, reference, None, description).write(tmp_path, every, None)
    assert [file.name for file in written] == [files.NAMES[form] for form in every]
    assert [file.difference == 0 for file in written[1:]] == [True, True]


def randomise_statistics(network: nn.Module) -> None:
    """Give batch norms statistics that make a difference."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_graph_normalises_and_divides_by_the_temperature(layout: Any) -> None:
    model = small_model(layout, temperature=2.0)
    images = model.in_layout(PIXELS[:4])
    assert images.shape[1:] == model.input_shape
    with torch.no_grad():
        logits = model.network(FASHION_MNIST.normalise(PIXELS[:4]))
        assert torch.allclose(model.run(images)[0], (logits / 2).softmax(1), atol=1e-6)


def test_three_channels_are_normalised_one_by_one() -> None:
    dataset = DatasetInfo("any", ("a", "b"), (3, 8, 8), mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 0.4))
    torch.manual_seed(0)
    network = CNN((3, 8, 8), 2, channels=[4])
    pixels = check.random_images((3, 8, 8), 4)
    scaled = (pixels / 255 - torch.tensor(dataset.mean)[:, None, None]) / torch.tensor(dataset.std)[:, None, None]
    model = PixelsToProbabilities(network, dataset, 1.0, "nhwc")
    with torch.no_grad():
        expected = network.eval()(scaled).softmax(1)
    assert torch.allclose(model.run(pixels.permute(0, 2, 3, 1))[0], expected, atol=1e-5)
    program = model.trace().module()
    assert torch.allclose(program(pixels.permute(0, 2, 3, 1).contiguous())[0], expected, atol=1e-5)


def test_weights_of_double_precision_are_exported_in_single() -> None:
    network = CNN((1, 28, 28), 10, channels=[4]).double()
    model = PixelsToProbabilities(network, FASHION_MNIST, 1.0)
    assert [output.dtype for output in model.run(PIXELS[:1])] == [torch.float32] * 2
    assert next(network.parameters()).dtype == torch.float64


@pytest.mark.extras
def test_a_run_without_calibration_has_temperature_one_and_says_so(
    run: Path, run_script: RunScript, tmp_path: Path
) -> None:
    pytest.importorskip("safetensors")
    copy = shutil.copytree(run, tmp_path / "plain")
    best = copy / "checkpoints" / "best.ckpt"
    content = checkpoints.load(best)
    del content[checkpoints.CALIBRATION_KEY]
    content[checkpoints.CONFIG_KEY]["trainer"]["precision"] = "32-true"
    torch.save(content, best)
    done = run_script("export", f"run={copy}", "format=safetensors", "layout=nhwc")
    assert (done.status, done.err) == (0, "")
    assert "temperature 1: the probabilities are not calibrated" in done.out
    assert "bf16" not in done.out
    place = tmp_path / "outputs" / "export" / "plain"
    config = json.loads((place / "config.json").read_text())
    assert (config["temperature"], config["calibrated"], config["layout"]) == (1.0, False, "nhwc")
    assert config["input_shape"] == [28, 28, 1]
    card_text = (place / "README.md").read_text()
    assert "not calibrated" in card_text
    assert "state_dict()" in card_text
    assert not (place / "example.py").exists()


@pytest.mark.extras
def test_without_the_data_random_images_are_compared_and_the_card_says_what_the_run_has_recorded(
    run: Path, run_script: RunScript, tmp_path: Path
) -> None:
    pytest.importorskip("safetensors")
    copy = shutil.copytree(run, tmp_path / "moved")
    content = checkpoints.load(copy / "checkpoints" / "best.ckpt")
    content[checkpoints.CONFIG_KEY]["data"]["root"] = str(tmp_path / "gone")
    torch.save(content, copy / "checkpoints" / "best.ckpt")
    done = run_script("export", f"run={copy}", "format=safetensors", "output=a/b")
    assert done.status == 0
    assert done.err.startswith("check=random, as the test images aren't here: ")
    assert "1,000 random images" in done.out
    text = (tmp_path / "a" / "b" / "README.md").read_text()
    accuracy = json.loads((copy / "metrics.json").read_text())["test/accuracy"]
    assert f"| all | {accuracy:.2%} |" in text
    assert "no intervals" in text
    (tmp_path / "moved" / "metrics.json").write_text("[")
    again = run_script("export", f"run={copy}", "format=safetensors", "output=c", "check=random")
    assert (again.status, again.err.count("left out of the model card")) == (0, 1)
    assert "Not measured" in (tmp_path / "c" / "README.md").read_text()
    run_script("export", f"run={copy}", "format=safetensors", "output=d", "check=test").assert_refused("data_root=")
    assert not (tmp_path / "d").exists()


@pytest.mark.extras
@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        ("run=nowhere", ["run=nowhere", "no such folder"]),
        ("run=empty", ["run=empty", "not a run folder"]),
        ("run=bare", ["there is no checkpoint", "last.ckpt"]),
        ("run=broken", ["best.ckpt", "NaN or infinity"]),
        ("run=null", ["give a run"]),
        ("format=tflite", ["format=tflite", "onnx", "torch_export", "safetensors"]),
        ("format=[safetensors,keras]", ["format", "keras", "safetensors"]),
        ("format=[]", ["format=[]", "at least 1"]),
        ("layout=chwn", ["layout=chwn", "nchw", "nhwc"]),
        ("quantize=int8", ["quantize=int8", "format=onnx"]),
        ("quantize=int4", ["quantize=int4", "int8"]),
        ("check=train", ["check=train", "test", "random"]),
        ("output=full", ["output=full", "not empty"]),
        ("output=file.txt", ["output=file.txt", "must be a folder"]),
        ("output=file.txt/out", ["output=file.txt/out", "can't be made"]),
        ("output=''", ["output=", "must be a folder"]),
        ("data_root=nowhere check=test", ["data_root=nowhere"]),
        ("temperature=2", ["temperature"]),
    ],
)
def test_wrong_input_is_refused_and_leaves_no_folder(
    arguments: str, fragments: list[str], run: Path, run_script: RunScript, tmp_path: Path
) -> None:
    pytest.importorskip("safetensors")
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "file.txt").write_text("mine")
    (tmp_path / "bare").mkdir()
    shutil.copy(run / "config.yaml", tmp_path / "bare")
    if "run=broken" in arguments:
        broken = shutil.copytree(run, tmp_path / "broken") / "checkpoints" / "best.ckpt"
        content = checkpoints.load(broken)
        for value in checkpoints.network_weights(content).values():
            value.copy_(torch.full_like(value, math.nan) if value.is_floating_point() else value)
        torch.save(content, broken)
    before = sorted(tmp_path.rglob("*"))
    given = [] if "run=" in arguments else [f"run={run}"]
    form = [] if "format=" in arguments else ["format=safetensors"]
    done = run_script("export", *given, *form, *arguments.split())
    done.assert_refused(*fragments)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript", "huggingface_hub"])
def test_missing_packages_are_named_with_their_extra(
    package: str, run: Path, run_script: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnx", "onnxruntime", "onnxscript", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace() if name != package else None)  # type: ignore[arg-type]
    done = run_script("export", f"run={run}")
    done.assert_refused(f"needs {package}", "make extras", '"fmnist[export]"')


@pytest.mark.extras
def test_a_file_that_gives_something_else_is_no_export(
    run: Path, run_script: RunScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("safetensors")
    original = files.read

    def wrong(form: Any, place: Path) -> files.Run:
        run = original(form, place)
        return lambda images: (run(images)[0], run(images)[1] + 2e-4 * (len(images) == 1))

    monkeypatch.setattr(files, "read", wrong)
    done = run_script("export", f"run={run}", "format=safetensors")
    done.assert_refused("model.safetensors is not exported", "batch of 1 the features differ", "2.0e-04")
    assert not (tmp_path / "outputs").exists()


@pytest.mark.extras
def test_a_network_that_has_no_graph_is_refused(
    run: Path, run_script: RunScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("safetensors")
    original = CNN.forward
    monkeypatch.setattr(
        CNN, "forward", lambda self, images: original(self, images if images.sum().item() > -1e9 else -images)
    )
    done = run_script("export", f"run={run}", "format=[safetensors,torch_export]", "check=random")
    done.assert_refused("format=torch_export", "CNN can't be exported")
    assert not (tmp_path / "outputs").exists()


def test_folder_disappears_whatever_ends_the_export(tmp_path: Path) -> None:
    def interrupted() -> None:
        with folder.new_folder(tmp_path / "a" / "b" / "c") as place:
            (place / "half").write_text("")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").mkdir()
    with folder.new_folder(tmp_path / "there") as place:
        (place / "whole").write_text("")
    assert [path.name for path in tmp_path.rglob("*")] == ["there", "whole"]
    (tmp_path / "there" / "whole").unlink()
    (tmp_path / "link").symlink_to("there")
    with folder.new_folder(tmp_path / "link") as place:
        (place / "whole").write_text("")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "whole").is_file()


def test_ties_are_no_other_class_and_small_differences_are() -> None:
    expected = torch.tensor([[0.5, 0.5 - 5e-7, 0.0], [0.5, 0.49, 0.01], [0.2, 0.5, 0.3]])
    output = torch.tensor([[0.4, 0.6, 0.0], [0.495, 0.496, 0.009], [0.2, 0.5, 0.3]])
    assert check.other_classes(output, expected).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("change", "exactly", "message"),
    [
        (lambda found: found, True, None),
        (lambda found: found + 9e-5, False, None),
        (lambda found: found + 1e-7, True, "more than 0"),
        (lambda found: found + 1.1e-4, False, "more than 0.0001"),
        (lambda found: found[:1].repeat(len(found), 1), False, "not exported"),
        (lambda found: found[:1], False, "gives torch.float32"),
        (lambda found: found.double(), False, "gives torch.float64"),
        (lambda found: found * math.nan, False, "gives torch.float32"),
        (lambda _: 1 / 0, False, "can't run a batch of"),
    ],
)
def test_comparison_finds_what_differs(change: Callable[[Tensor], Any], exactly: bool, message: str | None) -> None:
    model = small_model()
    reference = check.Reference.of(model, PIXELS[:30])
    assert torch.equal(reference.probabilities, model.run(PIXELS[:30])[0])
    assert [len(batch) for batch in reference.batches] == [30, 1, 2, 1000]

    def changed(images: Tensor) -> tuple[Tensor, Tensor]:
        probabilities, features = model.run(images)
        return change(probabilities), features

    if message is None:
        reference.compare(changed, "file", exactly)
        return
    with pytest.raises(ValueError, match=message):
        reference.compare(changed, "file", exactly)


def test_another_class_within_the_tolerance_is_found() -> None:
    features = torch.zeros(3, 2)
    outputs = torch.tensor([0.10003, 0.1, *[0.1] * 8]).repeat(3, 1), features
    reference = check.Reference(small_model(), [PIXELS[:3]], [outputs], 1)
    with pytest.raises(ValueError, match="images get another class"):
        reference.compare(lambda _: (outputs[0].roll(1, 0)[:, [1, 0, *range(2, 10)]], features), "file")


def test_calls_take_turns_and_the_first_of_each_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "FEWEST", 3)
    monkeypatch.setattr(latency, "MOST", 3)
    clock = iter(range(10_000))
    monkeypatch.setattr(latency.time, "perf_counter", lambda: next(clock))
    calls: list[str] = []
    found = latency.interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")})
    assert calls == ["a", "b"] * 4
    assert found == {"a": 1, "b": 1}


def test_ranges_of_eight_bits_come_from_the_same_training_images_each_time() -> None:
    images = torch.arange(2000).view(-1, 1, 1, 1)
    first, second = quantize.calibration_images(images), quantize.calibration_images(images)
    assert torch.equal(first, second)
    assert len(first.unique()) == quantize.IMAGES


def test_fashion_mnist_has_its_licence_but_not_with_pretrained_weights() -> None:
    model = small_model()
    assert describe.describe(model, {}, "run", calibrated=True, detector=None)["licence"] == "mit"
    assert describe.describe(model, {"pretrained": True}, "run", calibrated=True, detector=None)["licence"] == "unknown"


def made_up_card(**changes: Any) -> card.Card:
    model = small_model()
    about = describe.describe(model, {}, "run", calibrated=True, detector=None)
    parts = {
        "about": about,
        "dataset": FASHION_MNIST,
        "parameters": 7,
        "record": {},
        "metrics": {},
        "robustness": None,
        "files": [describe.ExportedFile("model.onnx", "onnxruntime", 1000, "0" * 64, 0.9, 1e-6, {})],
        "confusion": torch.eye(10, dtype=torch.long) * 9 + torch.eye(10, dtype=torch.long).roll(1, 1),
        "notes": ["a note"],
    }
    return card.Card(**(parts | changes))


@pytest.mark.extras
def test_card_names_the_most_frequent_mistakes_and_the_dataset_of_the_hub() -> None:
    pytest.importorskip("huggingface_hub")
    text = card.model_card(made_up_card())
    assert "license: mit" in text
    assert "- zalando-datasets/fashion_mnist" in text
    assert "1 of 10 images of T-shirt/top are taken for Trouser." in text
    assert "| all | 90 | 100 | 90.00% | 82.56% to 94.48% |" in text


@pytest.mark.extras
@pytest.mark.parametrize("complete", [True, False])
def test_card_has_the_robustness_or_the_command_that_measures_it(complete: bool) -> None:
    pytest.importorskip("huggingface_hub")
    text = card.model_card(made_up_card())
    assert "Not measured. `python scripts/robustness.py run=<run folder>` measures it before the export." in text
    corrupted = {
        ("noise", 1): Scores(0.75, 0.0, 1.0),
        ("noise", 2): Scores(0.5, 0.5, 1.0),
        ("<b>", 1): Scores(0.25, None, None),
        ("<b>", 2): Scores(0.25, None, None),
    }
    measured = Robustness("run", "0", True, 2000, 3, complete, Scores(0.9, 0.125, 0.8), corrupted)
    text = card.model_card(made_up_card(robustness=measured))
    assert "Accuracy and expected calibration error on 2,000 test images, corruptions of seed 3" in text
    for row in ("clean | 90.00% | 12.50%", "noise | 62.50% | 25.00%", "&lt;b&gt; | 25.00% | -"):
        assert f"| {row} |" in text
    assert "| mean of corruptions | 43.75% | - |" in text
    assert ("not comparable" in text) is not complete
    assert "Robustness to other corruptions" in text


@pytest.mark.extras
def test_export_takes_the_robustness_of_its_checkpoint_alone(run: Path, run_script: RunScript, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    copy = shutil.copytree(run, tmp_path / "measured")
    scores = Scores(0.5, 0.25, 0.75)
    for number, (name, warned) in enumerate([("best", False), ("last", True)]):
        digest = sha256(copy / "checkpoints" / "best.ckpt")
        measured = Robustness("run", digest, True, 20, 0, True, scores, {("noise", 1): scores})
        content = {"images": 20, "seed": 0, "all_corruptions": True, "runs": [measured.to_dict()]}
        (copy / "robustness.json").write_text(json.dumps(content))
        words = (str(copy / "checkpoints" / f"{name}.ckpt"), "format=safetensors", "check=random")
        done = run_script("export", *words, f"output=out{number}")
        assert done.status == 0
        assert ("left out of the model card" in done.err) is warned
        text = (tmp_path / f"out{number}" / "README.md").read_text()
        assert ("| noise | 50.00% | 25.00% |" in text) is not warned
        assert ("Not measured. `" in text) is warned


@pytest.mark.extras
def test_names_and_records_of_a_stranger_stay_text() -> None:
    pytest.importorskip("huggingface_hub")
    odd = "a|b\n# <script>alert(1)</script> [x](y) `z` é"
    dataset = DatasetInfo(odd, (odd, "other"), (1, 28, 28), mean=(0.5,), std=(0.5,))
    model = PixelsToProbabilities(CNN((1, 28, 28), 2, channels=[4]), dataset, 1.0)
    record = {
        "dataset": {odd: odd},
        "overrides": ["seed=1", "outputs=/home/me", f"model.x={odd}", "data.root=/home/me", "data.exclude=/home/me/x"],
        "hardware": [],
        "git": "x",
        "resumed": {},
        "seed": odd,
    }
    metrics = {"test/accuracy": "high", "calibration": {"val": [1], "test": {"error": "x"}}, "epochs": None}
    about = describe.describe(model, {}, odd, calibrated=True, detector=None)
    found = card.model_card(made_up_card(about=about, dataset=dataset, record=record, metrics=metrics, confusion=None))
    body = found.split("---\n", 2)[2]
    assert "<script" not in re.sub(r"`[^`\n]*`|^    .*$", "", body, flags=re.MULTILINE)
    assert "\n# <" not in body
    assert "/home/me" not in body
    assert "data.root=FOLDER data.exclude=FILE" in body
    for line in body.splitlines():
        if line.startswith("| "):
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 6), line


@pytest.mark.parametrize(
    ("dataset", "layout", "fragments"),
    [
        (FASHION_MNIST, "nchw", ["uint8 (N, 1, 28, 28)", "bright", "28x28 pixels.", "0.2860"]),
        (FASHION_MNIST, "nhwc", ["uint8 (N, 28, 28, 1)", "(rows, columns, channels) = (28, 28, 1)"]),
        (DatasetInfo("m", ("a", "b"), (1, 28, 28), (0.1,), (0.3,), margin=4), "nchw", ["20x20", "leaves 4 black"]),
        (
            DatasetInfo("c", ("a", "b"), (3, 32, 32), (0.1,) * 3, (0.3,) * 3, fit="crop"),
            "nchw",
            ["RGB", "covers 32x32"],
        ),
        (DatasetInfo("p", ("a", "b"), (3, 8, 8), (0.1,) * 3, (0.3,) * 3, fit="pad"), "nchw", ["fill the rest"]),
        (DatasetInfo("s", ("a", "b"), (1, 8, 9), (0.1,), (0.3,), fit="stretch"), "nchw", ["8x9", "aspect ratio may"]),
    ],
)
def test_preparation_is_told_as_the_dataset_needs_it(dataset: DatasetInfo, layout: Any, fragments: list[str]) -> None:
    channels, height, width = dataset.image_shape
    shape = (channels, height, width) if layout == "nchw" else (height, width, channels)
    text = usage.preprocess_text(dataset, layout, shape)
    for fragment in fragments:
        assert fragment in text


@pytest.mark.extras
def test_latest_run_and_a_named_checkpoint_are_exported(run: Path, run_script: RunScript, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    from safetensors.torch import load_file

    place = shutil.copytree(run, tmp_path / "outputs" / "train" / "a")
    done: Done = run_script("export", "run=latest", "format=safetensors", "check=random")
    assert done.status == 0
    assert done.out.splitlines()[-1] == "exported: outputs/export/a"
    last = place / "checkpoints" / "last.ckpt"
    assert run_script("export", str(last), "format=[safetensors]", "check=random", "output=b").status == 0
    weights = checkpoints.network_weights(checkpoints.load(last))
    found = load_file(tmp_path / "b" / "model.safetensors")
    assert all(torch.equal(found[name], value) for name, value in weights.items())
    again = run_script("export", "run=latest", "format=safetensors", "check=random")
    assert again.status == 2
    assert again.err.splitlines()[-1].startswith("error: output=outputs/export/a: is not empty")
