"""Photos of items in known grays, on known backgrounds, against the 28 x 28 images of which they are made."""

import numpy as np
import pytest
import synthetic
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from fmnist.data.info import FASHION_MNIST
from fmnist.predict.preparation import Prepared, prepare

SHAPE = FASHION_MNIST.image_shape
WHITE = 255
OUTLINES = {
    "shirt": [(9, 0), (18, 0), (27, 7), (23, 12), (20, 10), (20, 27), (7, 27), (7, 10), (4, 12), (0, 7)],
    "trousers": [(8, 0), (19, 0), (21, 27), (16, 27), (14, 8), (11, 27), (6, 27)],
    "boot": [(14, 3), (24, 3), (24, 14), (27, 24), (0, 24), (0, 18), (13, 14)],
}
TOO_LITTLE, NO_ITEM = "too little contrast: nothing stands out", "no item found: the background has"
Gray = float | tuple[int, int, int]


def item(name: str) -> NDArray[np.float64]:
    """Return an image (28, 28) as in the dataset, scaled to 0..1: bright with dark folds, on black."""
    image = Image.new("1", (28, 28))
    ImageDraw.Draw(image).polygon(OUTLINES[name], fill=1)
    return np.asarray(image) * (0.75 + 0.25 * np.cos(0.9 * np.arange(28)))


def photo(
    image: NDArray[np.float64],
    gray: Gray,
    background: Gray | NDArray[np.float64],
    size: int = 112,
    margin: int = 12,
    noise: float = 0,
) -> Image.Image:
    """Return a square photo of an item.

    Args:
        gray: where the image is white; also a colour.
        background: where it is black; also one for each pixel.
        margin: pixels around the item.
        noise: standard deviation.
    """
    inner = (size - 2 * margin,) * 2
    large = np.asarray(Image.fromarray(image.astype(np.float32)).resize(inner, Image.Resampling.BICUBIC)).clip(0, 1)
    share = np.pad(large, margin)
    if isinstance(gray, tuple):
        share = share[..., None]
    values = share * np.array(gray) + (1 - share) * np.array(background)
    values = values + np.random.default_rng(0).normal(0, noise, values.shape) if noise else values
    return Image.fromarray(values.round().clip(0, WHITE).astype(np.uint8))


def likeness(prepared: Prepared, image: NDArray[np.float64]) -> float:
    """Return the correlation of the network's input and the image of which the photo was made, both a bit smoothed."""
    smooth = [ndimage.gaussian_filter(pixels, 0.7) for pixels in (prepared.pixels[0].float().numpy(), image)]
    return float(np.corrcoef(*map(np.ravel, smooth))[0, 1])


GRAYS = [(10, 255), (250, 0), (10, 127), (250, 130), (10, 70), (70, 10), (190, 130), (130, 190), (250, 190)]


@pytest.mark.parametrize(("size", "margin", "noise"), [(28, 0, 0), (28, 0, 3), (56, 6, 3), (112, 0, 10), (300, 60, 20)])
@pytest.mark.parametrize(("gray", "background"), GRAYS)
def test_item_of_any_gray_on_any_background_reaches_the_network(
    gray: int, background: int, size: int, margin: int, noise: float
) -> None:
    for name in OUTLINES:
        prepared = prepare(photo(item(name), gray, background, size, margin, noise), SHAPE)
        assert likeness(prepared, item(name)) > 0.93
        assert prepared.inverted == (gray < background)
        assert prepared.pixels.max() >= 240


@pytest.mark.parametrize(("contrast", "noise", "told"), [(30, 3, True), (20, 0, True), (30, 20, False), (5, 0, False)])
def test_too_little_contrast_is_reported(contrast: int, noise: float, told: bool) -> None:
    for name in OUTLINES:
        for gray, background in ((128, 128 + contrast), (128, 128 - contrast)):
            picture = photo(item(name), gray, background, 56, 6, noise)
            if told:
                assert likeness(prepare(picture, SHAPE), item(name)) > 0.9
            else:
                with pytest.raises(ValueError, match=TOO_LITTLE):
                    prepare(picture, SHAPE)


@pytest.mark.parametrize("size", [(1, 1), (228, 1), (1, 228), (28, 28), (29, 28), (3, 2), (224, 168)])
def test_blank_picture_is_refused(size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    for noise in (0, 3, 30):
        values = random.normal(0, noise, size[::-1])
        texture = 127 + ndimage.gaussian_filter(values, 1)
        for blank in (values, values + 127, values + WHITE, texture, texture + np.linspace(-40, 40, size[0])):
            with pytest.raises(ValueError, match=f"{TOO_LITTLE}|{NO_ITEM}"):
                prepare(Image.fromarray(blank.round().clip(0, WHITE).astype(np.uint8)), SHAPE)


def test_texture_and_floor_are_no_items() -> None:
    overexposed = WHITE + ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 100, (224, 224)), 2)
    boot = np.asarray(photo(item("boot"), 20, 190))
    on_floor = np.where((np.arange(112)[:, None] > 80) & (boot > 130), 130, boot)
    for values in (overexposed, on_floor):
        with pytest.raises(ValueError, match=NO_ITEM):
            prepare(Image.fromarray(values.clip(0, WHITE).astype(np.uint8)), SHAPE)


