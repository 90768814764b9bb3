"""Networks of timm and torchvision: adapted, pretrained, frozen, restored, and never downloaded unasked."""

import copy
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import RunScript
from torch import Tensor, nn
from torchvision import models

from fmnist.data.info import FASHION_MNIST
from fmnist.evaluation import inspection
from fmnist.models import Timm, TorchVision
from fmnist.models.by_name import NetworkByName
from fmnist.runs import checkpoints
from fmnist.training.sync_batch_norm import SyncedBatchNorm, synced

NAME = "shufflenet_v2_x0_5"
SHUFFLENET = ("model=torchvision", f"model.name={NAME}", "model.input_size=32")
FROZEN = (*SHUFFLENET, "model.pretrained=true", "model.freeze=true")
WEIGHTS = models.get_model_weights(NAME).DEFAULT


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("tests are offline")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def cached_weights(tmp_path: Path) -> Iterator[dict[str, Tensor]]:
    """Weights in torchvision's cache, as if they had been downloaded."""
    before, folder = torch.hub.get_dir(), tmp_path / "hub"
    torch.hub.set_dir(folder)
    file = folder / "checkpoints" / WEIGHTS.url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.manual_seed(1)
    state = models.get_model(NAME).state_dict()
    torch.save(state, file)
    yield state
    torch.hub.set_dir(before)


def sketch(kind: type[NetworkByName], shape: tuple[int, int, int], name: str, **arguments: Any) -> NetworkByName:
    """Return a network without memory for its weights."""
    with torch.device("meta"):
        return kind(shape, 10, name, **arguments)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        (NAME, 64),
        ("inception_v3", 96),  # the smallest that its poolings leave something of
        ("googlenet", 64),
        ("vit_b_16", 224),  # built for one size
        ("squeezenet1_1", 64),
        ("regnet_y_400mf", 64),
        ("alexnet", 64),
    ],
)
def test_small_images_become_as_large_as_the_network_needs(name: str, size: int) -> None:
    network = sketch(TorchVision, (1, 28, 28), name)
    assert network.size == (size, size)
    assert network.train()(torch.zeros(2, 1, 28, 28, device="meta")).shape == (2, 10)


def test_large_images_stay_as_they_are_unless_a_size_is_given() -> None:
    assert sketch(TorchVision, (3, 80, 100), NAME).size == (80, 100)
    assert sketch(TorchVision, (3, 80, 100), NAME, input_size=40).size == (40, 40)
    assert sketch(TorchVision, (3, 64, 64), "vit_b_16", input_size=32).body.image_size == 32


@pytest.mark.parametrize("name", models.list_models(module=models))
@pytest.mark.slow
def test_every_network_of_torchvision_is_adapted(name: str) -> None:
    network = sketch(TorchVision, (2, 28, 28), name)
    assert network(torch.zeros(2, 2, 28, 28, device="meta")).shape == (2, 10)


def test_the_trial_of_the_size_draws_no_random_number() -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(0)
        weights.append(next(TorchVision((1, 41, 41), 10, NAME).parameters()))  # the second time without a trial
    assert torch.equal(*weights)


