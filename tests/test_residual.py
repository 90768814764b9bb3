"""Residual networks: sizes, parameters and values worked out by hand."""

import pytest
import torch
from torch import nn

from fmnist.models import ResNet, WideResNet

SHAPE = (1, 28, 28)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def sizes(network: nn.Module) -> list[tuple[int, ...]]:
    """Return channels, height and width after each block."""
    features = network.eval().stem(torch.zeros(1, *SHAPE))
    found = []
    for block in network.blocks:
        features = block(features)
        found.append(tuple(features.shape[1:]))
    return found


def test_resnet_has_the_parameters_worked_out_by_hand() -> None:
    network = ResNet(SHAPE, 10, channels=[4, 6], depth=[1, 2])
    first = 9 * 4 * 4 * 2 + 2 * 2 * 4
    second = 9 * 4 * 6 + 9 * 6 * 6 + 2 * 2 * 6 + (4 * 6 + 2 * 6)
    third = 9 * 6 * 6 * 2 + 2 * 2 * 6
    assert parameters(network) == (9 * 4 + 2 * 4) + first + second + third + (6 * 10 + 10)


@pytest.mark.parametrize(("depth", "width", "millions"), [(16, 4, 2.7), (28, 10, 36.5), (40, 4, 8.9)])
def test_wide_resnets_have_as_many_parameters_as_in_their_paper(depth: int, width: int, millions: float) -> None:
    with torch.device("meta"):
        network = WideResNet(SHAPE, 10, depth, width)
    assert round(parameters(network) / 1e6, 1) == millions


def test_the_first_block_of_each_later_stage_halves_the_size() -> None:
    found = sizes(ResNet(SHAPE, 10, channels=[4, 6, 8], depth=[1, 2, 1]))
    assert found == [(4, 28, 28), (6, 14, 14), (6, 14, 14), (8, 7, 7)]
    assert sizes(WideResNet(SHAPE, 10, depth=10, width=1)) == [(16, 28, 28), (32, 14, 14), (64, 7, 7)]
    assert sizes(ResNet(SHAPE, 10, channels=[2, 2, 2, 2], depth=1))[-1] == (2, 4, 4)  # odd sizes are rounded up


@pytest.mark.parametrize(
    ("kernel", "stride", "side"), [(3, 1, 28), (5, 1, 28), (2, 2, 14), (3, 2, 14), (5, 2, 14), (4, 4, 7)]
)
def test_stem_reduces_the_size_by_its_stride(kernel: int, stride: int, side: int) -> None:
    stem = {"stem_kernel": kernel, "stem_stride": stride}
    for network in (ResNet(SHAPE, 10, [4], 1, **stem), WideResNet(SHAPE, 10, 10, 1, **stem)):
        assert sizes(network)[0][1:] == (side, side)
        assert network(torch.zeros(2, *SHAPE)).shape == (2, 10)


def test_stem_may_have_its_own_channels_and_max_pooling() -> None:
    network = ResNet(SHAPE, 10, [4, 6], 1, stem_channels=3, stem_pooling=True)
    assert sizes(network) == [(4, 14, 14), (6, 7, 7)]
    convolution, pooling, norm, _ = network.stem
    assert (convolution.out_channels, norm.num_features) == (3, 3)
    images = torch.randn(2, *SHAPE)
    torch.testing.assert_close(pooling(images), nn.functional.max_pool2d(images, 2))


@pytest.mark.parametrize("options", [{"channels": [4, 4, 4], "stem_pooling": True}, {"channels": [4, 4, 4, 4]}])
def test_a_stem_that_leaves_too_little_to_halve_is_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="shrinks to nothing: the stem leaves 7 pixels a side for 3 halvings"):
        ResNet(SHAPE, 10, depth=1, stem_kernel=4, stem_stride=4, **options)


@pytest.mark.parametrize(("network", "channels"), [(ResNet(SHAPE, 10, [4], 1), 4), (WideResNet(SHAPE, 10, 10, 1), 16)])
def test_a_block_adds_its_input(network: nn.Module, channels: int) -> None:
    features, block = torch.rand(2, channels, 5, 5), network.blocks[0]
    nn.init.zeros_(block.residual[-1].weight)
    torch.testing.assert_close(block(features), features)


def test_depths_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="depth=20: must be 6 \\* n \\+ 4"):
        WideResNet(SHAPE, 10, depth=20)
    with pytest.raises(ValueError, match="depth has 1 values for 2 blocks"):
        ResNet(SHAPE, 10, [4, 4], [1])
