"""Portraits of every kind that must work, and everything that must be refused, made on the spot."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from tbd_core.errors import InputError
from tbd_core.portrait import check_portrait, fit_portrait, load_portrait, parse_size


def ramp(width=96, height=96):
    """A picture that differs in every direction: red rises to the right, green downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 64)], axis=-1).astype(np.uint8))


def saved(folder, image, name="portrait.png", **options):
    image.save(folder / name, **options)
    return folder / name


def big_png(path, width, height):
    """A PNG of this size whose header is whole, but not its pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)))
    return path


def test_pixels_are_rgb_from_minus_one_to_one(tmp_path):
    portrait = load_portrait(saved(tmp_path, ramp(128, 128)), None, 128)
    assert portrait.pixels.shape == (1, 3, 128, 128)
    assert portrait.pixels.dtype == torch.float32
    assert portrait.pixels.min() == -1.0
    assert portrait.pixels.max() == 1.0
    assert torch.allclose(portrait.pixels[0, 2], torch.tensor(64 / 127.5 - 1))
    assert portrait.pixels[0, 0, 0, -1] == 1.0  # red at the right
    assert portrait.pixels[0, 1, -1, 0] == 1.0  # green at the bottom
    assert (portrait.source, portrait.warnings) == ("portrait.png", ())


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "I;16", "CMYK", "YCbCr"])
def test_every_kind_of_picture_shows_the_same_grey(tmp_path, mode):
    value = 255 if mode == "1" else 192
    grey = Image.new("L", (96, 96), value)
    if mode == "I;16":
        image = Image.fromarray(np.full((96, 96), value * 257, np.uint16))
        assert image.mode == "I;16"
    elif mode in ("LA", "RGBA", "1", "P"):
        image = grey.convert(mode)
    else:
        image = grey.convert("RGB").convert(mode)
    name = "portrait.tif" if mode in ("CMYK", "YCbCr") else "portrait.png"
    pixels = load_portrait(saved(tmp_path, image, name), None, 96).pixels
    assert (pixels - (value / 127.5 - 1)).abs().max() <= 2 / 127.5


def test_sixteen_bits_keep_their_range(tmp_path):
    values = np.tile(np.linspace(0, 65535, 128).astype(np.uint16), (128, 1))
    pixels = load_portrait(saved(tmp_path, Image.fromarray(values)), None, 128).pixels
    expected = torch.linspace(-1, 1, 128).expand(128, 128)
    assert (pixels[0, 0] - expected).abs().max() < 0.01


def test_floating_point_grey_works(tmp_path):
    image = Image.fromarray(np.full((96, 96), 0.75, np.float32))
    pixels = load_portrait(saved(tmp_path, image, "portrait.tif"), None, 96).pixels
    assert (pixels - 0.5).abs().max() < 0.01


def test_cmyk_jpeg_works(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (96, 96), (200, 100, 50)).convert("CMYK"), "portrait.jpg", quality=95)
    pixels = load_portrait(path, None, 96).pixels.mean(dim=(0, 2, 3))
    assert (pixels - torch.tensor([200, 100, 50]) / 127.5 + 1).abs().max() < 0.05


def test_transparent_parts_lie_on_mid_grey_and_this_is_said(tmp_path):
    image = Image.new("RGBA", (96, 96), (255, 0, 0, 0))
    image.paste((0, 255, 0, 255), (0, 0, 48, 96))
    portrait = load_portrait(saved(tmp_path, image), None, 96)
    assert portrait.pixels[0, :, 48, 10].tolist() == [-1.0, 1.0, -1.0]
    assert portrait.pixels[0, :, 48, 90].abs().max() < 0.01
    assert "laid on mid-grey" in portrait.warnings[0]


def test_exif_rotation_is_undone(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    path = saved(tmp_path, ramp(96, 128), "portrait.jpg", exif=exif, quality=95)
    assert check_portrait(path) == (128, 96)
    pixels = load_portrait(path, (128, 96), 128).pixels
    assert pixels.shape == (1, 3, 96, 128)
    assert pixels[0, 0, -1].mean() > 0.9  # red, right before, is now at the bottom
    assert pixels[0, 1, :, 0].mean() > 0.9  # green, below before, is now at the left


def test_first_frame_of_an_animation_is_used_and_this_is_said(tmp_path):
    red, blue = Image.new("RGB", (96, 96), (255, 0, 0)), Image.new("RGB", (96, 96), (0, 0, 255))
    path = tmp_path / "portrait.gif"
    red.save(path, save_all=True, append_images=[blue, red])
    portrait = load_portrait(path, None, 96)
    assert portrait.pixels[0, :, 0, 0].tolist() == [1.0, -1.0, -1.0]
    assert portrait.warnings == ("portrait.gif holds 3 pictures; the first is used",)


def test_tall_portraits_are_cropped_a_little_above_the_middle_and_this_is_said(tmp_path):
    portrait = load_portrait(saved(tmp_path, ramp(128, 256)), None, 128)
    green = (portrait.pixels[0, 1, :, 0] + 1) / 2
    top, bottom = float(green[0]), 1 - float(green[-1])
    assert top == pytest.approx(0.2, abs=0.02)
    assert bottom == pytest.approx(0.3, abs=0.02)
    assert portrait.warnings == ("portrait.png is 128 x 256 px; cropped to a square of 128 x 128 px",)


def test_a_size_is_covered_then_cropped(tmp_path):
    portrait = load_portrait(saved(tmp_path, ramp(512, 512)), (256, 128), 128)
    assert portrait.pixels.shape == (1, 3, 128, 256)
    assert portrait.pixels[0, 0, 0, -1] > 0.98  # the whole width is there
    assert "cropped to the shape of 256 x 128 of 512 x 256 px" in portrait.warnings[0]


def test_small_portraits_are_enlarged_and_this_is_said(tmp_path):
    portrait = load_portrait(saved(tmp_path, ramp(64, 64)), None, 128)
    assert portrait.pixels.shape == (1, 3, 128, 128)
    assert "64 x 64 px; enlarged 2 times" in portrait.warnings[0]


def refused(path, message):
    for read in (check_portrait, lambda p: load_portrait(p, None, 128)):
        with pytest.raises(InputError, match=message) as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_what_is_no_readable_file_is_refused(tmp_path):
    refused(tmp_path / "none.png", "none.png does not exist")
    refused(tmp_path, "is a folder")
    (tmp_path / "empty.png").touch()
    refused(tmp_path / "empty.png", r"empty.png is empty \(0 bytes\)")
    (tmp_path / "text.png").write_text("not a picture" * 99)
    refused(tmp_path / "text.png", "text.png is not a picture")
    (tmp_path / "sound.png").write_bytes(b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 99)
    refused(tmp_path / "sound.png", "sound.png is not a picture")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif"])
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_truncated_pictures_are_refused(tmp_path, suffix, kept):
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), f"portrait.{suffix}")
    check_portrait(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    refused(path, rf"portrait.{suffix} is (damaged or truncated|not a picture)")


def test_the_shorter_side_needs_64_pixels(tmp_path):
    refused(saved(tmp_path, ramp(40, 60)), "portrait.png is 40 x 60 px; the shorter side must have at least 64")
    refused(saved(tmp_path, ramp(200, 63)), "200 x 63 px; the shorter side")
    assert check_portrait(saved(tmp_path, ramp(64, 200))) == (64, 200)


@pytest.mark.parametrize(
    ("side", "said"), [(10_001, "100.02"), (11_000, "121.00"), (20_000, "400.00"), (40_000, "1600.00")]
)
@pytest.mark.filterwarnings("error")
def test_more_than_100_megapixels_are_refused_before_decoding(tmp_path, side, said):
    refused(big_png(tmp_path / "big.png", side, side), f"big.png has {said} megapixels; at most 100")


@pytest.mark.filterwarnings("error")
def test_100_megapixels_are_allowed_without_a_warning(tmp_path):
    refused(big_png(tmp_path / "big.png", 10_000, 10_000), "damaged or truncated")  # past the check of its size


@pytest.mark.parametrize(("text", "size"), [("128", (128, 128)), ("256x128", (256, 128)), (" 64 X 2048 ", (64, 2048))])
def test_sizes_are_one_number_or_two(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("100", "size 100x100 has a side of 100 px, no multiple of 8; use 96"),
        ("128x130", "130 px, no multiple of 8; use 128"),
        ("56", "56 px; each is 64 to 2048"),
        ("2056x128", "2056 px; each is 64 to 2048"),
        ("big", "size is 'big'; give one number or WxH"),
        ("128x", "size is '128x'"),
        ("-128", "size is '-128'"),
        ("", "size is ''"),
    ],
)
def test_unusable_sizes_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_size(text)


# Pictures that are there already.


def test_a_picture_in_memory_is_fitted_as_its_file_is(tmp_path):
    image = ramp(200, 300)
    loaded, fitted = load_portrait(saved(tmp_path, image), None, 96), fit_portrait(image, None, 96, "portrait.png")
    assert torch.equal(loaded.pixels, fitted.pixels)
    assert (loaded.source, loaded.warnings) == (fitted.source, fitted.warnings)


def test_a_transparent_picture_in_memory_lies_on_mid_grey(tmp_path):
    portrait = fit_portrait(Image.new("RGBA", (96, 96), (255, 0, 0, 0)), None, 96, "image")
    assert portrait.pixels.abs().max() < 0.01 and portrait.warnings == (
        "image is partly transparent; laid on mid-grey",
    )


@pytest.mark.parametrize(
    ("face", "left"), [((10, 0, 30, 96), 0), ((150, 20, 250, 60), 152), ((380, 0, 400, 9), 304), ((-50, 0, 9, 9), 0)]
)
def test_the_crop_lies_around_the_face_as_far_as_the_borders_allow(face, left):
    image = Image.fromarray(np.tile(np.arange(400) // 2, (96, 1)).astype(np.uint8))
    seen = fit_portrait(image, (96, 96), 128, "image", face).pixels[0, 0, 48]
    assert ((seen + 1) * 127.5).round().tolist() == [(left + x) // 2 for x in range(96)]


def test_a_face_moves_the_crop_in_both_directions_of_an_enlarged_picture():
    image = Image.new("L", (80, 320))
    image.paste(255, (30, 250, 50, 270))
    seen = fit_portrait(image, (160, 160), 128, "image", (30, 250, 50, 270)).pixels[0, 0]
    rows, columns = torch.nonzero(seen > 0).T
    assert abs(rows.float().mean() - 79.5) < 1.5 and abs(columns.float().mean() - 79.5) < 1.5


@pytest.mark.parametrize(
    ("face", "message"),
    [
        ((40, 10, 40, 60), r"the face of image, 40,10 to 40,60, has no area; give its left, top, right and bottom"),
        ((float("nan"), 10, 40, 60), "nan,10 to 40,60, has no area"),
        ((100, 10, 140, 60), "100,10 to 140,60, lies outside the picture of 96 x 80 px; mark it inside"),
        ((0, -60, 50, -10), "0,-60 to 50,-10, lies outside the picture of 96 x 80 px"),
    ],
)
def test_a_face_that_is_not_in_the_picture_is_refused(face, message):
    with pytest.raises(InputError, match=message):
        fit_portrait(ramp(96, 80), None, 96, "image", face)


def test_a_small_picture_in_memory_is_refused_as_its_file_is():
    with pytest.raises(InputError, match="image is 200 x 63 px; the shorter side must have at least 64"):
        fit_portrait(ramp(200, 63), None, 96, "image")