def test_images_as_in_the_dataset_keep_their_pixels() -> None:
    images, _ = synthetic.make(100, seed=0, black=True)
    for pixels in images:
        for light in (False, True):
            picture = Image.fromarray((WHITE - pixels if light else pixels).numpy())
            for mode in ("L", "RGB"):
                prepared = prepare(picture.convert(mode), SHAPE)
                assert torch.equal(prepared.pixels, pixels[None])
                assert prepared.inverted == light
    border = torch.zeros(28, 28, dtype=torch.uint8)
    border[2:26] = border[:, 2:26] = WHITE
    assert torch.equal(prepare(Image.fromarray(border.numpy()), SHAPE).pixels, border[None])  # the corners are dark


COLOURS = {
    "red on green of the same gray": ((200, 60, 60), (50, 125, 110)),
    "blue on green": ((60, 60, 200), (40, 90, 40)),
    "yellow on blue": ((240, 200, 60), (140, 200, 255)),
}


@pytest.mark.parametrize("name", COLOURS)
def test_colour_alone_tells_an_item_from_its_background(name: str) -> None:
    for outline in OUTLINES:
        assert likeness(prepare(photo(item(outline), *COLOURS[name], noise=10), SHAPE), item(outline)) > 0.95


Y, X = np.mgrid[-1:1:112j, -1:1:112j]
TEXTURE = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(112, 112)), 1)
BACKGROUNDS = {
    "gradient": 130 + 30 * X + 20 * Y,
    "vignette": 150 - 25 * (X**2 + Y**2),
    "texture": 130 + 6 * TEXTURE / TEXTURE.std(),
    "squares": 130 + 8 * ((np.arange(112) // 7 + np.arange(112)[:, None] // 7) % 2),
}


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_background_need_not_be_uniform(name: str) -> None:
    for outline in OUTLINES:
        for gray in (10, 250):
            prepared = prepare(photo(item(outline), gray, BACKGROUNDS[name], noise=3), SHAPE)
            assert likeness(prepared, item(outline)) > 0.9


def test_shadow_of_a_light_item_is_no_part_of_it() -> None:
    for outline in OUTLINES:
        alone = photo(item(outline), 250, 130, margin=16)
        shadow = np.roll(np.asarray(alone) > 140, (5, 8), (0, 1))
        shaded = np.where((np.asarray(alone) <= 130) & shadow, 95, np.asarray(alone)).astype(np.uint8)
        assert likeness(prepare(Image.fromarray(shaded), SHAPE), item(outline)) > 0.9


def rectangles(*boxes: tuple[int, int, int, int, int], background: int = 128, size: tuple[int, int]) -> Image.Image:
    """Return rectangles, each given by left, top, right, bottom and gray."""
    image = Image.new("L", size, background)
    for *box, gray in boxes:
        image.paste(gray, tuple(box))
    return image


def filled(*where: slice, shape: tuple[int, int, int] = SHAPE) -> torch.Tensor:
    """Return a white rectangle on black."""
    expected = torch.zeros(shape, dtype=torch.uint8)
    expected[0][where] = WHITE
    return expected


@pytest.mark.parametrize(("gray", "background"), [(0, 255), (255, 0), (10, 100), (128, 60)])
def test_picture_is_trimmed_resized_and_centred(gray: int, background: int) -> None:
    image = rectangles((50, 10, 90, 30, gray), size=(100, 60), background=background)  # twice as wide as high
    for shape, where in ((SHAPE, np.s_[7:21, 0:28]), ((1, 10, 40), np.s_[0:10, 10:30])):
        prepared = prepare(image, shape)
        assert torch.equal(prepared.pixels, filled(*where, shape=shape))
        assert prepared.inverted == (gray < background)
    assert prepare(rectangles((2, 2, 8, 8, gray), size=(10, 10), background=background), SHAPE).pixels.min() > 240


def test_item_may_touch_the_border() -> None:
    for box in ((30, 10, 70, 100), (0, 0, 40, 90), (60, 0, 100, 90)):  # cut off below, or at two sides
        prepared = prepare(rectangles((*box, 20), size=(100, 100)), SHAPE)
        assert torch.equal(prepared.pixels, filled(np.s_[:], np.s_[8:20]))


def test_largest_of_several_items_is_taken() -> None:
    boxes = [(10, 20, 50, 60, 240), (60, 20, 100, 55, 240), (3, 3, 6, 6, 0), (90, 90, 112, 100, 180)]
    assert torch.equal(prepare(rectangles(*boxes, size=(112, 112)), SHAPE).pixels, filled(np.s_[:]))


def test_light_and_dark_parts_belong_to_one_item() -> None:
    prepared = prepare(rectangles((20, 20, 60, 80, 250), (60, 20, 80, 80, 20), size=(100, 100)), SHAPE)
    difference = prepared.pixels[0].int() - filled(np.s_[:], np.s_[:19])[0].int()
    assert difference[:, :18].abs().max() < 30
    assert difference[:, 20:].abs().max() < 30
