"""Decoding: one behaviour for each test, in the order of the intake's promises."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pipeline.colour import delta_e, srgb_to_lab
from pipeline.decode import MAX_BYTES, MAX_PARTS, MAX_SCANS, MAX_TEXT_CHARS, bytes_of_text, decode_bytes
from pipeline.errors import ImageCorrupt, ImageError, ImageTooLarge, ImageUnsupported
from pipeline.resample import resize_linear
from pipeline.types import Photo
from tests import images

ROOT = Path(__file__).parents[1]
KINDS = ("JPEG", "PNG", "WEBP")
JPEG_BEST = {"quality": 100, "subsampling": 0}
WHITE = (255, 255, 255)


def codes(photo: Photo) -> list[str]:
    return [warning.code for warning in photo.warnings]


def mean_delta_e(first: npt.NDArray[np.integer], second: npt.NDArray[np.integer]) -> float:
    lab = [srgb_to_lab(np.ascontiguousarray(rgb, np.uint8).reshape(-1, 3)) for rgb in (first, second)]
    return float(delta_e(*lab).mean())


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
    "spoil",
    [
        lambda text: text.rstrip("=") + "=" * 3,
        lambda text: text[:-1],
        lambda text: text[:-3],
        lambda text: "=" + text,
        lambda text: text[:40] + "!" + text[41:],
        lambda text: text[:40] + "é" + text[41:],
        lambda text: text[:40] + "=" + text[41:],
        lambda text: f"data:image/png;base64,data:image/png;base64,{text}",
        lambda text: f"data:image/png;base64{text}",
        lambda text: "data:image/png;base64,",
        lambda text: "",
        lambda text: " \n ",
    ],
)
def test_text_that_is_not_base64_is_corrupt(spoil: Callable[[str], str]) -> None:
    text = base64.b64encode(b"\x89PNG" + bytes(300)).decode()
    assert text.endswith("=") or len(text) % 4 == 0
    with pytest.raises(ImageCorrupt, match=r"^image: ") as caught:
        bytes_of_text(spoil(text))
    assert caught.value.field == "image"


@pytest.mark.parametrize(
    "head", ["data:text/html;base64,", "data:image/svg+xml;base64,", "data:,", "data:image/png,", "data:;base64,"]
)
def test_a_data_url_of_another_kind_is_unsupported(head: str, png_file: bytes) -> None:
    with pytest.raises(ImageUnsupported, match=r"data: URL"):
        bytes_of_text(head + base64.b64encode(png_file).decode())


def test_text_inside_text_is_named(png_file: bytes) -> None:
    inner = b"data:image/png;base64," + base64.b64encode(png_file)
    with pytest.raises(ImageUnsupported, match=r"data: URL inside"):
        decode_bytes(bytes_of_text(base64.b64encode(inner).decode()))


def test_too_much_text_is_refused_by_its_length() -> None:
    # Not base64 at all: had it been decoded first, it would be called corrupt.
    with pytest.raises(ImageTooLarge):
        bytes_of_text("!" * 50_000_000)
    with pytest.raises(ImageTooLarge):
        bytes_of_text("!" * MAX_TEXT_CHARS)
    with pytest.raises(ImageTooLarge):
        bytes_of_text("é" * (MAX_TEXT_CHARS + 1))


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


# Formats

DISGUISED = {
    "a GIF": b"GIF89a\x10\0\x10\0",
    "a BMP": b"BM\x36\0\0\0",
    "a TIFF": b"II*\0\x08\0\0\0",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "a PDF": b"%PDF-1.7\n",
    "SVG": b'\xef\xbb\xbf\n <svg xmlns="http://www.w3.org/2000/svg"/>',
    "SVG or other XML": b'<?xml version="1.0"?><svg/>',
    "HTML or XML": b"<!doctype html>",
    "AVIF": b"\0\0\0\x20ftypavif\0\0\0\0",
    "HEIC or a film": b"\0\0\0\x20ftypheic\0\0\0\0",
    "JPEG XL": b"\xff\x0a\xfa\x7f",
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n",
    "a Photoshop document": b"8BPS\0\x01",
    "in an unknown format": b"RIFF\x24\0\0\0WAVEfmt ",
}


@pytest.mark.parametrize("name", DISGUISED)
def test_other_formats_are_unsupported_and_named(name: str) -> None:
    with pytest.raises(ImageUnsupported, match=re.escape(f"is {name};")):
        decode_bytes(DISGUISED[name] + bytes(400))


ENTERED = """
import sys
from pipeline.decode import decode_bytes
from pipeline.errors import ImageError
for name in sys.argv[1:]:
    try:
        decode_bytes(open(name, "rb").read())
    except ImageError:
        pass
