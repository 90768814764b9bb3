import os
import struct
import time
import zlib
from pathlib import Path

import pytest
import synthetic
import torch
from PIL import Image
from torch import Tensor

from fmnist.data.info import FASHION_MNIST
from fmnist.predict.images import Prepared, find_images, prepare, read_image

SHAPE = FASHION_MNIST.image_shape
PIXELS = synthetic.make(1, seed=5)[0][0]  # (28, 28), dark at the corners
WHITE = 255
TURNED = Image.Exif()
TURNED[0x112] = 6  # upright after a turn by 90 degrees clockwise


def picture(pixels: Tensor = PIXELS) -> Image.Image:
    return Image.fromarray(pixels.numpy())


def rectangle(size: tuple[int, int], box: tuple[int, int, int, int], item: int, background: int) -> Image.Image:
    """Return a rectangle of one gray on a background of another."""
    image = Image.new("L", size, background)
    image.paste(item, box)
    return image


def saved(image: Image.Image, file: Path, **options: object) -> Prepared:
    """Save an image and return what is read from the file."""
    image.save(file, **options)
    return read_image(file, SHAPE)


MODES = {".png": "L RGB RGBA P LA", ".tif": "L RGBA LA", ".bmp": "RGB P", ".webp": "RGB RGBA", ".gif": "P", ".pgm": "L"}
BITS = (PIXELS > 100).byte() * WHITE
WITH_WHITE = PIXELS.where(torch.arange(28 * 28).view(28, 28) != 400, WHITE)
READ: dict[str, tuple[Image.Image, str, dict[str, object], Tensor]] = {
    **{
        f"{mode}{suffix}": (picture().convert(mode), suffix, {"lossless": True} if suffix == ".webp" else {}, PIXELS)
        for suffix, modes in MODES.items()
        for mode in modes.split()
    },
    "1 bit": (picture(BITS).convert("1"), ".png", {}, BITS),
    "16 bits": (picture(WITH_WHITE.int() * 257).convert("I;16"), ".png", {}, WITH_WHITE),
    "16 bits.tif": (picture(WITH_WHITE.int() * 257).convert("I;16"), ".tif", {}, WITH_WHITE),
    "32 bits": (picture(WITH_WHITE.int() * 257), ".tif", {}, WITH_WHITE),
    **{
        f"float, white {white}": (picture(WITH_WHITE / 255 * white), ".tif", {}, WITH_WHITE)
        for white in (1, 255, 65535, 1e6)
    },
    "NaN": (picture((PIXELS / 255).where(PIXELS > 100, float("nan"))), ".tif", {}, PIXELS.where(PIXELS > 100, 0)),
    "animation": (picture().convert("P"), ".gif", {"save_all": True, "append_images": [picture(BITS)]}, PIXELS),
    "turned camera": (picture(), ".png", {"exif": TURNED}, PIXELS.rot90(-1)),
}


@pytest.mark.parametrize("name", READ)
def test_image_of_the_networks_size_keeps_its_pixels(name: str, tmp_path: Path) -> None:
    image, suffix, options, expected = READ[name]
    prepared = saved(image, tmp_path / f"a{suffix}", **options)
    assert prepared.pixels.dtype == torch.uint8
    assert torch.equal(prepared.pixels, expected[None])
    assert not prepared.inverted


@pytest.mark.parametrize("light", [True, False])
def test_background_decides_whether_an_image_is_inverted(light: bool) -> None:
    image, negative = (255 - PIXELS, PIXELS) if light else (PIXELS, 255 - PIXELS)
    for background, inverted in (("auto", light), ("light", True), ("dark", False)):
        prepared = prepare(picture(image), SHAPE, background)
        assert prepared.inverted == inverted
        assert torch.equal(prepared.pixels, (negative if inverted else image)[None])


def test_bright_border_between_dark_corners_is_no_background() -> None:
    pixels = torch.zeros(28, 28, dtype=torch.uint8)
    pixels[2:26] = pixels[:, 2:26] = WHITE
    assert not prepare(picture(pixels), SHAPE).inverted


@pytest.mark.parametrize(("item", "background"), [(0, 255), (255, 0)])
def test_picture_is_trimmed_resized_and_centred(item: int, background: int) -> None:
    expected = torch.zeros(28, 28, dtype=torch.uint8)
    expected[7:21] = WHITE  # twice as wide as high
    prepared = prepare(rectangle((100, 60), (50, 10, 90, 30), item, background), SHAPE)
    assert torch.equal(prepared.pixels[0], expected)
    assert prepared.inverted == (background == 255)


def test_result_has_the_shape_of_the_dataset() -> None:
    pixels = prepare(rectangle((100, 60), (50, 10, 90, 30), 0, 255), (1, 10, 40)).pixels
    assert pixels[0, :, 10:30].eq(WHITE).all()
    assert pixels.sum() == 10 * 20 * WHITE


def test_noise_does_not_hide_the_item() -> None:
    noise = 10 * torch.randn(600, 800, generator=torch.Generator().manual_seed(0))
    clean = torch.full((600, 800), 225.0)
    clean[200:400, 500:600] = 20
    pixels = prepare(picture((clean + noise).clamp(0, 255).byte()), SHAPE).pixels[0].float()
    assert pixels[2:26, 9:19].mean() > 220
    assert pixels[:, :6].mean() < 5


