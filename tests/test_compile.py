"""compile=true: a compiled training learns the same and leaves the same files."""

import functools
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import RunScript
from torch import nn
from torch.utils import _triton

from fmnist.config import build
from fmnist.evaluation import inspection
from fmnist.models import CNN
from fmnist.runs import checkpoints
from fmnist.runs.run import Run
from fmnist.training.classifier import Classifier
from fmnist.training.compilation import check_compiler
from fmnist.training.schedules import constant
from fmnist.training.speed import run_network, use_in_training

SHAPE = (1, 28, 28)
SMALL = ("model=mlp", "model.hidden=[4]", "model.dropout=0", "trainer.precision=32-true")
TWO_SIZES = "data.batch_size=60"  # 500 images: the last batch has 20


@pytest.fixture
def compiled_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int | torch.SymInt]:
    """Return the number of images in each graph that torch.compile captures; the graphs run without a compiler."""
    sizes: list[int | torch.SymInt] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        images = [given for given in inputs if isinstance(given, torch.Tensor) and given.shape[1:] == SHAPE]
        sizes.extend(given.shape[0] for given in images)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    monkeypatch.setattr(build, "check_compiler", lambda *_: None)
    return sizes


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_a_compiled_network_learns_the_same_and_is_evaluated_without_a_compiler(
    train: RunScript, run_script: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = []
    for name, overrides in (("plain", []), ("compiled", ["compile=true"])):
        done = train(*SMALL, TWO_SIZES, f"name={name}", *overrides)
        assert done.status == 0, done.err
        (folder,) = done.folder.glob(f"outputs/{name}/*")
        states.append(checkpoints.load(Run(folder).last_checkpoint))
    plain, compiled = states
    assert list(plain["state_dict"]) == list(compiled["state_dict"])
    weights, others = (checkpoints.network_weights(state) for state in states)
    for name in weights:
        torch.testing.assert_close(others[name], weights[name], rtol=0, atol=1e-4)

    monkeypatch.setattr(torch, "compile", None)
    evaluated = run_script("evaluate", f"run={folder}")
    assert evaluated.status == 0, evaluated.err
    assert evaluated.out.splitlines()[-1] in done.out  # loss and accuracy


@pytest.mark.slow
def test_only_the_training_is_compiled_once_for_all_batch_sizes(
    train: RunScript, run_script: RunScript, compiled_sizes: list[int | torch.SymInt]
) -> None:
    observers = ["callbacks=ema", "pictures=all"]  # put other weights into the same network
    done = train(*SMALL, TWO_SIZES, "compile=true", "name=first", *observers)
    assert done.status == 0, done.err
    assert len(compiled_sizes) == 2  # the first size, then any size
    assert compiled_sizes[0] == 60

    resumed = run_script("train", f"resume={done.run}", "trainer.max_epochs=3")  # compiles again
    assert resumed.status == 0, resumed.err
    assert len(compiled_sizes) == 4


@pytest.mark.slow
def test_hooks_see_the_layers_of_a_compiled_network(compiled_sizes: list[int | torch.SymInt]) -> None:
    network = CNN(SHAPE, 10, channels=[2, 3])
    classifier = Classifier(network, nn.CrossEntropyLoss(), torch.optim.Adam, constant, classes=range(10))
    names = list(classifier.state_dict())
    use_in_training(classifier, torch.compile(run_network))
    logits = classifier(torch.zeros(2, *SHAPE))
    assert logits.shape == (2, 10)
    assert compiled_sizes == [2]
    assert list(classifier.state_dict()) == names
    assert [len(maps) for maps in inspection.activation_maps(network, torch.zeros(SHAPE)).values()] == [2, 3]
    classifier.eval()(torch.zeros(3, *SHAPE))
    assert compiled_sizes == [2]


def test_a_missing_compiler_is_named_in_one_line(
    train: RunScript, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", (None, str(tmp_path / "none")))  # torch has read CXX at its import
    done = train("compile=true")
    done.assert_refused("compile=true", "C++ compiler", "CXX")
    assert not list(done.folder.glob("outputs/*/*"))


def test_other_missing_parts_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(_triton, "has_triton", lambda: False)
    with pytest.raises(ValueError, match="compile=true: needs Triton"):
        check_compiler("cuda")
    monkeypatch.setattr(_triton, "has_triton", lambda: True)
    monkeypatch.setattr(shutil, "which", lambda *_: None)
    with pytest.raises(ValueError, match="compile=true: needs a C compiler"):
        check_compiler("cuda")
    monkeypatch.setenv("CC", "gcc")
    monkeypatch.setattr(sysconfig, "get_path", lambda *_: "/nowhere")
    with pytest.raises(ValueError, match="compile=true: needs Python's headers"):
        check_compiler("cuda")