print(*sorted(name for name in sys.modules if name.startswith("PIL.") and name.endswith("ImagePlugin")))
"""


def test_only_the_parsers_of_the_three_formats_are_entered(tmp_path: Path) -> None:
    good = {kind: images.encode(images.scene(), kind, exif=b"Exif\0\0" + images.exif(6)) for kind in KINDS}
    files: list[Path] = []
    for name, data in {**DISGUISED, **good}.items():
        files.append(tmp_path / f"{len(files)}.jpg")
        files[-1].write_bytes(data if name in good else data + bytes(400))
    run = subprocess.run(
        [sys.executable, "-c", ENTERED, *files], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    assert run.stdout.split() == ["PIL.JpegImagePlugin", "PIL.PngImagePlugin", "PIL.WebPImagePlugin"]
    assert run.stderr == ""


# Bombs and lying headers


def _vp8x(width_px: int, height_px: int) -> bytes:
    return bytes(4) + (width_px - 1).to_bytes(3, "little") + (height_px - 1).to_bytes(3, "little")


def _riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(kind + struct.pack("<I", len(c)) + c + bytes(len(c) % 2) for kind, c in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    return images.png(images.scene(), 8, images.TRUECOLOUR, *chunks)


def _jpeg_of_size(width_px: int, height_px: int) -> bytes:
    data = images.encode(images.scene(), "JPEG")
    frame = data.index(b"\xff\xc0")
    return data[: frame + 5] + struct.pack(">HH", height_px, width_px) + data[frame + 9 :]


@cache
def bombs() -> dict[str, tuple[type[ImageError], bytes]]:
    large, small = images.zlib_bomb(128 << 20), images.zlib_bomb(1 << 20)
    webp = images.encode(images.scene(), "WEBP")[20:]
    lossless = images.encode(images.scene(), "WEBP", lossless=True)[20:]
    huge_lossless = b"\x2f" + (0x3FFF | 0x3FFF << 14).to_bytes(4, "little") + lossless[5:]
    huge_lossy = webp[:6] + struct.pack("<HH", 0x3FFF, 0x3FFF) + webp[10:]
    header = images.PNG_MAGIC + images.png_header(30000, 30000)
    idat = images.png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    sound_size = images.PNG_MAGIC + images.png_header(7000, 7000) + idat + images.png_chunk(b"IEND", b"")
    return {
        "png_30000_squared": (ImageTooLarge, header + idat + images.png_chunk(b"IEND", b"")),
        "png_little_data": (ImageCorrupt, sound_size),
        "png_ztxt": (ImageTooLarge, _png_with((b"zTXt", b"a\0\0" + large))),
        "png_itxt": (ImageTooLarge, _png_with((b"iTXt", b"a\0\1\0en\0a\0" + large))),
        "png_many_ztxt": (ImageTooLarge, _png_with(*[(b"zTXt", b"a\0\0" + small)] * 2000)),
        "png_plain_text": (ImageTooLarge, _png_with((b"tEXt", b"a\0" + bytes(9 << 20)))),
        "png_profile": (ImageTooLarge, _png_with((b"iCCP", b"a\0\0" + large))),
        "png_many_chunks": (ImageTooLarge, _png_with(*[(b"teXt", b"")] * MAX_PARTS)),
        "jpeg_65000_squared": (ImageTooLarge, _jpeg_of_size(65000, 65000)),
        "jpeg_little_data": (ImageCorrupt, _jpeg_of_size(7000, 7000)),
        "jpeg_many_segments": (ImageTooLarge, b"\xff\xd8" + b"\xff\xe1\0\x02" * MAX_PARTS + b"\xff\xd9"),
        "jpeg_fill_bytes": (ImageCorrupt, b"\xff\xd8" + b"\xff" * (MAX_BYTES - 2)),
        "webp_canvas": (ImageTooLarge, _riff((b"VP8X", _vp8x(16384, 16384)), (b"VP8 ", webp))),
        "webp_canvas_differs": (ImageCorrupt, _riff((b"VP8X", _vp8x(97, 64)), (b"VP8 ", webp))),
        "webp_lossy": (ImageTooLarge, _riff((b"VP8 ", huge_lossy))),
        "webp_lossless": (ImageTooLarge, _riff((b"VP8L", huge_lossless))),
        "webp_inside": (ImageTooLarge, _riff((b"VP8X", _vp8x(96, 64)), (b"VP8L", huge_lossless))),
        "webp_riff_size": (ImageCorrupt, b"RIFF\xff\xff\xff\x7fWEBPVP8 " + webp),
        "webp_many_chunks": (ImageTooLarge, _riff((b"VP8X", _vp8x(96, 64)), *[(b"XMP ", b"")] * MAX_PARTS)),
    }


PROBE = """
import json, sys, time
from pathlib import Path
from pipeline.decode import decode_bytes
from pipeline.errors import ImageError

