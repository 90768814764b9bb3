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

from fmnist.predict.images import find_images, prepare, read_image

PIXELS = synthetic.make(1, seed=5)[0][0]  # (28, 28), dark at the corners
WHITE = 255


def picture(pixels: Tensor = PIXELS) -> Image.Image:
    return Image.fromarray(pixels.numpy())


def with_item(size: tuple[int, int], box: tuple[int, int, int, int], item: int, background: int) -> Image.Image:
    """A rectangle of the gray `item` on a background of another."""
    image = Image.new("L", size, background)
    image.paste(item, box)
    return image


def png_of_size(width: int, height: int) -> bytes:
    """A PNG file that says to be so large, with next to nothing in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


ALIKE = {
    ".png": ("L", "RGB", "RGBA", "P", "LA"),
    ".tif": ("L", "RGB", "RGBA", "P", "LA"),
    ".bmp": ("L", "RGB", "RGBA", "P"),
    ".webp": ("L", "RGB", "RGBA", "P"),
    ".gif": ("L", "P"),
    ".pgm": ("L",),
}


@pytest.mark.parametrize(("suffix", "mode"), [(suffix, mode) for suffix, modes in ALIKE.items() for mode in modes])
def test_an_image_like_the_datasets_passes_untouched(suffix: str, mode: str, tmp_path: Path) -> None:
    picture().convert(mode).save(tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    prepared = read_image(tmp_path / f"a{suffix}")
    assert prepared.pixels.dtype == torch.uint8
    assert torch.equal(prepared.pixels, PIXELS[None])
    assert not prepared.inverted


def test_a_negative_of_that_size_is_inverted_and_nothing_else() -> None:
    prepared = prepare(picture(255 - PIXELS))
    assert prepared.inverted
    assert torch.equal(prepared.pixels, PIXELS[None])


def test_the_option_fixes_what_the_corners_would_decide() -> None:
    bright, dark = picture(255 - PIXELS), picture()
    assert torch.equal(prepare(bright, "dark").pixels, 255 - PIXELS[None])
    assert torch.equal(prepare(dark, "light").pixels, 255 - PIXELS[None])
    assert [prepare(bright, choice).inverted for choice in ("auto", "light", "dark")] == [True, True, False]


def test_a_bright_border_between_dark_corners_is_the_items() -> None:
    pixels = torch.zeros(28, 28, dtype=torch.uint8)
    pixels[2:26] = pixels[:, 2:26] = WHITE
    assert not prepare(picture(pixels)).inverted


@pytest.mark.parametrize(("item", "background"), [(0, 255), (255, 0)])
def test_a_picture_is_trimmed_resized_and_centred(item: int, background: int) -> None:
    expected = torch.zeros(28, 28, dtype=torch.uint8)
    expected[7:21] = WHITE  # twice as wide as high
    prepared = prepare(with_item((100, 60), (50, 10, 90, 30), item, background))
    assert torch.equal(prepared.pixels[0], expected)
    assert prepared.inverted == (background == 255)


def test_a_gray_background_becomes_black_and_white_stays_white() -> None:
    image = with_item((300, 300), (100, 50, 200, 250), 0, 190)
    pixels = prepare(image).pixels[0]
    assert pixels[:, :6].eq(0).all()
    assert pixels[:, 8:20].eq(WHITE).all()


def test_noise_does_not_hide_where_the_item_is() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = 10 * torch.randn(600, 800, generator=generator)
    clean = torch.full((600, 800), 225.0)
    clean[200:400, 500:600] = 20
    pixels = prepare(picture((clean + noise).clamp(0, 255).byte())).pixels[0].float()
    assert pixels[2:26, 9:19].mean() > 220  # the item from top to bottom
    assert pixels[:, :6].mean() < 5


def test_small_pictures_are_enlarged_and_any_shape_is_taken() -> None:
    expected = torch.full((28, 28), WHITE)
    assert torch.equal(prepare(with_item((10, 10), (2, 2, 8, 8), 255, 0)).pixels[0], expected.byte())
    for size in ((1, 1), (5000, 1), (1, 5000), (29, 28), (3, 2)):
        for gray in (0, 127, 128, 255):
            assert prepare(Image.new("L", size, gray)).pixels.eq(0).all()  # nothing but background


def test_corners_that_are_the_items_do_not_blacken_it() -> None:
    image = with_item((56, 56), (20, 20, 36, 36), 40, 200)  # the person says that 200 is the item's
    pixels = prepare(image, "dark").pixels[0]
    assert (pixels[0, 0], pixels[14, 14]) == (200, 40)


@pytest.mark.parametrize(
    ("mode", "file", "scale"), [("I;16", "a.png", 257), ("I;16", "a.tif", 257), ("I", "a.tif", 257)]
)
def test_sixteen_bits_become_eight(mode: str, file: str, scale: int, tmp_path: Path) -> None:
    values = PIXELS.int() * scale
    values[14, 14] = 65535
    image = Image.fromarray(values.numpy()).convert(mode)
    image.save(tmp_path / file)
    expected = PIXELS.clone()
    expected[14, 14] = WHITE
    assert torch.equal(read_image(tmp_path / file).pixels[0], expected)


@pytest.mark.parametrize("white", [1, 255, 65535, 1e6])
def test_float_pixels_are_scaled_by_the_white_that_holds_them(white: float, tmp_path: Path) -> None:
    values = PIXELS / 255 * white
    values[14, 14] = white
    values[13, 13] = float("nan")
    Image.fromarray(values.numpy()).save(tmp_path / "a.tif")
    expected = PIXELS.clone()
    expected[14, 14], expected[13, 13] = WHITE, 0
    assert torch.equal(read_image(tmp_path / "a.tif").pixels[0], expected)


def test_one_bit_palette_and_cmyk(tmp_path: Path) -> None:
    bits = picture((PIXELS > 100).byte() * 255)
    bits.convert("1").save(tmp_path / "a.png")
    assert torch.equal(read_image(tmp_path / "a.png").pixels[0], (PIXELS > 100).byte() * 255)
    with_item((56, 56), (14, 0, 42, 56), 0, 255).convert("RGB").convert("CMYK").save(tmp_path / "a.tif")
    cmyk = read_image(tmp_path / "a.tif")
    assert cmyk.inverted
    assert cmyk.pixels[0, :, 8:20].eq(WHITE).all()
    assert cmyk.pixels[0, :, :7].eq(0).all()


@pytest.mark.parametrize(("gray", "inverted"), [(20, True), (235, False)])
def test_a_transparent_background_is_the_one_from_which_the_item_stands_out(
    gray: int, inverted: bool, tmp_path: Path
) -> None:
    image = Image.new("RGBA", (56, 56), (90, 90, 90, 0))
    image.paste((gray, gray, gray, 255), (14, 0, 42, 56))
    image.save(tmp_path / "a.png")
    prepared = read_image(tmp_path / "a.png")
    assert prepared.inverted == inverted
    assert prepared.pixels[0, :, 8:20].eq(235).all()
    assert prepared.pixels[0, :, :7].eq(0).all()
    assert read_image(tmp_path / "a.png", "light").inverted
    assert not read_image(tmp_path / "a.png", "dark").inverted


def test_the_first_frame_of_an_animation_counts(tmp_path: Path) -> None:
    first, other = picture().convert("P"), picture(255 - PIXELS).convert("P")
    first.save(tmp_path / "a.gif", save_all=True, append_images=[other])
    assert torch.equal(read_image(tmp_path / "a.gif").pixels, PIXELS[None])


def test_a_camera_that_was_turned_is_believed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x112] = 6  # turn by 90 degrees clockwise to see it upright
    picture().save(tmp_path / "a.png", exif=exif)
    assert torch.equal(read_image(tmp_path / "a.png").pixels[0], PIXELS.rot90(-1))


def test_a_large_photo_is_as_good_as_a_small_one(tmp_path: Path) -> None:
    box = (1000, 500, 2000, 2500)
    with_item((3200, 3000), box, 30, 250).save(tmp_path / "a.jpg", quality=90)
    small = with_item((320, 300), (100, 50, 200, 250), 30, 250)
    difference = read_image(tmp_path / "a.jpg").pixels.int() - prepare(small).pixels.int()
    assert difference[0, 3:25, 10:18].abs().max() <= 8
    assert difference.abs().max() <= 110  # the outermost row or column may have some background in it


SEEDS = {
    "nothing.png": (b"", "empty"),
    "text.jpg": (b"hello", "no image of a known format"),
    "drawing.svg": (b"<?xml version='1.0'?><svg/>", "SVG drawing has no pixels"),
    "disguised.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG drawing has no pixels"),
    "phone.heic": (b"\0\0\0\x18ftypheic" + bytes(50), "HEIC"),
    "script.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image of a known format"),
    "hollow.png": (png_of_size(28, 28), "truncated or damaged"),
    "bomb.png": (png_of_size(100_000, 100_000), "more than 89,478,485 pixels"),
    "large.png": (png_of_size(10_000, 10_000), "more than 89,478,485 pixels"),
}


@pytest.mark.parametrize("name", SEEDS)
def test_what_is_no_picture_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    content, reason = SEEDS[name]
    (tmp_path / name).write_bytes(content)
    start = time.perf_counter()
    with pytest.raises(ValueError, match=reason) as info:
        read_image(tmp_path / name)
    assert "\n" not in str(info.value)
    assert time.perf_counter() - start < 10  # decoded, it would be 10 GB


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".bmp", ".tif", ".webp", ".avif"])
def test_half_a_file_is_refused(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"a{suffix}"
    generator = torch.Generator().manual_seed(0)
    picture(torch.randint(0, 256, (90, 120), generator=generator).byte()).save(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match="damaged"):
        read_image(file)


def test_a_damaged_tiff_says_nothing_past_python(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    picture((PIXELS > 100).byte() * 255).convert("1").save(tmp_path / "a.tif", compression="group4")
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[:8] + b"\1" * 8 + content[16:])
    with pytest.raises(ValueError, match="damaged"):
        read_image(tmp_path / "a.tif")
    os.write(2, b"still here")
    assert capfd.readouterr() == ("", "still here")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No such file"):
        read_image(tmp_path / "a.png")
    with pytest.raises(ValueError, match="Is a directory"):
        read_image(tmp_path)


def test_files_folders_and_patterns_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.PNG", "a.jpeg", "._b.png", "notes.txt", "c.svg", "[x].png", "x.png", "deep/er/d.png", "deep/e.gif"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("folder.png").mkdir()
    assert find_images(".") == ["./[x].png", "./a.jpeg", "./b.PNG", "./c.svg", "./x.png"]
    assert find_images("deep") == ["deep/e.gif"]
    assert find_images("notes.txt") == ["notes.txt"]
    assert find_images("[x].png") == ["[x].png"]  # a name before a pattern
    assert find_images("*.png") == ["[x].png", "x.png"]
    assert find_images("**/*.[pg]*") == ["[x].png", "deep/e.gif", "deep/er/d.png", "x.png"]
    assert find_images(f"{tmp_path}/deep/*") == [f"{tmp_path}/deep/e.gif"]
    for nothing, reason in (
        ("*.bmp", "nothing matches"),
        ("deep/er/f.png", "no such file"),
        ("folder.png", "no images"),
    ):
        with pytest.raises(ValueError, match=reason):
            find_images(nothing)
