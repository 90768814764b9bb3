"""Networks of timm and torchvision, by name, adapted to a dataset."""

import difflib
import functools
import logging
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, NamedTuple

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn
from torch.nn import functional

log = logging.getLogger(__name__)

USUAL_SIZE = 64  # pixels a side: two for each that a stride of 32 leaves, as most of these networks have
LARGER_SIZES = (96, 128, 160, 192, 224, 256, 299, 320, 384, 448, 512)
GRAY_OR_COLOUR = (1, 3)
PRETRAINED_CHANNELS = 3
Numbers = float | Sequence[float]


class Original(NamedTuple):
    """A network as its library made it.

    Args:
        size: side of the images, in pixels.
        fixed: whether it takes images of the size alone that it is built for.
        mean, std: of the pixels, scaled to 0..1, that its weights were trained with, for each channel.
        weights: where they are, or None if there are none.
    """

    size: int
    fixed: bool
    mean: Sequence[float]
    std: Sequence[float]
    weights: str | None


class NetworkByName(nn.Module):
    """Resize the images, normalise them as the pretrained weights need, and apply a network of a library.

    Args:
        image_shape, num_classes: (C, H, W) of the images, and the number of logits, K.
        name: of the network.
        pretrained: whether `load_pretrained` gives it the library's weights, but for the head. Images then have one or
            three channels; a single one is repeated.
        freeze: trains the head alone. The other layers stay in evaluation mode, so that the statistics of their batch
            norms don't change either.
        input_size: side to which images are resized. None takes the original's with `pretrained` and for a network that
            is built for one size; else images stay as they are, or become as large as the network needs, at least
            64 pixels a side.
        mean, std: of the dataset, for each channel, which its images were normalised with.

    Raises:
        ValueError: if the library has no such network or no weights for it, or it doesn't take such images.
    """

    library: str

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        name: str,
        pretrained: bool = False,
        freeze: bool = False,
        input_size: Annotated[int, Ge(1), Le(2048)] | None = None,
        mean: Numbers = 0.0,
        std: Numbers = 1.0,
    ) -> None:
        super().__init__()
        self.check_name(name)
        self.name, self.num_classes, self.pretrained, self.freeze = name, num_classes, pretrained, freeze
        original = self.original(name)
        channels, *sides = image_shape
        if pretrained:
            channels = self._prepare_pretrained(original, channels, mean, std)
        elif freeze:
            raise ValueError("freeze=true: needs model.pretrained=true, as the layers below the head would stay random")
        if input_size is None and (pretrained or original.fixed):
            input_size = original.size
        self.size = fitting_size(type(self), name, channels, num_classes, tuple(sides), input_size)
        self.resizes = self.size != tuple(sides)
        self.shrinks = max(sides) > min(self.size)
        self.body = self.create(name, channels, num_classes, self.size)
        if freeze:
            self.body.requires_grad_(False)
            for head in self.heads():
                head.requires_grad_(True)
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of normalised images (N, C, H, W)."""
        if self.resizes:
            images = functional.interpolate(images, self.size, mode="bilinear", antialias=self.shrinks)
        if self.pretrained:
            images = images * self.scale + self.shift
        logits: Tensor = self.body(images)
        return logits

    def train(self, mode: bool = True) -> "NetworkByName":
        super().train(mode)
        if self.freeze and mode:
            self.body.eval()
            for head in self.heads():
                head.train()
        return self

    def load_pretrained(self) -> None:
        """Load the library's weights, from its cache or through the network. A restored network doesn't need it.

        Raises:
            ValueError: if they can't be reached.
        """
        source = self.original(self.name).weights
        log.info("pretrained weights: %s", source)
        try:
            with quiet():
                state = self.pretrained_state()
        except (OSError, RuntimeError) as error:  # of sockets and disks; of a download with another checksum
            reason = " ".join(str(getattr(error, "reason", error)).split())[:200]
            raise ValueError(
                f"model.pretrained=true: {source} can't be reached ({reason}): connect this machine, or copy "
                f"{self.cache()} from one that has used them; model.pretrained=false starts from random weights"
            ) from error
        missing, _ = self.body.load_state_dict(state, strict=False)
        if lost := sorted(set(missing) - self._head_names()):
            raise ValueError(f"model.pretrained=true: {source} doesn't fit the network: it lacks {lost[0]}")

    def _prepare_pretrained(self, original: Original, channels: int, mean: Numbers, std: Numbers) -> int:
        """Register what turns the dataset's normalisation into the original one; return the number of channels."""
        if original.weights is None:
            raise ValueError(f"pretrained=true: {self.library} has no weights for {self.name}")
        if channels not in GRAY_OR_COLOUR:
            raise ValueError(f"pretrained=true: takes images of 1 or 3 channels, not {channels}")
        here, there = ([torch.tensor(value).view(-1, 1, 1) for value in pair] for pair in ((mean, std), original[2:4]))
        self.register_buffer("scale", (here[1] / there[1])[None])
        self.register_buffer("shift", ((here[0] - there[0]) / there[1])[None])
        return PRETRAINED_CHANNELS

    def _head_names(self) -> set[str]:
        """Return the names of the parameters of the head in `body`."""
        head = {id(weights) for layer in self.heads() for weights in layer.parameters()}
        return {name for name, weights in self.body.named_parameters() if id(weights) in head}

    @classmethod
    def check_name(cls, name: str) -> None:
        """Refuse a name that isn't in the library's list: others would be looked up on disk or through the network.

        Raises:
            ValueError: with the nearest names.
        """
        known = cls.names()
        if name in known:
            return
        near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"{cls.listing} lists them"
        raise ValueError(f"name={name}: {cls.library} has no such network; {hint}")

    listing: str
    """What to call in Python for a list of the names."""

    @classmethod
    @abstractmethod
    def names(cls) -> Sequence[str]:
        """Return the names of all networks."""

    @classmethod
    @abstractmethod
    def original(cls, name: str) -> Original:
        """Return the facts of a network."""

    @classmethod
    @abstractmethod
    def create(cls, name: str, channels: int, num_classes: int, size: tuple[int, int]) -> nn.Module:
        """Return a network with random weights for images (N, channels, *size), a fixed size if it has one."""

    @abstractmethod
    def pretrained_state(self) -> Mapping[str, Tensor]:
        """Return the pretrained weights by name, without those of a head for another number of classes."""

    @abstractmethod
    def heads(self) -> list[nn.Module]:
        """Return the layers that give the logits."""

    @abstractmethod
    def cache(self) -> str:
        """Return the folder or file that keeps the pretrained weights."""


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
            return Original(USUAL_SIZE, False, (0.5,) * 3, (0.5,) * 3, None)
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
        return self.create(self.name, PRETRAINED_CHANNELS, self.num_classes, self.size, pretrained=True).state_dict()

    def heads(self) -> list[nn.Module]:
        found = self.body.get_classifier()  # type: ignore[operator]
        return list(found) if isinstance(found, tuple | list) else [found]

    def cache(self) -> str:
        from huggingface_hub import constants

        return str(constants.HF_HUB_CACHE)


