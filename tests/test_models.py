"""Networks: sizes, parameters and values worked out by hand, and what is refused."""

import random

import pytest
import torch
from torch import nn
from torch.nn import functional

from fmnist.models import CNN, MLP, ResNet, WideResNet
from fmnist.models.layers import L2Pool2d, output_size, same_padding

SHAPE = (1, 28, 28)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def features(network: CNN, size: int = 28) -> tuple[int, ...]:
    """Return channels, height and width after the blocks."""
    return tuple(network.eval().blocks(torch.zeros(1, 1, size, size)).shape[1:])


def constant_weights(network: nn.Module) -> nn.Module:
    """Set every weight to 1 and every bias to 0."""
    for name, parameter in network.named_parameters():
        nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
    return network


def test_output_size_agrees_with_torch_wherever_the_kernel_fits() -> None:
    draw = random.Random(0)
    fits = 0
    for _ in range(400):
        size, kernel, stride, padding = (draw.randint(low, high) for low, high in ((1, 16), (1, 7), (1, 6), (0, 4)))
        expected = output_size(size, kernel, stride, padding)
        image, weight = torch.zeros(1, 1, size, size), torch.zeros(1, 1, kernel, kernel)
        if expected >= 1:
            assert functional.conv2d(image, weight, stride=stride, padding=padding).shape[-1] == expected
            fits += 1
        else:
            with pytest.raises(RuntimeError):
                functional.conv2d(image, weight, stride=stride, padding=padding)
    assert 200 < fits < 400
    assert all(output_size(20, kernel, 1, same_padding(kernel)) == 20 for kernel in (1, 3, 5, 11))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"channels": [4, 8], "padding": 0}, (8, 5, 5)),  # 28 -> 26 -> 13 -> 11 -> 5
        ({"channels": [20, 50], "kernel_size": 5, "padding": 0}, (50, 4, 4)),  # 28 -> 24 -> 12 -> 8 -> 4
        ({"channels": [4, 2], "pooling": ["none", "average"], "stride": [2, 1]}, (2, 7, 7)),
        ({"channels": [2, [3, 4, 6], [5]], "kernel_size": [3, 5, 3]}, (5, 3, 3)),  # 28 -> 14 -> 7 -> 3
        (  # 28 -> 28, -> 13 -> 6, -> 7 -> 3
            {
                "channels": [2, 3, 4],
                "kernel_size": [5, 3, 4],
                "stride": [1, 2, 1],
                "padding": ["same", 0, 2],
                "pooling": ["none", "average", "max"],
            },
            (4, 3, 3),
        ),
    ],
)
def test_cnn_blocks_have_the_size_worked_out_by_hand(arguments: dict, expected: tuple[int, int, int]) -> None:
    network = CNN(SHAPE, 10, **arguments)
    assert features(network) == expected
    assert network(torch.zeros(3, *SHAPE)).shape == (3, 10)


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        # (3*3*1*4 + 2*4) + (3*3*4*8 + 2*8), then 8*5*5 features: (200*16 + 16) + (16*10 + 10)
        (CNN(SHAPE, 10, [4, 8], padding=0, hidden=[16]), 44 + 304 + 3216 + 170),
        # (3*3*1*4 + 4) + (3*3*4*8 + 8) + ...
        (CNN(SHAPE, 10, [4, 8], padding=0, hidden=[16], batch_norm=False), 40 + 296 + 3216 + 170),
        (CNN((3, 8, 8), 7, [5], pooling="none"), 3 * 3 * 3 * 5 + 10 + 5 * 64 * 7 + 7),
        (MLP(SHAPE, 10, [256, 128]), 784 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10),
        (MLP((3, 4, 5), 7, []), 60 * 7 + 7),
    ],
)
def test_parameter_count_worked_out_by_hand(network: nn.Module, expected: int) -> None:
    assert parameters(network) == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_l2_pooling_of_windows_of_zeros_has_a_gradient(dtype: torch.dtype) -> None:
    pixels = [[0.0, 0.0, 300.0, 0.0], [0.0, 0.0, 0.0, 400.0]]
    features = torch.tensor([[pixels]], dtype=dtype, requires_grad=True)
    pooled = L2Pool2d(2)(features)
    torch.testing.assert_close(pooled, torch.tensor([[[[0.0, 500.0]]]], dtype=dtype), atol=1e-5, rtol=1e-2)
    pooled.sum().backward()
    assert features.grad is not None
    expected = torch.tensor([[0.6, 0.0], [0.0, 0.8]], dtype=dtype)
    torch.testing.assert_close(features.grad[0, 0, :, 2:], expected, atol=1e-2, rtol=0)
    assert (features.grad[..., :2] == 0).all()


