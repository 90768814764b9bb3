"""Looking into a network: its layers, its filters, what it makes of an image. Pure torch, and captum."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Layer:
    """One layer of a network, in the order in which an image passes them."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    """Of one image."""
    parameters: int


def count_parameters(network: nn.Module) -> int:
    """All its weights, each as one number."""
    return sum(weights.numel() for weights in network.parameters())


def layers(network: nn.Module, image_shape: tuple[int, int, int]) -> list[Layer]:
    """What an image (C, H, W) passes on its way to the logits."""
    with _outputs(network, lambda module: not list(module.children())) as outputs:
        network(torch.zeros(1, *image_shape))
    return [
        Layer(name, type(module).__name__, tuple(output.shape[1:]), count_parameters(module))
        for name, (module, output) in outputs.items()
    ]


def first_filters(network: nn.Module, image_shape: tuple[int, int, int]) -> Tensor | None:
    """The weights (F, H, W) that meet the image, averaged over its channels; None where they have no such shape.

    Of a convolution its kernels; of a linear layer the weight of each pixel, for each unit.
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
    """The maps (F, H, W) that each convolution, by name, makes of one normalised image (C, H, W)."""
    with _outputs(network, lambda module: isinstance(module, nn.Conv2d)) as outputs:
        network(image[None])
    return {name: output[0].float().cpu() for name, (_, output) in outputs.items()}


def features(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """What reaches the last linear layer (N, F), and the logits (N, K), for normalised images (N, C, H, W).

    A network without linear layers has its logits as features.
    """
    seen: list[Tensor] = []
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    handles = [module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for module in linear]
    try:
        with _evaluating(network), torch.no_grad():
            logits: Tensor = network(images)
    finally:
        for handle in handles:
            handle.remove()
    last = seen[-1] if seen else logits
    return last.flatten(1).float().cpu(), logits.float().cpu()


def attribution(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[str, Tensor]:
    """Which parts of the images speak for a class, and the name of the method that tells.

    Grad-CAM of the last layer that gives maps of more than one value, enlarged to the images; the size of the gradient
    (saliency) in a network that has no convolution or no such layer.
    Sources: Selvaraju et al., https://arxiv.org/abs/1610.02391; Simonyan et al., https://arxiv.org/abs/1312.6034

    Args:
        network: gives logits (N, K).
        images: normalised, (N, C, H, W).
        labels: the class asked about, for each image (N).

    Returns:
        The method, and maps (N, H, W) from 0 to 1, the strongest place of each image being 1 (or 0 where nothing
        speaks for the class).
    """
    from captum.attr import LayerAttribution, LayerGradCam, Saliency  # a second, which only a report should pay

    found = _last_maps(network, images[:1])
    with _evaluating(network):
        if found:
            name, layer = found
            method = f"Grad-CAM of {name}"
            maps = LayerGradCam(network, layer).attribute(images, target=labels, relu_attributions=True)
            maps = LayerAttribution.interpolate(maps, tuple(images.shape[-2:]), "bilinear")
        else:
            method = "saliency"
            maps = Saliency(network).attribute(images.clone().requires_grad_(), target=labels)
    maps = maps.detach().float().cpu().amax(dim=1).clamp(min=0)
    strongest = maps.amax(dim=(1, 2), keepdim=True)
    return method, maps / strongest.where(strongest > 0, 1)


def _last_maps(network: nn.Module, image: Tensor) -> tuple[str, nn.Module] | None:
    """Name and module of the last layer whose output has height and width, for a network of convolutions.

    Of the convolution itself Grad-CAM says little where batch norm and activation come after it: nine of ten maps of
    the default network are empty, against one of a hundred after its last activation.
    """
    if not any(isinstance(module, nn.Conv2d) for module in network.modules()):
        return None
    with _outputs(network, lambda module: not list(module.children())) as outputs:
        network(image)
    maps = [
        (name, module) for name, (module, output) in outputs.items() if output.ndim == 4 and output[0, 0].numel() > 1
    ]
    return maps[-1] if maps else None


@contextlib.contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """In evaluation mode, and afterwards as before: nothing is learned, no random number is drawn."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


@contextlib.contextmanager
def _outputs(network: nn.Module, wanted: Callable[[nn.Module], bool]) -> Iterator[dict[str, tuple[nn.Module, Tensor]]]:
    """Collects what the wanted modules give, where it is one tensor, by name and in the order of the calls."""
    outputs: dict[str, tuple[nn.Module, Tensor]] = {}

    def keeper(name: str) -> Callable[..., None]:
        def keep(module: nn.Module, _: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                outputs[name] = (module, output)

        return keep

    modules = [(name, module) for name, module in network.named_modules() if wanted(module)]
    handles = [module.register_forward_hook(keeper(name)) for name, module in modules]
    try:
        with _evaluating(network), torch.no_grad():
            yield outputs
    finally:
        for handle in handles:
            handle.remove()
