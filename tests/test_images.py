import io
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

from fmnist.data.image_files import find_images
from fmnist.data.info import FASHION_MNIST
from fmnist.predict.images import read_image
from fmnist.predict.preparation import Prepared

SHAPE = FASHION_MNIST.image_shape
PIXELS = synthetic.make(1, seed=5, black=True)[0][0]  # (28, 28)
WHITE = 255
TURNED = Image.Exif()
TURNED[0x112] = 6  # upright after a turn by 90 degrees clockwise


def picture(pixels: Tensor = PIXELS) -> Image.Image:
    return Image.fromarray(pixels.numpy())


def saved(image: Image.Image, file: Path, **options: object) -> Prepared:
    """Save an image and return what is read from the file."""
    image.save(file, **options)
    return read_image(file, FASHION_MNIST)


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
    **{
        f"{bits} of 16 bits": (
            picture((WITH_WHITE / 255 * (2**bits - 1)).int()).convert("I;16"),
            ".png",
            {},
            WITH_WHITE,
        )
        for bits in (8, 10, 12, 14)
    },
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


def on_transparent(gray: int) -> Image.Image:
    image = Image.new("RGBA", (56, 56), (90, 90, 90, 0))
    image.paste((gray, gray, gray, 255), (14, 0, 42, 56))
    return image


@pytest.mark.parametrize("mode", ["RGBA", "LA", "CMYK"])
@pytest.mark.parametrize("gray", [20, 235])
def test_transparency_becomes_the_black_or_white_that_contrasts_with_the_item(
    mode: str, gray: int, tmp_path: Path
) -> None:
    image = on_transparent(gray)
    if mode == "CMYK":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white" if gray < 128 else "black"), image)
        image = image.convert("RGB")
    prepared = saved(image.convert(mode), tmp_path / "a.tif")
    assert prepared.inverted == (gray < 128)
    assert prepared.pixels[0, :, 8:20].eq(WHITE).all()
    assert prepared.pixels[0, :, :7].eq(0).all()


def test_phone_photo_is_reduced_while_it_is_decoded(tmp_path: Path) -> None:
    photo = Image.new("L", (12_000, 9_000), 150)  # 108 million pixels
    photo.paste(240, (4_000, 2_000, 8_000, 6_000))
    pixels = saved(photo, tmp_path / "phone.jpg", quality=50).pixels
    assert pixels.float().mean() > 240  # the square fills it
    assert not saved(photo.resize((120, 90)), tmp_path / "small.jpg").inverted


@pytest.mark.parametrize("suffix", [".png", ".gif", ".jpg"])
def test_blank_picture_is_refused(suffix: str, tmp_path: Path) -> None:
    animation = {"save_all": True, "append_images": [picture()]} if suffix == ".gif" else {}
    for blank in (Image.new("L", (28, 28)), Image.new("L", (1, 1), 200), Image.new("L", (300, 200), WHITE)):
        with pytest.raises(ValueError, match=r"^too little contrast: nothing stands out from the background$"):
            saved(blank, tmp_path / f"a{suffix}", **(animation if blank.size == (28, 28) else {}))


def png_of_size(width: int, height: int) -> bytes:
    """Return a PNG file whose header gives a size, with hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


def jpeg_of_size(width: int, height: int) -> bytes:
    """Return a JPEG file whose header gives a size, with hardly any data."""
    with io.BytesIO() as file:
        Image.new("L", (8, 8)).save(file, "JPEG")
        content = file.getvalue()
    start = content.index(b"\xff\xc0") + 5  # of height and width in the frame header
    return content[:start] + struct.pack(">HH", height, width) + content[start + 4 :]


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
    "large.png": (png_of_size(12_000, 9_000), "more than 89,478,485 pixels"),
    "bomb.jpg": (jpeg_of_size(65_000, 65_000), "more than 89,478,485 pixels"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_file_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    content, reason = UNREADABLE[name]
    (tmp_path / "folder").mkdir()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    start = time.perf_counter()
    with pytest.raises(ValueError, match=reason) as info:
        read_image(tmp_path / name, FASHION_MNIST)
    assert "\n" not in str(info.value)
    assert time.perf_counter() - start < 10  # decoded, it would be 10 GB


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".bmp", ".tif", ".webp", ".avif"])
def test_truncated_file_is_refused(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"a{suffix}"
    picture(torch.randint(0, 256, (90, 120), generator=torch.Generator().manual_seed(0)).byte()).save(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match="damaged"):
        read_image(file, FASHION_MNIST)


def test_libtiff_writes_nothing_to_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    picture((PIXELS > 100).byte() * 255).convert("1").save(tmp_path / "a.tif", compression="group4")
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[:8] + b"\1" * 8 + content[16:])
    with pytest.raises(ValueError, match="damaged"):
        read_image(tmp_path / "a.tif", FASHION_MNIST)
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