def test_pictures_of_any_size_are_accepted() -> None:
    expected = torch.full((28, 28), WHITE)
    assert torch.equal(prepare(rectangle((10, 10), (2, 2, 8, 8), 255, 0), SHAPE).pixels[0], expected.byte())
    for size in ((1, 1), (5000, 1), (1, 5000), (29, 28), (3, 2)):
        for gray in (0, 127, 128, 255):
            assert prepare(Image.new("L", size, gray), SHAPE).pixels.eq(0).all()  # nothing but background


def test_item_that_fills_the_corners_keeps_its_gray() -> None:
    pixels = prepare(rectangle((56, 56), (20, 20, 36, 36), 40, 200), SHAPE, "dark").pixels[0]
    assert (pixels[0, 0], pixels[14, 14]) == (200, 40)


def on_transparent(gray: int) -> Image.Image:
    image = Image.new("RGBA", (56, 56), (90, 90, 90, 0))
    image.paste((gray, gray, gray, 255), (14, 0, 42, 56))
    return image


@pytest.mark.parametrize(
    ("image", "inverted", "gray"),
    [
        (rectangle((300, 300), (100, 50, 200, 250), 0, 190), True, WHITE),
        (rectangle((56, 56), (14, 0, 42, 56), 0, 255).convert("RGB").convert("CMYK"), True, WHITE),
        (on_transparent(20), True, 235),  # the background is the one that contrasts with the item
        (on_transparent(235), False, 235),
    ],
    ids=["gray background", "CMYK", "dark on transparent", "light on transparent"],
)
def test_background_becomes_black(image: Image.Image, inverted: bool, gray: int, tmp_path: Path) -> None:
    prepared = saved(image, tmp_path / "a.tif")
    assert prepared.inverted == inverted
    assert prepared.pixels[0, :, 8:20].eq(gray).all()
    assert prepared.pixels[0, :, :7].eq(0).all()
    assert read_image(tmp_path / "a.tif", SHAPE, "light").inverted
    assert not read_image(tmp_path / "a.tif", SHAPE, "dark").inverted


def test_large_photo_gives_the_same_as_a_small_one(tmp_path: Path) -> None:
    large = saved(rectangle((3200, 3000), (1000, 500, 2000, 2500), 30, 250), tmp_path / "a.jpg", quality=90)
    small = prepare(rectangle((320, 300), (100, 50, 200, 250), 30, 250), SHAPE)
    difference = (large.pixels.int() - small.pixels.int()).abs()
    assert difference[0, 3:25, 10:18].max() <= 8
    assert difference.max() <= 110  # the outermost row or column may contain some background


def png_of_size(width: int, height: int) -> bytes:
    """Return a PNG file whose header gives a size, with hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


UNREADABLE: dict[str, tuple[bytes | None, str]] = {
    "missing.png": (None, "No such file"),
    "folder/..": (None, "Is a directory"),
    "nothing.png": (b"", "empty"),
    "text.jpg": (b"hello", "not in a supported format"),
    "drawing.svg": (b"<?xml version='1.0'?><svg/>", "SVG"),
    "disguised.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    "phone.heic": (b"\0\0\0\x18ftypheic" + bytes(50), "HEIC"),
    "script.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not in a supported format"),
    "hollow.png": (png_of_size(28, 28), "truncated or damaged"),
    "bomb.png": (png_of_size(100_000, 100_000), "more than 89,478,485 pixels"),
    "large.png": (png_of_size(10_000, 10_000), "more than 89,478,485 pixels"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_file_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    content, reason = UNREADABLE[name]
    (tmp_path / "folder").mkdir()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    start = time.perf_counter()
    with pytest.raises(ValueError, match=reason) as info:
        read_image(tmp_path / name, SHAPE)
    assert "\n" not in str(info.value)
    assert time.perf_counter() - start < 10  # decoded, it would be 10 GB


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".bmp", ".tif", ".webp", ".avif"])
def test_truncated_file_is_refused(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"a{suffix}"
    picture(torch.randint(0, 256, (90, 120), generator=torch.Generator().manual_seed(0)).byte()).save(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match="damaged"):
        read_image(file, SHAPE)


def test_libtiff_writes_nothing_to_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    picture((PIXELS > 100).byte() * 255).convert("1").save(tmp_path / "a.tif", compression="group4")
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[:8] + b"\1" * 8 + content[16:])
    with pytest.raises(ValueError, match="damaged"):
        read_image(tmp_path / "a.tif", SHAPE)
    os.write(2, b"still here")
    assert capfd.readouterr() == ("", "still here")


def test_find_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.PNG", "a.jpeg", "._b.png", "notes.txt", "c.svg", "[x].png", "x.png", "deep/er/d.png", "deep/e.gif"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("[folder].png").mkdir()
    assert find_images(".") == ["./[x].png", "./a.jpeg", "./b.PNG", "./c.svg", "./x.png"]
    assert find_images("deep") == ["deep/e.gif"]
    assert find_images("notes.txt") == ["notes.txt"]
    assert find_images("[x].png") == ["[x].png"]  # a name before a pattern
    assert find_images("*.png") == ["[x].png", "x.png"]
    assert find_images("**/*.[pg]*") == ["[x].png", "deep/e.gif", "deep/er/d.png", "x.png"]
    assert find_images(f"{tmp_path}/deep/*") == [f"{tmp_path}/deep/e.gif"]
    for where, reason in (("*.bmp", "matches none"), ("deep/f.png", "no such file"), ("[folder].png", "no images")):
        with pytest.raises(ValueError, match=reason):
            find_images(where)
