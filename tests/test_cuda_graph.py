"""cuda_graph=true: a replayed training learns the same. Most tests need a GPU."""

import copy
from pathlib import Path

import pytest
import torch
from conftest import RunScript
from torch import nn

from fmnist.models import CNN
from fmnist.runs import checkpoints
from fmnist.runs.run import Run
from fmnist.training import cuda_graph
from fmnist.training.compilation import check_cuda_graph
from fmnist.training.cuda_graph import ReplayedNetwork

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
SHAPE = (1, 28, 28)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cpu", 1, 1, False), "cuda_graph=true: needs a GPU; cuda_graph=false trains without"),
        (("cuda", 2, 1, False), "cuda_graph=true: needs a training by one process, not 2"),
        (("cuda", 1, 4, False), "cuda_graph=true: needs trainer.accumulate_grad_batches=1, not 4"),
        (("cuda", 1, 1, True), "cuda_graph=true: needs compile=false"),
    ],
)
def test_a_training_that_cannot_be_replayed_is_refused(arguments: tuple[str, int, int, bool], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        check_cuda_graph(*arguments)


def test_a_run_with_cuda_graph_is_refused_without_a_gpu_and_resumes_with_false(
    finished_run: Path, train: RunScript, run_script: RunScript
) -> None:
    done = train("cuda_graph=true")
    done.assert_refused("cuda_graph=true", "GPU")
    assert not list(done.folder.glob("outputs/*/*"))
    config = finished_run / "config.yaml"
    config.write_text(config.read_text().replace("cuda_graph: false", "cuda_graph: true"))
    resume = ("train", f"resume={finished_run}", "trainer.max_epochs=3")
    run_script(*resume).assert_refused("cuda_graph=false trains without")
    resumed = run_script(*resume, "cuda_graph=false")
    assert resumed.status == 0, resumed.err


def test_only_batches_of_the_first_size_are_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded_for = []

    def record(network: nn.Module, images: torch.Tensor) -> nn.Module:
        recorded_for.append(len(images))
        return nn.Sequential(network, nn.Hardtanh(-101, -100))  # marks its outputs

    monkeypatch.setattr(cuda_graph, "record", record)
    network, replayed = nn.Flatten(), ReplayedNetwork()
    images = {count: torch.rand(count, *SHAPE) for count in (20, 7)}
    for count in (20, 20, 7, 20):
        logits = replayed(network, images[count])
        expected = torch.full_like(logits, -100) if count == 20 else images[count].flatten(1)
        assert torch.equal(logits, expected)
    assert recorded_for == [20]


@needs_gpu
@pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS")  # the first product of a process, in a backward pass
def test_gradients_and_statistics_equal_those_of_the_network() -> None:
    torch.manual_seed(0)
    network = CNN(SHAPE, 10, channels=[4, 8], dropout=0.0).cuda()
    other = copy.deepcopy(network)
    replayed = ReplayedNetwork()
    for count in (20, 20, 7, 20):
        images = torch.randn(count, *SHAPE, device="cuda")
        random = torch.cuda.get_rng_state()
        with torch.autocast("cuda", torch.bfloat16):
            replayed(network, images).float().square().mean().backward()
        with torch.autocast("cuda", torch.bfloat16):
            other(images).float().square().mean().backward()
        assert torch.equal(torch.cuda.get_rng_state(), random)
        for mine, its in zip(network.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, its.grad, rtol=0.05, atol=1e-3)
        for mine, its in zip(network.buffers(), other.buffers(), strict=True):
            torch.testing.assert_close(mine, its, rtol=0.02, atol=1e-4)
        network.zero_grad()
        other.zero_grad()


@needs_gpu
def test_a_replayed_training_ends_with_the_same_weights(train: RunScript) -> None:
    weights = []
    for name, overrides in (("plain", []), ("replayed", ["cuda_graph=true"])):
        done = train(
            *("trainer.accelerator=gpu", "trainer.precision=32-true", "data.batch_size=60", "callbacks=ema"),
            *("model.dropout=0", "optimizer=muon", f"name={name}", *overrides),
        )
        assert done.status == 0, done.err
        (folder,) = done.folder.glob(f"outputs/{name}/*")
        weights.append(checkpoints.network_weights(checkpoints.load(Run(folder).last_checkpoint)))
    plain, replayed = weights
    for name in plain:
        torch.testing.assert_close(replayed[name], plain[name], rtol=0.02, atol=5e-3)
