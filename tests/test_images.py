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
    "32 bits": (picture(WITH_WHITE.int() * 257), ".tif", {}, WITH_WHITE),
    **{f"float, white {white}": (picture(WITH_WHITE / 255 * white), ".tif", {}, WITH_WHITE) for white in (1, 65535)},
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
    border = torch.zeros(28, 28, dtype=torch.uint8)
    border[2:26] = border[:, 2:26] = WHITE
    assert not prepare(picture(border), SHAPE).inverted  # the corners are dark


@pytest.mark.parametrize(("item", "background"), [(0, 255), (255, 0)])
def test_picture_is_trimmed_resized_and_centred(item: int, background: int) -> None:
    image = rectangle((100, 60), (50, 10, 90, 30), item, background)  # twice as wide as high
    for shape, filled in ((SHAPE, (slice(7, 21), slice(0, 28))), ((1, 10, 40), (slice(0, 10), slice(10, 30)))):
        expected = torch.zeros(shape, dtype=torch.uint8)
        expected[0][filled] = WHITE
        prepared = prepare(image, shape)
        assert torch.equal(prepared.pixels, expected)
        assert prepared.inverted == (background == 255)


def test_noise_does_not_hide_the_item_of_a_large_photo(tmp_path: Path) -> None:
    noise = 10 * torch.randn(1800, 2400, generator=torch.Generator().manual_seed(0))
    clean = torch.full((1800, 2400), 225.0)
    clean[600:1200, 1500:1800] = 20
    pixels = saved(picture((clean + noise).clamp(0, 255).byte()), tmp_path / "a.jpg", quality=90).pixels[0].float()
    assert pixels[2:26, 9:19].mean() > 220
    assert pixels[:, :6].mean() < 5


def test_pictures_of_any_size_are_accepted() -> None:
    expected = torch.full((28, 28), WHITE)
    assert torch.equal(prepare(rectangle((10, 10), (2, 2, 8, 8), 255, 0), SHAPE).pixels[0], expected.byte())
    for size in ((1, 1), (5000, 1), (1, 5000), (29, 28), (3, 2)):
        for gray in (0, 127, 128, 255):
            assert prepare(Image.new("L", size, gray), SHAPE).pixels.eq(0).all()  # nothing but background


def on_transparent(gray: int) -> Image.Image:
    image = Image.new("RGBA", (56, 56), (90, 90, 90, 0))
    image.paste((gray, gray, gray, 255), (14, 0, 42, 56))
    return image


@pytest.mark.parametrize(
    ("image", "inverted", "gray"),
    [
        (rectangle((300, 300), (100, 50, 200, 250), 0, 190), True, WHITE),  # on gray
        (rectangle((56, 56), (14, 0, 42, 56), 0, 255).convert("RGB").convert("CMYK"), True, WHITE),
        (on_transparent(20), True, 235),  # the background is the one that contrasts with the item
        (on_transparent(235), False, 235),
    ],
)
def test_background_becomes_black(image: Image.Image, inverted: bool, gray: int, tmp_path: Path) -> None:
    prepared = saved(image, tmp_path / "a.tif")
    assert prepared.inverted == inverted
    assert prepared.pixels[0, :, 8:20].eq(gray).all()
    assert prepared.pixels[0, :, :7].eq(0).all()
    assert [read_image(tmp_path / "a.tif", SHAPE, choice).inverted for choice in ("light", "dark")] == [True, False]


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
