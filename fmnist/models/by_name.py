"""Networks of libraries, by name, adapted to a dataset; `fmnist.models.libraries` has the libraries."""

import difflib
import functools
import io
import logging
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Annotated, NamedTuple

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
    listing: str
    """What to call in Python for a list of the names."""
    scale: Tensor
    shift: Tensor

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
        self.size = fitting_size(type(self), name, channels, num_classes, tuple(sides), input_size)  # type: ignore[arg-type]
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
        except Exception as error:  # of sockets, disks, and the readers of several formats
            reason = " ".join(str(getattr(error, "reason", error)).split())[:200]
            raise ValueError(
                f"model.pretrained=true: {source} can't be fetched or read ({reason}): connect this machine, or copy "
                f"{self.cache()} from one that has used it; model.pretrained=false starts from random weights"
            ) from error
        try:
            missing, _ = self.body.load_state_dict(state, strict=False)
            problems = [f"it lacks {name}" for name in sorted(set(missing) - self._head_names())]
        except RuntimeError as error:  # of another shape
            problems = [str(error).split("\n\t")[-1].strip()[:200]]
        if problems:
            raise ValueError(
                f"model.pretrained=true: {source} doesn't fit the network: {problems[0]}; "
                "it does with model.input_size=null"
            )

    def _prepare_pretrained(self, original: Original, channels: int, mean: Numbers, std: Numbers) -> int:
        """Register what turns the dataset's normalisation into the original one; return the number of channels."""
        if original.weights is None:
            raise ValueError(f"pretrained=true: {self.library} has no weights for {self.name}")
        if channels not in GRAY_OR_COLOUR:
            raise ValueError(f"pretrained=true: takes images of 1 or 3 channels, not {channels}")
        values = (mean, std, original.mean, original.std)
        mean_here, std_here, mean_there, std_there = (torch.tensor(value).float().view(1, -1, 1, 1) for value in values)
        self.register_buffer("scale", std_here / std_there)
        self.register_buffer("shift", (mean_here - mean_there) / std_there)
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
    raise ValueError(
        f"input_size={wanted}: {name} doesn't take it ({problems[0]}); null takes a size that fits, and "
        f"{kind.original(name).size} is what it was made for"
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep from the terminal what the libraries write there: warnings, log lines, the progress of downloads."""
    loggers = [logging.getLogger(name) for name in ("timm", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
