"""Decoding: one behaviour for each test, in the order of the intake's promises."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.decode import MAX_BYTES, MAX_SCANS, bytes_of_text, decode_bytes
from pipeline.errors import ImageCorrupt, ImageTooLarge, ImageUnsupported
from pipeline.types import Photo
from tests import images

ROOT = Path(__file__).parents[1]
KINDS = ("JPEG", "PNG", "WEBP")
JPEG_BEST = {"quality": 100, "subsampling": 0}
WHITE = (255, 255, 255)


def codes(photo: Photo) -> list[str]:
    return [warning.code for warning in photo.warnings]


@cache
def seed_files() -> dict[str, bytes]:
    """One file of each kind of coding, about 96 px wide."""
    scene, grey = images.scene(), Image.fromarray(images.scene()).convert("L")
    cutout = Image.fromarray(np.dstack([scene, scene[:, :, 0]]))
    return {
        "jpeg": images.encode(scene, "JPEG", quality=92),
        "jpeg_progressive": images.encode(scene, "JPEG", quality=92, progressive=True),
        "jpeg_grey": images.encode(grey, "JPEG", quality=95),
        "jpeg_cmyk": images.encode(Image.fromarray(scene).convert("CMYK"), "JPEG", quality=90),
        "png": images.encode(scene, "PNG"),
        "png_palette": images.encode(Image.fromarray(scene).quantize(64), "PNG"),
        "webp": images.encode(scene, "WEBP", quality=95),
        "webp_lossless": images.encode(cutout, "WEBP", lossless=True),
    }


# Text


@pytest.fixture(scope="module")
def png_file() -> bytes:
    return images.encode(images.scene(), "PNG")


def test_base64_of_any_usual_form_is_read(png_file: bytes) -> None:
    text = base64.b64encode(png_file).decode()
    lines = base64.encodebytes(png_file).decode().replace("\n", "\r\n")
    expected = decode_bytes(png_file, frame_px=96)
    for form in (
        text,
        lines,
        f" {text}\n",
        base64.urlsafe_b64encode(png_file).decode(),
        f"data:image/png;base64,{text}",
        f"DATA:Image/PNG;charset=utf-8;BASE64,{lines}",
        f"data:image/jpeg;base64,{text}",
    ):
        photo = decode_bytes(bytes_of_text(form), frame_px=96)
        assert np.array_equal(photo.rgb, expected.rgb)
        assert photo.sha256 == hashlib.sha256(png_file).hexdigest()


@pytest.mark.parametrize(
    "head", ["data:text/html;base64,", "data:image/svg+xml;base64,", "data:,", "data:image/png,", "data:;base64,"]
)
def test_a_data_url_of_another_kind_is_unsupported(head: str, png_file: bytes) -> None:
    with pytest.raises(ImageUnsupported, match=r"data: URL"):
        bytes_of_text(head + base64.b64encode(png_file).decode())


def test_the_limit_on_bytes_is_exact() -> None:
    for size_bytes, error in ((MAX_BYTES, ImageUnsupported), (MAX_BYTES + 1, ImageTooLarge)):
        data = b"#" * size_bytes
        with pytest.raises(error):
            decode_bytes(data)
        with pytest.raises(error):
            decode_bytes(bytes_of_text(base64.b64encode(data).decode()))


def test_errors_name_the_field_they_are_given() -> None:
    with pytest.raises(ImageCorrupt) as caught:
        decode_bytes(b"", field="image_url")
    assert caught.value.field == "image_url"
    with pytest.raises(ImageUnsupported) as other:
        decode_bytes(b"nothing of the kind", field="file")
    assert other.value.as_reply()["field"] == "file"


# Limits


def test_nothing_but_fill_bytes_is_no_picture() -> None:
    with pytest.raises(ImageCorrupt):
        decode_bytes(b"\xff\xd8" + b"\xff" * (MAX_BYTES - 2))


def test_too_many_scans_are_refused() -> None:
    data = images.encode(images.scene(), "JPEG", progressive=True)
    last_scan = data.rindex(b"\xff\xda")
    scans = data[:-2].count(b"\xff\xda")
    bomb = data[:-2] + data[last_scan:-2] * (MAX_SCANS + 1 - scans) + data[-2:]
    with pytest.raises(ImageTooLarge, match="scans"):
        decode_bytes(bomb)


# Colour


def test_a_wide_gamut_colour_lands_where_the_matrices_put_it() -> None:
    picture = np.full((64, 64, 3), (160, 110, 90), np.uint8)
    photo = decode_bytes(images.encode(picture, "PNG", icc_profile=images.wide_gamut_profile()), frame_px=64)
    to_srgb = np.array([[1.22494, -0.22494, 0.0], [-0.04206, 1.04206, 0.0], [-0.01964, -0.07864, 1.09828]])
    light = to_srgb @ (np.array([160, 110, 90]) / 255) ** 2.2
    expected = 255 * (1.055 * light ** (1 / 2.4) - 0.055)
    assert np.max(abs(photo.rgb[30, 30] - expected)) < 1.5


@pytest.mark.parametrize(
    "icc", [b"", b"no profile", images.wide_gamut_profile()[:200], images.cmyk_profile(), images.grey_profile(2.2)]
)
def test_a_profile_that_does_not_fit_is_a_warning_and_srgb(icc: bytes) -> None:
    picture = images.scene()
    data = images.png(picture, 8, images.TRUECOLOUR, (b"iCCP", b"name\0\0" + zlib.compress(icc)))
    photo = decode_bytes(data, frame_px=96)
    assert codes(photo) == ["profile_unreadable"]
    assert np.array_equal(photo.rgb, picture)


def test_a_damaged_profile_chunk_is_a_warning() -> None:
    photo = decode_bytes(images.png_with((b"iCCP", b"name\0\0 not deflate")), frame_px=96)
    assert codes(photo) == ["profile_unreadable"]


def test_a_profile_in_several_segments_is_put_together_in_order() -> None:
    icc, data = images.wide_gamut_profile(), images.encode(images.scene(), "JPEG", **JPEG_BEST)
    parts = [icc[:100], icc[100:250], icc[250:]]
    segments = [b"ICC_PROFILE\0" + bytes((n + 1, 3)) + part for n, part in enumerate(parts)]
    coded = [b"\xff\xe2" + struct.pack(">H", len(segment) + 2) + segment for segment in segments]
    whole = decode_bytes(data[:2] + coded[2] + coded[0] + coded[1] + data[2:], frame_px=96)
    assert codes(whole) == []
    assert images.mean_delta_e(whole.rgb, images.managed(images.scene(), icc)) <= 1
    for missing in (coded[:2], [coded[0], coded[1], coded[1]]):
        assert codes(decode_bytes(data[:2] + b"".join(missing) + data[2:], frame_px=96)) == ["profile_unreadable"]


def test_cmyk_without_a_profile_keeps_its_colours_and_warns() -> None:
    inks = Image.fromarray(images.patches()).convert("CMYK")
    photo = decode_bytes(images.encode(inks, "JPEG", **JPEG_BEST), frame_px=128)
    assert codes(photo) == ["cmyk_without_profile"]
    assert images.mean_delta_e(images.patch_centres(photo.rgb), images.PATCHES) <= 1
    spoilt = decode_bytes(images.encode(inks, "JPEG", icc_profile=images.wide_gamut_profile()), frame_px=128)
    assert codes(spoilt) == ["profile_unreadable", "cmyk_without_profile"]


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    samples = np.broadcast_to(np.linspace(0, 65535, 256).astype(np.uint16), (64, 256))
    photo = decode_bytes(images.png(samples, 16, images.GREY), frame_px=256)
    assert np.array_equal(photo.rgb[30, :, 1], np.rint(samples[30] / 257).astype(np.uint8))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_of_few_bits_fills_the_whole_range(bits: int) -> None:
    samples = np.broadcast_to(np.arange(64) * 37 % 2**bits, (64, 64))
    photo = decode_bytes(images.png(samples, bits, images.GREY), frame_px=64)
    assert np.array_equal(photo.rgb[..., 0], np.rint(samples * 255 / (2**bits - 1)).astype(np.uint8))


# Alpha


def test_opaque_alpha_is_no_warning() -> None:
    for kind in ("PNG", "WEBP"):
        data = images.encode(Image.fromarray(images.scene()).convert("RGBA"), kind, lossless=True)
        assert codes(decode_bytes(data, frame_px=96)) == []


def test_hidden_colour_does_not_bleed_into_the_reduction() -> None:
    samples = np.zeros((256, 256, 4), np.uint8)
    samples[:, ::2] = (255, 0, 0, 0)
    samples[:, 1::2] = (255, 255, 255, 255)
    photo = decode_bytes(images.encode(Image.fromarray(samples), "PNG"), frame_px=64)
    assert np.all(photo.rgb == 255)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_grey_of_a_png_is_composited(bits: int) -> None:
    samples = np.zeros((32, 32), np.uint16)
    samples[:, 16:] = 2**bits - 1
    data = images.png(samples, bits, images.GREY, (b"tRNS", struct.pack(">H", 0)))
    photo = decode_bytes(data, frame_px=32)
    assert np.all(photo.rgb == 255)
    assert codes(photo) == ["alpha_composited"]


@pytest.mark.parametrize("bits", [8, 16])
def test_the_transparent_colour_of_a_png_is_composited(bits: int) -> None:
    scale = 1 if bits == 8 else 257
    samples = images.patches(16).astype(np.uint16) * scale
    key = struct.pack(">3H", *(int(code) * scale for code in images.PATCHES[1, 2]))
    photo = decode_bytes(images.png(samples, bits, images.TRUECOLOUR, (b"tRNS", key)), frame_px=64)
    expected = images.PATCHES.copy()
    expected[1, 2] = WHITE
    assert np.array_equal(images.patch_centres(photo.rgb), expected)


# Damage


@pytest.mark.parametrize("name", seed_files())
def test_what_follows_the_picture_is_ignored(name: str) -> None:
    data = seed_files()[name]
    expected = decode_bytes(data, frame_px=96)
    for junk in (b"\0", bytes(1000), b"\xff\xd8\xff\xe0", data):
        assert np.array_equal(decode_bytes(data + junk, frame_px=96).rgb, expected.rgb)


def test_a_wrong_checksum_anywhere_in_a_png_is_corrupt() -> None:
    data = images.png_with((b"tEXt", b"a\0b"))
    for kind in (b"IHDR", b"tEXt", b"IDAT", b"IEND"):
        at = data.index(kind) - 4
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        spoilt = data[: end + 3] + bytes((data[end + 3] ^ 1,)) + data[end + 4 :]
        with pytest.raises(ImageCorrupt, match="checksum"):
            decode_bytes(spoilt)


@pytest.mark.parametrize("interlaced", [False, True])
def test_a_png_whose_samples_end_early_is_corrupt(interlaced: bool) -> None:
    data = images.png(images.scene(), 8, images.TRUECOLOUR, interlaced=interlaced)
    start = data.index(b"IDAT") + 4
    samples = zlib.decompress(data[start : data.index(b"IEND") - 8])
    assert decode_bytes(data, frame_px=96).width_px == 96
    for kept in (len(samples) - 1, len(samples) // 2, 0):
        shorter = images.png_chunk(b"IDAT", zlib.compress(samples[:kept])) + images.png_chunk(b"IEND", b"")
        with pytest.raises(ImageCorrupt, match="samples"):
            decode_bytes(data[: start - 8] + shorter)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_an_interlaced_png_is_read(bits: int) -> None:
    samples = np.add.outer(np.arange(41) * 5, np.arange(67) * 3) % 2**bits
    plain, interlaced = (images.png(samples, bits, images.GREY, interlaced=woven) for woven in (False, True))
    assert np.array_equal(decode_bytes(plain, frame_px=67).rgb, decode_bytes(interlaced, frame_px=67).rgb)


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 80},
        {"quality": 80, "subsampling": "4:4:4", "progressive": True},
        {"quality": 60, "restart_marker_blocks": 3},
        {"quality": 90, "keep_rgb": True},
        {"quality": 70, "optimize": True, "comment": b"a comment"},
    ],
)
def test_a_jpeg_without_its_metadata_has_the_same_pixels(options: dict[str, Any]) -> None:
    data = images.encode(images.scene(), "JPEG", exif=b"Exif\0\0" + images.exif(1), **options)
    assert np.array_equal(decode_bytes(data, frame_px=96).rgb, np.asarray(Image.open(io.BytesIO(data))))


def test_stray_bytes_between_jpeg_segments_are_skipped() -> None:
    data = images.encode(images.scene(), "JPEG")
    frame = data.index(b"\xff\xc0")
    assert np.array_equal(decode_bytes(data[:frame] + b"\xff\xff\0ab" + data[frame:]).rgb, decode_bytes(data).rgb)


def test_a_jpeg_of_twelve_bits_is_unsupported() -> None:
    data = images.encode(images.scene(), "JPEG")
    frame = data.index(b"\xff\xc0")
    with pytest.raises(ImageUnsupported, match="12 bits"):
        decode_bytes(data[: frame + 4] + b"\x0c" + data[frame + 5 :])


# The working frame


@pytest.mark.parametrize(("width_px", "height_px"), [(96, 64), (64, 96), (50, 50), (301, 77), (1024, 40), (2000, 32)])
@pytest.mark.parametrize("frame_px", [128, 1024])
def test_the_long_side_is_the_frame(width_px: int, height_px: int, frame_px: int) -> None:
    data = images.encode(images.scene(width_px, height_px), "PNG")
    if min(width_px, height_px) * frame_px / max(width_px, height_px) < 15.5:
        with pytest.raises(ImageUnsupported, match="narrow"):
            decode_bytes(data, frame_px=frame_px)
        return
    photo = decode_bytes(data, frame_px=frame_px)
    assert max(photo.width_px, photo.height_px) == frame_px
    assert photo.width_px / photo.height_px == pytest.approx(width_px / height_px, rel=0.04)
    assert (photo.source_width_px, photo.source_height_px) == (width_px, height_px)
    assert photo.rgb.dtype == np.uint8
    assert photo.rgb.flags.c_contiguous


@pytest.mark.parametrize(("width_px", "height_px"), [(15, 40), (40, 15), (1, 1)])
def test_a_side_under_sixteen_pixels_is_unsupported(width_px: int, height_px: int) -> None:
    for kind in KINDS:
        with pytest.raises(ImageUnsupported, match="16"):
            decode_bytes(images.encode(images.scene(width_px, height_px), kind))


def test_a_picture_of_exactly_the_frame_is_not_filtered() -> None:
    assert np.array_equal(decode_bytes(images.encode(images.scene(), "PNG"), frame_px=96).rgb, images.scene())


def test_the_same_file_gives_the_same_bytes_on_any_thread_count(monkeypatch: pytest.MonkeyPatch) -> None:
    data = images.encode(images.scene(500, 333), "JPEG", icc_profile=images.wide_gamut_profile())
    results = set()
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("LIVERY_THREADS", threads)
        results.add(decode_bytes(data, frame_px=200).rgb.tobytes())
    assert len(results) == 1


def test_real_photos_decode_without_a_warning() -> None:
    folder = os.environ.get("LIVERY_PHOTOS")
    if folder is None:
        pytest.skip("LIVERY_PHOTOS names no folder of photos")
    photos = sorted(Path(folder).glob("*.jpg"))
    assert photos
    for path in photos:
        photo = decode_bytes(path.read_bytes())
        assert max(photo.rgb.shape) == 1024
        assert photo.warnings == ()