class TorchVision(NetworkByName):
    """A classification network of torchvision. Source: https://docs.pytorch.org/vision/stable/models.html"""

    library, listing = "torchvision", "torchvision.models.list_models(torchvision.models)"
    AUXILIARY = {"aux_logits": False, "init_weights": True}  # logits of other layers than the last
    ARGUMENTS: Mapping[str, Mapping[str, Any]] = {"googlenet": AUXILIARY, "inception_v3": AUXILIARY}

    @classmethod
    def names(cls) -> Sequence[str]:
        from torchvision import models

        return models.list_models(module=models)  # type: ignore[no-any-return]

    @classmethod
    def original(cls, name: str) -> Original:
        from torchvision import models

        weights = models.get_model_weights(name).DEFAULT
        images = weights.transforms()
        fixed = name.startswith(("vit_", "maxvit_"))
        return Original(images.crop_size[0], fixed, images.mean, images.std, weights.url)

    @classmethod
    def create(cls, name: str, channels: int, num_classes: int, size: tuple[int, int]) -> nn.Module:
        from torchvision import models

        sized = {"image_size": size[0]} if name.startswith("vit_") else {}
        if name.startswith("maxvit_"):
            sized = {"input_size": size}
        arguments = {"weights": None, "num_classes": num_classes, **cls.ARGUMENTS.get(name, {}), **sized}
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


@functools.cache
def fitting_size(
    kind: type[NetworkByName],
    name: str,
    channels: int,
    num_classes: int,
    sides: tuple[int, int],
    wanted: int | None,
) -> tuple[int, int]:
    """Return the height and width to which images are resized, after a trial without memory for the weights.

    Args:
        sides: height and width of the images.
        wanted: both of the result, or None for those of the images or the smallest that the network takes.

    Raises:
        ValueError: if the network doesn't take them.
    """
    if wanted is not None:
        sizes = [(wanted, wanted)]
    else:
        least = max(*sides, USUAL_SIZE)
        usual = sides if min(sides) >= USUAL_SIZE else (USUAL_SIZE, USUAL_SIZE)
        sizes = [usual, *((size, size) for size in LARGER_SIZES if size > least)]
    problems = []
    for size in sizes:
        try:
            with torch.random.fork_rng([]), torch.device("meta"), quiet(), torch.no_grad():
                logits = kind.create(name, channels, num_classes, size).eval()(torch.zeros(2, channels, *size))
            if isinstance(logits, Tensor) and logits.shape == (2, num_classes):
                return size
            problems.append("it returns no logits (N, K)")
        except Exception as error:  # of a library's network in an input that it isn't made for
            problems.append(" ".join(str(error).split())[:200] or type(error).__name__)
    if wanted is None:
        raise ValueError(f"name={name}: can't be adapted to images of {sides[0]}x{sides[1]} pixels: {problems[0]}")
    default = kind.original(name).size
    raise ValueError(
        f"input_size={wanted}: {name} doesn't take it: {problems[0]}; it was made for {default}, and null is the default"
    )


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise ValueError("""timm isn't installed: `make extras` does it, or pip install "fmnist[timm]\"""") from error
    return timm


def _replace_first_convolution(network: nn.Module, channels: int) -> None:
    """Let the first convolution take images of another number of channels."""
    name, first = next((name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d))
    replaced = nn.Conv2d(
        channels, first.out_channels, first.kernel_size, first.stride, first.padding, bias=first.bias is not None
    )
    network.set_submodule(name, replaced)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings and log lines of the libraries from the user, who can do nothing about them."""
    loggers = [logging.getLogger(name) for name in ("timm", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
