"""The networks of timm and torchvision."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fmnist.models.by_name import PRETRAINED_CHANNELS, USUAL_SIZE, NetworkByName, Original

SECONDS_TO_CONNECT = 10
HALVES = (0.5, 0.5, 0.5)
AUXILIARY_LOGITS = ("googlenet", "inception_v3")
"""Networks of torchvision that may return the logits of other layers, too."""


class Timm(NetworkByName):
    """A network of timm. Source: https://github.com/huggingface/pytorch-image-models"""

    library, listing = "timm", "timm.list_models()"

    @classmethod
    def names(cls) -> Sequence[str]:
        timm = _timm()
        return [*timm.list_models(), *timm.list_models(pretrained=True)]  # the latter with a tag, as resnet18.a1_in1k

    @classmethod
    def original(cls, name: str) -> Original:
        facts = _timm().get_pretrained_cfg(name)
        if facts is None:  # an architecture without weights
            return Original(USUAL_SIZE, False, HALVES, HALVES, None)
        hub = f"huggingface.co/{facts.hf_hub_id}" if facts.hf_hub_id else facts.url
        size = facts.input_size[-1]
        return Original(size, facts.fixed_input_size, facts.mean, facts.std, hub if facts.has_weights else None)

    @classmethod
    def create(
        cls, name: str, channels: int, num_classes: int, size: tuple[int, int], pretrained: bool = False
    ) -> nn.Module:
        sized = {"img_size": size} if cls.original(name).fixed else {}
        network: nn.Module = _timm().create_model(
            name, pretrained=pretrained, in_chans=channels, num_classes=num_classes, **sized
        )
        return network

    def pretrained_state(self) -> Mapping[str, Tensor]:
        from huggingface_hub import constants, get_session

        unreachable, offline = None, constants.HF_HUB_OFFLINE
        try:
            get_session().head(constants.ENDPOINT, timeout=SECONDS_TO_CONNECT)
        except Exception as error:  # it would try for 50 s, also where the cache has the file
            unreachable, constants.HF_HUB_OFFLINE = error, True
        try:
            return self.create(self.name, PRETRAINED_CHANNELS, self.num_classes, self.size, True).state_dict()
        except OSError as error:
            raise OSError(str(unreachable or error)) from error
        finally:
            constants.HF_HUB_OFFLINE = offline

    def heads(self) -> list[nn.Module]:
        found = self.body.get_classifier()  # type: ignore[operator]
        return list(found) if isinstance(found, tuple | list) else [found]

    def cache(self) -> str:
        from huggingface_hub import constants

        return str(constants.HF_HUB_CACHE)


class TorchVision(NetworkByName):
    """A classification network of torchvision. Source: https://docs.pytorch.org/vision/stable/models.html"""

    library, listing = "torchvision", "torchvision.models.list_models(torchvision.models)"

    @classmethod
    def names(cls) -> Sequence[str]:
        from torchvision import models

        return models.list_models(module=models)  # type: ignore[no-any-return]

    @classmethod
    def original(cls, name: str) -> Original:
        from torchvision import models

        weights = models.get_model_weights(name).DEFAULT
        images = weights.transforms()
        # These two would turn images normalised with `images.mean` into what their weights expect.
        mean, std = (HALVES, HALVES) if name in AUXILIARY_LOGITS else (images.mean, images.std)
        fixed = name.startswith(("vit_", "maxvit_"))
        return Original(images.crop_size[0], fixed, mean, std, weights.url)

    @classmethod
    def create(cls, name: str, channels: int, num_classes: int, size: tuple[int, int]) -> nn.Module:
        from torchvision import models

        sized: dict[str, Any] = {"image_size": size[0]} if name.startswith("vit_") else {}
        if name.startswith("maxvit_"):
            sized = {"input_size": size}
        plain = {"aux_logits": False, "init_weights": True} if name in AUXILIARY_LOGITS else {}
        arguments = {"weights": None, "num_classes": num_classes, **plain, **sized}
        device = torch.get_default_device()
        if name.startswith("regnet_") and device.type == "meta":  # it computes its widths with tensors
            with torch.random.fork_rng([]), torch.device("cpu"):
                network: nn.Module = models.get_model(name, **arguments).to(device)
        else:
            network = models.get_model(name, **arguments)
        if channels != PRETRAINED_CHANNELS:
            _replace_first_convolution(network, channels)
        return network

    def pretrained_state(self) -> Mapping[str, Tensor]:
        from torchvision import models

        state = models.get_model_weights(self.name).DEFAULT.get_state_dict(progress=False, check_hash=True)
        here, head = self.body.state_dict(), self._head_names()
        return {name: value for name, value in state.items() if name not in head or here[name].shape == value.shape}

    def heads(self) -> list[nn.Module]:
        return [[module for module in self.body.modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]]

    def cache(self) -> str:
        return f"{torch.hub.get_dir()}/checkpoints"


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise ValueError('needs timm: `make extras` installs it, or pip install "fmnist[timm]"') from error
    return timm


def _replace_first_convolution(network: nn.Module, channels: int) -> None:
    """Let the first convolution take images of another number of channels."""
    name, first = next((name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d))
    same: Any = {"kernel_size": first.kernel_size, "stride": first.stride, "padding": first.padding}
    network.set_submodule(name, nn.Conv2d(channels, first.out_channels, **same, bias=first.bias is not None))