@pytest.mark.parametrize(("mean", "std"), [(0.25, 0.5), ((0.25,), (0.5,)), ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))])
def test_pretrained_weights_see_the_pixels_as_they_were_trained_with(
    cached_weights: dict[str, Tensor], mean: Any, std: Any
) -> None:
    channels = 1 if isinstance(mean, float) else len(mean)
    pixels = torch.randint(0, 256, (4, channels, 32, 32), dtype=torch.uint8)
    shape = (channels, 32, 32)
    network = TorchVision(shape, 1000, NAME, pretrained=True, input_size=32, mean=mean, std=std).eval()
    network.load_pretrained()
    original = models.get_model(NAME)
    original.load_state_dict(cached_weights)
    images = WEIGHTS.transforms()
    here, there = (
        (pixels / 255 - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
        for mean, std in ((mean, std), (images.mean, images.std))
    )
    torch.testing.assert_close(network(here), original.eval()(there), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_frozen_layers_stay_as_they_are_and_the_run_resumes_and_is_restored(
    train: RunScript, run_script: RunScript, cached_weights: dict[str, Tensor], tmp_path: Path
) -> None:
    short = (
        "data.batch_size=20",
        *(f"trainer.limit_{split}_batches=2" for split in ("train", "val", "test")),
        "callbacks=ema",
        "optimizer=muon",
    )
    done = train(*FROZEN, *short)
    assert (done.status, done.err) == (0, "")
    head = 1024 * 10 + 10
    assert f"{NAME} with 352,042 parameters ({head:,} trained)" in done.out
    checkpoint = checkpoints.load(done.run / "checkpoints" / "last.ckpt")
    weights = {name.removeprefix("body."): value for name, value in checkpoints.network_weights(checkpoint).items()}
    changed = [name for name, value in cached_weights.items() if not torch.equal(weights[name], value)]
    assert changed == ["fc.weight", "fc.bias"]
    groups = checkpoint["optimizer_states"][0]["param_groups"]
    assert [len(group["params"]) for group in groups] == [0, 2]  # filters, others

    torch.hub.set_dir(tmp_path / "empty")  # from here on nothing is looked for
    evaluated = run_script("evaluate", f"run={done.run}")
    assert evaluated.status == 0, evaluated.err
    assert evaluated.out.splitlines()[-1] in done.out
    whole = done.run.rename(tmp_path / "whole")
    last = whole / "checkpoints" / "last.ckpt"
    (whole / "checkpoints" / "previous.ckpt").rename(last)  # after one of two epochs
    record = whole / "run.json"
    record.write_text(record.read_text().replace("finished", "interrupted"))
    resumed = run_script("train", f"resume={whole}")
    assert (resumed.status, resumed.err) == (0, "")
    again = checkpoints.network_weights(checkpoints.load(last))
    expected = checkpoints.network_weights(checkpoint)
    assert [name for name, value in expected.items() if not torch.equal(value, again[name])] == []


def test_weights_that_cannot_be_reached_are_named_in_one_line(train: RunScript, tmp_path: Path) -> None:
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path / "hub")
    done = train(*FROZEN)
    torch.hub.set_dir(before)
    done.assert_refused("model.pretrained=true: https://download.pytorch.org/", "can't be fetched", "tests are offline")
    assert not (done.folder / "outputs").exists()


@pytest.mark.parametrize(
    ("shape", "name", "problem"),
    [
        ((2, 28, 28), NAME, "pretrained=true: takes images of 1 or 3 channels, not 2"),
        ((1, 28, 28), "resnet19", "name=resnet19: torchvision has no such network; did you mean resnet1"),
    ],
)
def test_what_pretrained_networks_do_not_take(shape: tuple[int, int, int], name: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}"):
        sketch(TorchVision, shape, name, pretrained=True)


def test_weights_of_another_shape_are_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    network = TorchVision((1, 28, 28), 10, NAME, pretrained=True)
    monkeypatch.setattr(network, "pretrained_state", lambda: {"conv1.0.weight": torch.zeros(1)})
    with pytest.raises(
        ValueError, match=r"^model.pretrained=true: https.* doesn't fit .* conv1.0.weight.*input_size=null$"
    ):
        network.load_pretrained()


@pytest.mark.usefixtures("cached_weights")
def test_a_damaged_cache_is_named_in_one_line(train: RunScript) -> None:
    (file,) = Path(torch.hub.get_dir()).glob("checkpoints/*.pth")
    file.write_bytes(file.read_bytes()[:1000])
    train(*FROZEN).assert_refused("model.pretrained=true", "can't be")


@pytest.mark.parametrize(
    ("target", "name"),
    [
        *(
            ("Timm", name)
            for name in ("hf-hub:someone/x", "local-dir:/tmp/x", "/tmp/x", "hf_hub:timm/resnet18.a1_in1k")
        ),
        ("TorchVision", "hf-hub:someone/x"),
    ],
)
def test_a_checkpoint_of_a_stranger_gets_nothing_downloaded(
    finished_run: Path, run_script: RunScript, target: str, name: str
) -> None:
    if target == "Timm":
        pytest.importorskip("timm")
    file = finished_run / "checkpoints" / "best.ckpt"
    checkpoint = checkpoints.load(file)
    model = {"_target_": f"fmnist.models.{target}", "name": name, "pretrained": True}
    checkpoint[checkpoints.CONFIG_KEY]["model"] = model
    torch.save(checkpoint, file)
    run_script("evaluate", f"run={finished_run}").assert_refused(
        f"model.name={name}: {target.lower()} has no such network"
    )


@pytest.mark.extras
def test_timm_is_adapted_to_channels_classes_and_size() -> None:
    pytest.importorskip("timm")
    assert sketch(Timm, (1, 28, 28), "test_resnet.r160_in1k").size == (64, 64)
    transformer = sketch(Timm, (2, 28, 28), "vit_tiny_patch16_224", input_size=32)
    assert transformer.body.patch_embed.num_patches == 4
    assert transformer(torch.zeros(3, 2, 28, 28, device="meta")).shape == (3, 10)
    assert len(sketch(Timm, (1, 28, 28), "deit_tiny_distilled_patch16_224").heads()) == 2


@pytest.mark.extras
def test_timm_pretrains_by_its_own_adaptation(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    original = timm.create_model("test_resnet")
    create = timm.create_model

    def created(name: str, pretrained: bool = False, **arguments: Any) -> nn.Module:
        network = create(name, **arguments)
        if pretrained:
            state = {name: value for name, value in original.state_dict().items() if not name.startswith("fc.")}
            network.load_state_dict(state, strict=False)
        return network

    monkeypatch.setattr(timm, "create_model", created)
    network = Timm((1, 28, 28), 10, "test_resnet", pretrained=True, freeze=True, mean=0.3, std=0.4)
    assert network.size == (160, 160)
    network.load_pretrained()
    assert torch.equal(network.body.conv1[0].weight, original.conv1[0].weight)
    trained = [name for name, weights in network.named_parameters() if weights.requires_grad]
    assert trained == ["body.fc.weight", "body.fc.bias"]
    assert {module.training for module in network.body.modules() if isinstance(module, nn.BatchNorm2d)} == {False}


@pytest.mark.extras
def test_timm_weights_that_cannot_be_reached_are_named_at_once() -> None:
    pytest.importorskip("timm")
    network = Timm((1, 28, 28), 10, "test_resnet", pretrained=True, input_size=32)
    with pytest.raises(ValueError, match=r"huggingface.co/timm/test_resnet.r160_in1k can't be fetched .*: connect"):
        network.load_pretrained()


@pytest.mark.extras
def test_batch_norms_with_an_activation_keep_it_when_they_are_synchronised(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("test_efficientnet", num_classes=3).double().train()
    replaced = synced(copy.deepcopy(network))
    assert list(replaced.state_dict()) == list(network.state_dict())
    assert any(isinstance(module, SyncedBatchNorm) and len([*module.children()]) == 2 for module in replaced.modules())
    images = torch.randn(4, 3, 32, 32).double()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        logits = [each(images) for each in (network, replaced)]
        torch.testing.assert_close(*logits)
        for each in logits:
            each.square().sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    for mine, its in zip(network.parameters(), replaced.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, its.grad)
    for mine, its in zip(network.buffers(), replaced.buffers(), strict=True):
        torch.testing.assert_close(mine, its)


def test_inspection_of_networks_by_name() -> None:
    images, labels = torch.rand(2, *FASHION_MNIST.image_shape), torch.tensor([0, 1])
    network = TorchVision(FASHION_MNIST.image_shape, 10, NAME)
    method, heat = inspection.attribution(network, images, labels)
    assert method == "Grad-CAM of body.stage3.0.branch2.2, 8x8 pixels"  # after it there are 4x4 and 2x2
    assert heat.shape == (2, 28, 28)
    maps = inspection.activation_maps(network, images[0])
    assert len(maps) == inspection.MOST_CONVOLUTIONS
    assert list(maps)[:: len(maps) - 1] == ["body.conv1.0", "body.conv5.0"]
    assert inspection.network_name(network) == NAME


def test_transformers_are_explained_by_saliency_and_layers_with_channels_last_are_no_maps() -> None:
    transformer = models.VisionTransformer(8, 4, 1, 2, 4, 8, num_classes=10)
    images, labels = torch.rand(2, 3, 8, 8), torch.tensor([0, 1])
    assert inspection.attribution(transformer, images, labels)[0] == "saliency"

    class ChannelsLast(nn.Sequential):
        def forward(self, images: Tensor) -> Tensor:
            maps = self[0](images)
            logits: Tensor = self[1](maps.permute(0, 2, 3, 1)).mean((1, 2))
            return logits

    network = ChannelsLast(nn.Conv2d(3, 4, 1), nn.Linear(4, 10))
    assert inspection.attribution(network, images, labels)[0] == "saliency"


def test_layers_that_work_in_place_leave_the_outputs_that_are_shown() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8, 2))
    image = torch.randn(1, 2, 2)
    shown = inspection.activation_maps(network, image)["0"]
    torch.testing.assert_close(shown, network[0](image).detach())
    assert network[1].inplace
