"""The inside of a network: its layers, filters, activation maps and features, and Grad-CAM."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from captum.attr import LayerAttribution, LayerGradCam, Saliency
from torch import Tensor, nn

from fmnist.evaluation.unfamiliar import features_and_logits

MOST_CONVOLUTIONS = 16
FINE = 7  # pixels of a side: coarser maps don't say where
MAPS, TOKENS = 4, 3
"""Numbers of axes: (N, C, H, W) and (N, tokens, features)."""


class Layer(NamedTuple):
    """One layer of a network, with its output shape for one image."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int


class Call(NamedTuple):
    """The last call of a layer in a forward pass, with its first argument and its output."""

    module: nn.Module
    input: Any
    output: Tensor


def count_parameters(network: nn.Module) -> int:
    """Return the number of weights, each a number of its own."""
    return sum(weights.numel() for weights in network.parameters())


def network_name(network: nn.Module) -> str:
    """Return what a network is called: its name in a library, or its class."""
    name = getattr(network, "name", None)
    return name if isinstance(name, str) else type(network).__name__


def layers(network: nn.Module, image_shape: tuple[int, int, int]) -> list[Layer]:
    """Return the layers in the order in which an image (C, H, W) passes them, except those with several outputs."""
    calls, _ = _forward(network, torch.zeros(1, *image_shape))
    return [
        Layer(name, type(call.module).__name__, tuple(call.output.shape[1:]), count_parameters(call.module))
        for name, call in calls.items()
    ]


def first_filters(network: nn.Module, image_shape: tuple[int, int, int]) -> Tensor | None:
    """Return the first layer's weights (F, H, W), averaged over channels; None if it takes no image (C, H, W).

    These are the kernels of a convolution, or the weight of each pixel for each unit of a linear layer.
    """
    first = next((module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)), None)
    if first is None:
        return None
    weights = first.weight.detach().float().cpu()
    if isinstance(first, nn.Linear):
        if first.in_features != torch.Size(image_shape).numel():
            return None
        weights = weights.view(-1, *image_shape)
    return weights.mean(dim=1)


def activation_maps(network: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Return the outputs (F, H, W) of convolutions, by name, for one normalised image (C, H, W).

    A network with many convolutions is shown by `MOST_CONVOLUTIONS` of them, from the first to the last. Where it
    reduces images to single pixels, these are left out.
    """
    calls, _ = _forward(network, image[None], nn.Conv2d)
    maps = {name: call.output[0] for name, call in calls.items()}
    maps = {name: each for name, each in maps.items() if each[0].numel() > 1} or maps
    step = max(1, (len(maps) - 1) / (MOST_CONVOLUTIONS - 1))
    shown = {round(i * step) for i in range(MOST_CONVOLUTIONS)}
    return {name: each.float().cpu() for i, (name, each) in enumerate(maps.items()) if i in shown}


def features(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the last linear layer's input (N, F), or else the logits, and the logits (N, K), for normalised images."""
    with _evaluating(network), torch.no_grad():
        found, logits = features_and_logits(network, images)
    return found.cpu(), logits.cpu()


def attribution(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[str, Tensor]:
    """Return the parts of the images that speak for a class, and the method that found them.

    The method is Grad-CAM of the last layer whose output has at least 7x7 pixels, or a quarter of the image's side if
    that is less, enlarged to the images; where none has, of the last one with more than one pixel. For a network
    without convolution or such a layer, or of tokens (a vision transformer), it is the absolute gradient (saliency).
    Sources: Selvaraju et al., https://arxiv.org/abs/1610.02391; Simonyan et al., https://arxiv.org/abs/1312.6034

    Args:
        images: normalised, (N, C, H, W).
        labels: the class in question, for each image (N).

    Returns:
        The method, and maps (N, H, W) from 0 to 1. The largest value of each is 1, or 0 where nothing speaks for the
        class.
    """
    with _evaluating(network):
        if found := _last_maps(network, images[:1]):
            name, layer = found
            maps = LayerGradCam(network, layer).attribute(images, target=labels, relu_attributions=True)
            method = f"Grad-CAM of {name}, {maps.shape[2]}x{maps.shape[3]} pixels"
            maps = LayerAttribution.interpolate(maps, tuple(images.shape[-2:]), "bilinear")
        else:
            method = "saliency"
            maps = Saliency(network).attribute(images.clone().requires_grad_(), target=labels)
    maps = maps.detach().float().cpu().amax(dim=1).clamp(min=0)
    largest = maps.amax(dim=(1, 2), keepdim=True)
    return method, maps / largest.where(largest > 0, 1)


def _last_maps(network: nn.Module, image: Tensor) -> tuple[str, nn.Module] | None:
    """Return name and module of the layer that `attribution` takes, in a network with convolutions.

    It takes a convolution only where there is no other layer: what the activation after it makes 0 speaks for no class.
    """
    if not any(isinstance(module, nn.Conv2d) for module in network.modules()):
        return None
    calls, _ = _forward(network, image)
    maps: list[Call] = []
    names = {call.module: name for name, call in calls.items()}
    for call in calls.values():
        if call.output.ndim == TOKENS or (call.output.ndim == MAPS and not _is_map(call.output, image)):
            maps = []
        elif call.output.ndim == MAPS and call.output[0, 0].numel() > 1:
            maps.append(call)
    if not maps:
        return None
    side = min(FINE, min(image.shape[2:]) // 4)
    maps = [call for call in maps if not isinstance(call.module, nn.Conv2d)] or maps
    fine = [call for call in maps if min(call.output.shape[2:]) >= side]
    chosen = (fine or maps)[-1].module
    return names[chosen], chosen


def _is_map(output: Tensor, image: Tensor) -> bool:
    """Return whether an output is (N, C, H, W), in the shape of the image, and not (N, H, W, C)."""
    (height, width), (rows, columns) = output.shape[2:], image.shape[2:]
    return abs(height - width * rows / columns) <= max(1, rows / columns)


@contextlib.contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Put the network into evaluation mode, and back into its mode before. No layer writes over another's output."""
    training = network.training
    in_place = [module for module in network.modules() if getattr(module, "inplace", False)]
    network.eval()
    for module in in_place:
        module.inplace = False  # type: ignore[assignment]
    try:
        yield
    finally:
        network.train(training)
        for module in in_place:
            module.inplace = True  # type: ignore[assignment]


def _forward(network: nn.Module, images: Tensor, kind: type[nn.Module] = nn.Module) -> tuple[dict[str, Call], Tensor]:
    """Return the calls of the layers of one kind, by name in their order, and the logits, all without gradients."""
    calls: dict[str, Call] = {}

    def hook(name: str) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                calls.pop(name, None)  # a layer that is called twice comes where it was called last
                calls[name] = Call(module, inputs[0], output)

        return keep

    with contextlib.ExitStack() as stack, torch.no_grad():
        stack.enter_context(_evaluating(network))
        for name, module in network.named_modules():
            if isinstance(module, kind) and not list(module.children()):
                stack.callback(module.register_forward_hook(hook(name)).remove)
        logits: Tensor = network(images)
    return calls, logits
