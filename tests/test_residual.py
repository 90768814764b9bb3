import pytest
import torch
from torch import nn

from fmnist.models import ResNet, WideResNet

SHAPE = (1, 28, 28)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def sizes(network: nn.Module) -> list[tuple[int, ...]]:
    """Channels, height and width after each block."""
    features = network.eval().stem(torch.zeros(1, *SHAPE))
    found = []
    for block in network.blocks:
        features = block(features)
        found.append(tuple(features.shape[1:]))
    return found


def test_resnet_parameters_worked_out_by_hand() -> None:
    network = ResNet(SHAPE, 10, channels=[4, 6], depth=[1, 2])
    first = 9 * 4 * 4 * 2 + 2 * 2 * 4
    second = 9 * 4 * 6 + 9 * 6 * 6 + 2 * 2 * 6 + (4 * 6 + 2 * 6)
    third = 9 * 6 * 6 * 2 + 2 * 2 * 6
    assert parameters(network) == (9 * 4 + 2 * 4) + first + second + third + (6 * 10 + 10)


@pytest.mark.parametrize(("depth", "width", "millions"), [(16, 4, 2.7), (28, 10, 36.5), (40, 4, 8.9)])
def test_wide_resnets_have_the_size_that_their_paper_gives(depth: int, width: int, millions: float) -> None:
    with torch.device("meta"):
        network = WideResNet(SHAPE, 10, depth, width)
    assert round(parameters(network) / 1e6, 1) == millions


def test_each_later_stage_halves_the_pixels_in_its_first_block() -> None:
    found = sizes(ResNet(SHAPE, 10, channels=[4, 6, 8], depth=[1, 2, 1]))
    assert found == [(4, 28, 28), (6, 14, 14), (6, 14, 14), (8, 7, 7)]
    assert sizes(WideResNet(SHAPE, 10, depth=10, width=1)) == [(16, 28, 28), (32, 14, 14), (64, 7, 7)]


def test_odd_sizes_are_halved_upwards() -> None:
    assert sizes(ResNet(SHAPE, 10, channels=[2, 2, 2, 2], depth=1))[-1] == (2, 4, 4)


@pytest.mark.parametrize(
    ("kernel", "stride", "side"), [(3, 1, 28), (5, 1, 28), (2, 2, 14), (3, 2, 14), (4, 2, 14), (5, 2, 14), (4, 4, 7)]
)
def test_stem_leaves_its_share_of_the_pixels(kernel: int, stride: int, side: int) -> None:
    for network in (
        ResNet(SHAPE, 10, [4], 1, stem_kernel=kernel, stem_stride=stride),
        WideResNet(SHAPE, 10, 10, 1, stem_kernel=kernel, stem_stride=stride),
    ):
        assert sizes(network)[0][1:] == (side, side)
        assert network(torch.zeros(2, *SHAPE)).shape == (2, 10)


def test_stem_may_have_its_own_channels_and_keep_the_largest_of_2x2_pixels() -> None:
    network = ResNet(SHAPE, 10, [4, 6], 1, stem_channels=3, stem_pooling=True)
    assert sizes(network) == [(4, 14, 14), (6, 7, 7)]
    convolution, pooling, norm, _ = network.stem
    assert (convolution.out_channels, norm.num_features) == (3, 3)
    images = torch.randn(2, *SHAPE)
    torch.testing.assert_close(pooling(images), nn.functional.max_pool2d(images, 2))
    with pytest.raises(ValueError, match="shrinks to nothing: 7 pixels a side are left by the stem"):
        ResNet(SHAPE, 10, [4, 4, 4], 1, stem_kernel=4, stem_stride=4, stem_pooling=True)


def test_the_linear_layer_sees_means_or_maxima_of_the_channels() -> None:
    images = torch.randn(2, *SHAPE)
    for kind, expected in (("mean", ["mean"]), ("max", ["amax"]), ("mean_max", ["mean", "amax"])):
        network = ResNet(SHAPE, 10, [4], 1, global_pooling=kind).eval()
        features = network.blocks(network.stem(images))
        pooled = torch.cat([getattr(features, name)(dim=(2, 3)) for name in expected], dim=1)
        torch.testing.assert_close(network(images), network.head(pooled))


def test_a_block_adds_to_what_it_is_given() -> None:
    """Where the residual is nothing, a block of the same shape is its input; the wide one's adds before the next."""
    features = torch.rand(2, 4, 5, 5)
    block = ResNet(SHAPE, 10, [4], 1).blocks[0]
    nn.init.zeros_(block.residual[-1].weight)
    torch.testing.assert_close(block(features), features)
    wide = WideResNet(SHAPE, 10, 10, 1).blocks[0]
    nn.init.zeros_(wide.residual[-1].weight)
    features = torch.randn(2, 16, 5, 5)
    torch.testing.assert_close(wide(features), features)


def test_depth_of_a_wide_resnet_is_four_and_a_multiple_of_six() -> None:
    with pytest.raises(ValueError, match="depth=20: it should be 4 and a multiple of 6"):
        WideResNet(SHAPE, 10, depth=20)


def test_list_of_another_length_than_the_stages_is_refused() -> None:
    with pytest.raises(ValueError, match="depth has 1 values for 2 blocks"):
        ResNet(SHAPE, 10, [4, 4], [1])


def test_stem_that_leaves_too_little_to_halve_is_refused() -> None:
    with pytest.raises(ValueError, match="shrinks to nothing: 7 pixels a side are left by the stem"):
        ResNet(SHAPE, 10, [4, 4, 4, 4], 1, stem_kernel=4, stem_stride=4)


def test_dropout_acts_in_training_alone() -> None:
    images = torch.randn(4, *SHAPE)
    for network in (ResNet(SHAPE, 10, [4], 1, dropout=0.5), WideResNet(SHAPE, 10, 10, 1, dropout=0.5)):
        network.eval()
        assert torch.equal(network(images), network(images))
        for dropout in (module for module in network.modules() if isinstance(module, nn.Dropout)):
            dropout.train()
        assert not torch.equal(network(images), network(images))