@pytest.mark.parametrize(("pooling", "expected"), [("max", 4.0), ("average", 2.5), ("l2", 30**0.5), ("none", 10.0)])
def test_pooling_of_2x2_windows_by_value(pooling: str, expected: float) -> None:
    network = CNN((1, 2, 2), 1, [1], kernel_size=1, batch_norm=False, pooling=pooling)
    assert constant_weights(network)(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [("none", [1, 2, 3, 6, -4, -3, -2, 1]), ("mean", [3, -2]), ("max", [6, 1]), ("mean_max", [3, -2, 6, 1])],
)
def test_global_pooling_by_value(pooling: str, expected: list[float]) -> None:
    network = CNN((2, 2, 2), 3, [2], global_pooling=pooling, pooling="none")
    assert parameters(network.head) == 3 * len(expected) + 3
    network.blocks = nn.Identity()
    network.head = nn.Identity()
    images = torch.tensor([[[1.0, 2.0], [3.0, 6.0]], [[-4.0, -3.0], [-2.0, 1.0]]])
    assert network(images[None]).tolist() == [expected]


def test_batch_norm_acts_after_each_convolution() -> None:
    network = constant_weights(CNN((1, 1, 1), 1, [1], kernel_size=1, activation="leaky_relu", pooling="none"))
    images = torch.tensor([10.0, 30.0]).reshape(2, 1, 1, 1)
    torch.testing.assert_close(network.train()(images).flatten(), torch.tensor([-0.01, 1.0]))


@pytest.mark.parametrize(
    ("argument", "value"), [("kernel_size", [3]), ("stride", [1, 1, 1]), ("padding", ["same"]), ("pooling", [])]
)
def test_a_list_of_another_length_than_the_blocks_is_refused(argument: str, value: list) -> None:
    with pytest.raises(ValueError, match=f"^{argument} has {len(value)} values for 2 blocks"):
        CNN(SHAPE, 10, [4, 8], **{argument: value})


@pytest.mark.parametrize(
    ("pooling", "flat"), [("max", ["max", "none", "max"]), ("average", ["average", "none", "average"])]
)
def test_a_block_of_two_convolutions_is_two_blocks_of_which_the_first_does_not_pool(pooling: str, flat: list) -> None:
    nested, same = CNN(SHAPE, 10, [4, [6, 8]], pooling=pooling), CNN(SHAPE, 10, [4, 6, 8], pooling=flat)
    same.load_state_dict(nested.state_dict())
    images = torch.randn(5, *SHAPE)
    torch.testing.assert_close(nested(images), same(images), rtol=0, atol=0)


def test_an_even_kernel_with_padding_same_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'same' needs an odd kernel size, got 4"):
        CNN(SHAPE, 10, [4, 8], kernel_size=[3, 4])


@pytest.mark.parametrize(
    ("arguments", "layer", "kernel", "reaches"),
    [
        ({"channels": [2] * 5}, "pooling after convolution 5 of 5", "2x2", "1x1"),  # 28, 14, 7, 3, 1
        ({"channels": [2, 2], "padding": 0, "kernel_size": [3, 15]}, "convolution 2 of 2", "15x15", "13x13"),
        ({"channels": [2], "padding": 0, "kernel_size": 29}, "convolution 1 of 1", "29x29", "28x28"),
    ],
)
def test_a_network_that_shrinks_to_nothing_is_refused_with_layer_kernel_and_size(
    arguments: dict, layer: str, kernel: str, reaches: str
) -> None:
    with pytest.raises(ValueError, match=f": {layer} has a {kernel} kernel, but only {reaches} pixels reach it"):
        CNN(SHAPE, 10, **arguments)


def test_height_and_width_may_differ() -> None:
    assert CNN((2, 9, 21), 4, [3, 5])(torch.zeros(6, 2, 9, 21)).shape == (6, 4)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize(
    ("network", "arguments"),
    [
        (CNN, {"channels": [4]}),
        (CNN, {"channels": [4], "hidden": [20]}),
        (MLP, {"hidden": [20]}),
        (MLP, {"hidden": []}),
        (ResNet, {"channels": [4], "depth": 1}),
        (WideResNet, {"depth": 10, "width": 1}),
    ],
)
def test_dropout_acts_in_training_only(network: type[nn.Module], arguments: dict, dropout: float) -> None:
    built, images = network(SHAPE, 10, dropout=dropout, **arguments), torch.rand(4, *SHAPE)
    assert torch.equal(built.train()(images), built(images)) == (dropout == 0)
    assert torch.equal(built.eval()(images), built(images))


def test_mlp_without_hidden_layers_is_one_linear_layer() -> None:
    network, images = MLP((2, 3, 4), 5, []), torch.rand(6, 2, 3, 4)
    weight, bias = network.parameters()
    torch.testing.assert_close(network(images), images.flatten(1) @ weight.T + bias)
