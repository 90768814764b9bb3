import pytest
import torch
from torch import Tensor, nn

from fmnist.evaluation import inspection
from fmnist.models import CNN, MLP

SHAPE = (1, 28, 28)


def cnn() -> CNN:
    torch.manual_seed(0)
    return CNN(SHAPE, 10, [4, 6], padding=0, hidden=[12], dropout=0.5)


def test_layers_have_the_sizes_worked_out_by_hand() -> None:
    found = inspection.layers(cnn(), SHAPE)
    assert [layer[1:] for layer in found if layer.parameters or layer.kind == "MaxPool2d"] == [  # 28 -> 26 -> 13 -> 11
        ("Conv2d", (4, 26, 26), 36),
        ("MaxPool2d", (4, 13, 13), 0),
        ("BatchNorm2d", (4, 13, 13), 8),
        ("Conv2d", (6, 11, 11), 216),
        ("MaxPool2d", (6, 5, 5), 0),
        ("BatchNorm2d", (6, 5, 5), 12),
        ("Linear", (12,), 150 * 12 + 12),
        ("Linear", (10,), 12 * 10 + 10),
    ]
    assert [found[0].name, found[-1].name] == ["blocks.0", "head.3"]
    assert sum(layer.parameters for layer in found) == inspection.count_parameters(cnn())


def test_first_filters_are_kernels_averaged_over_channels_or_a_weight_for_each_pixel() -> None:
    network = CNN((3, 8, 8), 10, [5])
    filters = inspection.first_filters(network, (3, 8, 8))
    torch.testing.assert_close(filters, network.blocks[0].weight.mean(dim=1))
    network = MLP(SHAPE, 10, [7])
    assert torch.equal(inspection.first_filters(network, SHAPE).flatten(1), network.head[0].weight)
    assert inspection.first_filters(network, (1, 14, 14)) is None


def test_activation_maps_are_the_outputs_of_each_convolution() -> None:
    network, image = cnn(), torch.rand(SHAPE)
    maps = inspection.activation_maps(network, image)
    assert list(maps) == ["blocks.0", "blocks.4"]
    torch.testing.assert_close(maps["blocks.0"], network.blocks[0](image[None])[0].detach())


def test_features_are_the_input_of_the_last_linear_layer_or_the_logits() -> None:
    network, images = cnn(), torch.rand(3, *SHAPE)
    features, logits = inspection.features(network, images)
    assert features.shape == (3, 12)
    torch.testing.assert_close(network.head[-1](features), logits)
    torch.testing.assert_close(network.eval()(images), logits)
    features, logits = inspection.features(nn.Sequential(nn.Conv2d(1, 10, 28), nn.Flatten()), images)
    assert torch.equal(features, logits)


class Light(nn.Sequential):
    """The light in an image speaks for class 0 and against class 1."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 1, 1, bias=False))
        nn.init.ones_(self[0].weight)

    def forward(self, images: Tensor) -> Tensor:
        light = self[0](images).sum((1, 2, 3))
        return torch.stack([light, -light], dim=1)


def test_grad_cam_shows_the_bright_place_for_its_class_and_nothing_for_the_other() -> None:
    images = torch.zeros(2, 1, 8, 8)
    images[:, :, 2, 3] = 5.0
    method, maps = inspection.attribution(Light(), images, torch.tensor([1, 0]))
    assert method == "Grad-CAM of 0, 8x8 pixels"
    assert maps.shape == (2, 8, 8)
    assert maps[0].sum() == 0
    assert (maps[1] == 1).nonzero().tolist() == [[2, 3]]
    assert maps[1].sum() == 1


@pytest.mark.parametrize(
    ("network", "layer"),
    [
        (cnn(), "blocks.3, 13x13 pixels"),  # 28 -> 13 -> 5
        (CNN(SHAPE, 10, [2] * 3), "blocks.7, 7x7 pixels"),  # 28 -> 14 -> 7 -> 3
        (CNN(SHAPE, 10, [2] * 3, pooling="none"), "blocks.8, 28x28 pixels"),
        (CNN(SHAPE, 10, [2, 2], kernel_size=[3, 13], padding=0, pooling=["max", "none"]), "blocks.3, 13x13 pixels"),
        (CNN(SHAPE, 10, [2], kernel_size=5, padding=0, stride=5, pooling="none"), "blocks.2, 5x5 pixels"),  # has no 7x7
        (CNN((1, 8, 8), 10, [2] * 3), "blocks.7, 2x2 pixels"),  # a quarter of the image's side
    ],
)
def test_grad_cam_is_of_the_last_layer_that_says_where(network: CNN, layer: str) -> None:
    image_shape = (1, 8, 8) if "2x2" in layer else SHAPE
    images, labels = torch.rand(2, *image_shape), torch.tensor([0, 1])
    method, maps = inspection.attribution(network, images, labels)
    assert method == f"Grad-CAM of {layer}"
    assert maps.shape == (2, *image_shape[1:])


def test_saliency_takes_the_place_of_grad_cam_without_convolutions() -> None:
    network = MLP((1, 4, 4), 2, [])
    nn.init.zeros_(network.head[-1].weight)
    network.head[-1].weight.data[1, 6] = -3.0
    method, maps = inspection.attribution(network, torch.rand(2, 1, 4, 4), torch.tensor([1, 1]))
    assert method == "saliency"
    assert [each.nonzero().tolist() for each in maps] == [[[1, 2]], [[1, 2]]]


def test_inspection_changes_neither_weights_nor_mode_nor_random_numbers() -> None:
    network = cnn().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(7)
    state = torch.get_rng_state()
    images = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    inspection.layers(network, SHAPE)
    inspection.activation_maps(network, images[0])
    inspection.features(network, images)
    inspection.attribution(network, images, torch.tensor([0, 1]))
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_layers_with_several_outputs_are_left_out() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.LSTM(28, 6, batch_first=True)
            self.head = nn.Linear(6, 10)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.head(self.rows(images[:, 0])[0][:, -1])
            return logits

    assert [layer.kind for layer in inspection.layers(Recurrent(), SHAPE)] == ["Linear"]
    assert inspection.features(Recurrent(), torch.rand(2, *SHAPE))[0].shape == (2, 6)