def peak_kb():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

found = {}
for name in sys.argv[1:]:
    data = Path(name).read_bytes()
    Path("/proc/self/clear_refs").write_text("5")
    before_kb, start_s, code = peak_kb(), time.perf_counter(), "accepted"
    try:
        decode_bytes(data)
    except ImageError as fault:
        code = fault.code
    found[Path(name).name] = [code, (peak_kb() - before_kb) / 1024, time.perf_counter() - start_s]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def bomb_outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, float, float]]:
    """Code, peak memory in MiB and seconds for each bomb, from a process that does nothing else."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("peak memory of one call can only be measured where /proc/self/clear_refs is")
    folder = tmp_path_factory.mktemp("bombs")
    for name, (_, data) in bombs().items():
        (folder / name).write_bytes(data)
    run = subprocess.run(
        [sys.executable, "-c", PROBE, *sorted(folder.iterdir())],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    outcomes: dict[str, tuple[str, float, float]] = json.loads(run.stdout)
    return outcomes


@pytest.mark.parametrize("name", bombs())
def test_bombs_and_lying_headers_are_refused_before_allocation(
    name: str, bomb_outcomes: dict[str, tuple[str, float, float]]
) -> None:
    code, peak_mb, seconds = bomb_outcomes[name]
    print(f"{name}: {peak_mb:.1f} MiB, {seconds * 1000:.1f} ms")
    assert code == bombs()[name][0].__name__
    assert peak_mb < 64
    assert seconds < 2


def test_too_many_scans_are_refused() -> None:
    data = images.encode(images.scene(), "JPEG", progressive=True)
    last_scan = data.rindex(b"\xff\xda")
    scans = data[:-2].count(b"\xff\xda")
    bomb = data[:-2] + data[last_scan:-2] * (MAX_SCANS + 1 - scans) + data[-2:]
    with pytest.raises(ImageTooLarge, match="scans"):
        decode_bytes(bomb)


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", KINDS)
def test_every_orientation_comes_out_upright(kind: str, orientation: int) -> None:
    upright = images.scene(96, 64)
    for order in "<>":
        options = {"lossless": True} if kind == "WEBP" else JPEG_BEST if kind == "JPEG" else {}
        data = images.encode(
            images.stored(upright, orientation), kind, exif=b"Exif\0\0" + images.exif(orientation, order), **options
        )
        photo = decode_bytes(data, frame_px=96)
        assert (photo.source_width_px, photo.source_height_px) == (96, 64)
        assert mean_delta_e(photo.rgb, upright) < 1


@pytest.mark.parametrize(
    "broken",
    [
        b"II*\0",
        b"II*\0\xff\xff\xff\xff",
        b"XX*\0\x08\0\0\0\x01\0",
        images.exif(6)[:-9],
        images.exif(9),
        images.exif(0),
        images.exif(6).replace(b"\x08\0\0\0", b"\x90\x0f\0\0"),
        bytes(200),
    ],
)
def test_broken_exif_means_no_orientation(broken: bytes) -> None:
    for kind in KINDS:
        photo = decode_bytes(images.encode(images.scene(), kind, exif=b"Exif\0\0" + broken), frame_px=96)
        assert photo.rgb.shape == (64, 96, 3)
        assert codes(photo) == []


# Colour


@pytest.mark.parametrize("kind", KINDS)
def test_a_wide_gamut_profile_is_converted_as_littlecms_does(kind: str) -> None:
    picture, icc = images.scene(600, 400), images.wide_gamut_profile()
    options = {"lossless": True} if kind == "WEBP" else JPEG_BEST if kind == "JPEG" else {}
    photo = decode_bytes(images.encode(picture, kind, icc_profile=icc, **options), frame_px=150)
    reference = resize_linear(images.managed(picture, icc), 150, 100)
    assert codes(photo) == []
    assert mean_delta_e(photo.rgb, reference) <= 1
    assert mean_delta_e(resize_linear(picture, 150, 100), reference) > 2


def test_a_wide_gamut_colour_lands_where_the_matrices_put_it() -> None:
    picture = np.full((64, 64, 3), (160, 110, 90), np.uint8)
    photo = decode_bytes(images.encode(picture, "PNG", icc_profile=images.wide_gamut_profile()), frame_px=64)
    to_srgb = np.array([[1.22494, -0.22494, 0.0], [-0.04206, 1.04206, 0.0], [-0.01964, -0.07864, 1.09828]])
    light = to_srgb @ (np.array([160, 110, 90]) / 255) ** 2.2
    expected = 255 * (1.055 * light ** (1 / 2.4) - 0.055)
    assert np.max(abs(photo.rgb[30, 30] - expected)) < 1.5


def test_a_grey_profile_is_converted() -> None:
    ramp = Image.fromarray(np.broadcast_to(np.arange(0, 256, 4, dtype=np.uint8), (64, 64)).copy())
    icc = images.grey_profile(1.0)
    photo = decode_bytes(images.encode(ramp, "PNG", icc_profile=icc), frame_px=64)
    assert codes(photo) == []
    assert mean_delta_e(photo.rgb, images.managed(ramp, icc)) <= 1


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
    photo = decode_bytes(_png_with((b"iCCP", b"name\0\0 not deflate")), frame_px=96)
    assert codes(photo) == ["profile_unreadable"]


def test_a_profile_in_several_segments_is_put_together_in_order() -> None:
    icc, data = images.wide_gamut_profile(), images.encode(images.scene(), "JPEG", **JPEG_BEST)
    parts = [icc[:100], icc[100:250], icc[250:]]
    segments = [b"ICC_PROFILE\0" + bytes((n + 1, 3)) + part for n, part in enumerate(parts)]
    coded = [b"\xff\xe2" + struct.pack(">H", len(segment) + 2) + segment for segment in segments]
    whole = decode_bytes(data[:2] + coded[2] + coded[0] + coded[1] + data[2:], frame_px=96)
    assert codes(whole) == []
    assert mean_delta_e(whole.rgb, images.managed(images.scene(), icc)) <= 1
    for missing in (coded[:2], [coded[0], coded[1], coded[1]]):
        assert codes(decode_bytes(data[:2] + b"".join(missing) + data[2:], frame_px=96)) == ["profile_unreadable"]


def test_cmyk_with_a_profile_is_converted_as_littlecms_does() -> None:
    inks, icc = Image.fromarray(images.patches()).convert("CMYK"), images.cmyk_profile()
    photo = decode_bytes(images.encode(inks, "JPEG", icc_profile=icc, **JPEG_BEST), frame_px=128)
    assert codes(photo) == []
    assert mean_delta_e(images.patch_centres(photo.rgb), images.patch_centres(images.managed(inks, icc))) <= 1


def test_cmyk_without_a_profile_keeps_its_colours_and_warns() -> None:
    inks = Image.fromarray(images.patches()).convert("CMYK")
    photo = decode_bytes(images.encode(inks, "JPEG", **JPEG_BEST), frame_px=128)
    assert codes(photo) == ["cmyk_without_profile"]
    assert mean_delta_e(images.patch_centres(photo.rgb), images.PATCHES) <= 1
    spoilt = decode_bytes(images.encode(inks, "JPEG", icc_profile=images.wide_gamut_profile()), frame_px=128)
    assert codes(spoilt) == ["profile_unreadable", "cmyk_without_profile"]


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    samples = np.broadcast_to(np.linspace(0, 65535, 256).astype(np.uint16), (64, 256))
    photo = decode_bytes(images.png(samples, 16, images.GREY), frame_px=256)
    assert np.array_equal(photo.rgb[30, :, 1], np.rint(samples[30] / 257).astype(np.uint8))


def test_sixteen_bit_colour_is_scaled_not_clipped() -> None:
    picture = images.scene()
    samples = picture.astype(np.uint16) * 257
    photo = decode_bytes(images.png(samples, 16, images.TRUECOLOUR), frame_px=96)
    assert mean_delta_e(photo.rgb, picture) <= 1


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_of_few_bits_fills_the_whole_range(bits: int) -> None:
    samples = np.broadcast_to(np.arange(64) * 37 % 2**bits, (64, 64))
    photo = decode_bytes(images.png(samples, bits, images.GREY), frame_px=64)
    assert np.array_equal(photo.rgb[..., 0], np.rint(samples * 255 / (2**bits - 1)).astype(np.uint8))


# Alpha


def test_alpha_is_composited_on_white_and_said_so() -> None:
    samples = np.zeros((64, 64, 4), np.uint8)
    samples[..., :3], samples[..., 3] = (200, 40, 0), np.arange(64) * 4
    photo = decode_bytes(images.encode(Image.fromarray(samples), "PNG"), frame_px=64)
    cover = samples[..., 3:].astype(float) / 255
    assert np.array_equal(photo.rgb, np.floor(samples[..., :3] * cover + 255 * (1 - cover) + 0.5))
    assert codes(photo) == ["alpha_composited"]
    assert "#FFFFFF" in photo.warnings[0].message


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


def test_grey_with_alpha_is_composited() -> None:
    samples = np.zeros((64, 64, 2), np.uint8)
    samples[:32, :, 1] = 255
    photo = decode_bytes(images.encode(Image.fromarray(samples, "LA"), "PNG"), frame_px=64)
    assert np.all(photo.rgb[10] == 0)
    assert np.all(photo.rgb[50] == 255)
    assert codes(photo) == ["alpha_composited"]


@pytest.mark.parametrize("transparency", [bytes((0, 255, 128)), bytes((0,))])
def test_a_palette_with_transparency_is_composited(transparency: bytes) -> None:
    samples = np.repeat(np.array([0, 1, 2], np.uint8), 16)[None, :].repeat(32, axis=0)
    colours = (b"PLTE", bytes((255, 0, 0, 0, 0, 255, 0, 200, 0)))
    photo = decode_bytes(images.png(samples, 8, images.INDEXED, colours, (b"tRNS", transparency)), frame_px=48)
    last = (127, 227, 127) if len(transparency) == 3 else (0, 200, 0)
    assert [tuple(photo.rgb[16, x]) for x in (8, 24, 40)] == [WHITE, (0, 0, 255), last]
    assert codes(photo) == ["alpha_composited"]


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


# Several frames, several pictures


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_gives_its_first_frame_and_a_warning(kind: str) -> None:
    first, second = np.full((64, 64, 3), (250, 0, 0), np.uint8), np.full((64, 64, 3), (0, 0, 250), np.uint8)
    photo = decode_bytes(images.animation(kind, [first, second, first]), frame_px=64)
    assert np.max(abs(photo.rgb.astype(int) - first)) <= 4
    assert codes(photo) == ["animation_first_frame"]


def test_no_further_frame_is_decoded() -> None:
    frames = [images.scene(seed=seed) for seed in range(3)]
    webp = images.animation("WEBP", frames)
    picture = webp.rindex(b"VP8 ")
    spoilt_webp = webp[: picture + 8] + bytes(200) + webp[picture + 208 :]
    with pytest.raises(OSError, match="could not create decoder"):
        Image.open(io.BytesIO(spoilt_webp))
    png = images.animation("PNG", frames)
    data = png.index(b"fdAT")
    size = int.from_bytes(png[data - 4 : data], "big")
    spoilt_png = png[: data - 4] + images.png_chunk(b"fdAT", png[data + 4 : data + 8] + bytes(size - 4))
    spoilt_png += png[data + 8 + size :]
    for spoilt in (spoilt_webp, spoilt_png):
        assert codes(decode_bytes(spoilt, frame_px=96)) == ["animation_first_frame"]


def test_a_file_of_several_pictures_gives_the_first_and_a_warning() -> None:
    first, second = Image.fromarray(images.scene(seed=1)), Image.fromarray(255 - images.scene(seed=2))
    data = images.encode(first, "MPO", save_all=True, append_images=[second], quality=95)
    photo = decode_bytes(data, frame_px=96)
    assert mean_delta_e(photo.rgb, images.scene(seed=1)) < 4
    assert codes(photo) == ["multi_picture_first"]


# Damage


@pytest.mark.parametrize("name", seed_files())
def test_a_file_cut_anywhere_is_corrupt(name: str) -> None:
    data = seed_files()[name]
    for percent in range(1, 100, 4):
        with pytest.raises(ImageCorrupt):
            decode_bytes(data[: len(data) * percent // 100], frame_px=96)
    for missing_bytes in (1, 2, 3, 8):
        with pytest.raises(ImageCorrupt):
            decode_bytes(data[:-missing_bytes], frame_px=96)


def test_a_jpeg_cut_between_two_segments_is_corrupt() -> None:
    data = seed_files()["jpeg_progressive"]
    markers = [at for at in range(4, len(data)) if data[at - 1 : at] != b"\xff" and data[at : at + 1] == b"\xff"]
    cuts = [at for at in markers if 0xC0 <= data[at + 1] <= 0xFE]
    assert len(cuts) > 20
    for at in cuts:
        with pytest.raises(ImageCorrupt):
            decode_bytes(data[:at], frame_px=96)


@pytest.mark.parametrize("name", [name for name in seed_files() if not name.startswith("webp")])
def test_a_cut_file_filled_up_with_zeros_is_corrupt(name: str) -> None:
    data = seed_files()[name]
    for percent in (20, 50, 80, 95):
        kept = len(data) * percent // 100
        with pytest.raises(ImageCorrupt):
            decode_bytes(data[:kept] + bytes(len(data) - kept), frame_px=96)


@pytest.mark.parametrize("name", seed_files())
def test_what_follows_the_picture_is_ignored(name: str) -> None:
    data = seed_files()[name]
    expected = decode_bytes(data, frame_px=96)
    for junk in (b"\0", bytes(1000), b"\xff\xd8\xff\xe0", data):
        assert np.array_equal(decode_bytes(data + junk, frame_px=96).rgb, expected.rgb)


def test_a_wrong_checksum_anywhere_in_a_png_is_corrupt() -> None:
    data = _png_with((b"tEXt", b"a\0b"))
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
