"""Pictures that are damaged, that lie about themselves, or that are none of the three formats."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import struct
import subprocess
import sys
import time
import tracemalloc
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.decode import MAX_BYTES, MAX_PARTS, MAX_TEXT_CHARS, bytes_of_text, decode_bytes
from pipeline.errors import ImageCorrupt, ImageError, ImageTooLarge, ImageUnsupported
from pipeline.resample import resize_linear
from pipeline.types import U8, Photo
from tests import images
from tests.faults import mutants
from tests.faults.conftest import Figure

ROOT = Path(__file__).parents[2]
KINDS = ("JPEG", "PNG", "WEBP")
LOSSLESS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
}
WHITE = (255, 255, 255)
FRAME_PX = 64
HANG_S = 2.0
REFUSED_S = 0.05
REFUSED_MB = 64


def codes(photo: Photo) -> list[str]:
    return [warning.code for warning in photo.warnings]


# ---- malformed


def outcome(data: bytes) -> str:
    try:
        photo = decode_bytes(data, frame_px=FRAME_PX)
    except ImageError as fault:
        return f"{fault.code} of {fault.field}"
    assert isinstance(photo, Photo)
    assert photo.rgb.dtype == np.uint8
    assert max(photo.rgb.shape[:2]) == FRAME_PX
    return "Photo"


def test_ten_thousand_damaged_pictures_are_each_a_photo_or_a_typed_error(figure: Figure) -> None:
    outcomes: Counter[str] = Counter()
    slowest_s = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, data in mutants.mutants():
            start_s = time.monotonic()
            try:
                outcomes[outcome(data)] += 1
            except Exception as leak:  # noqa: BLE001 - any other exception is what this test looks for
                pytest.fail(f"{name}: {type(leak).__name__}: {leak}")
            spent_s = time.monotonic() - start_s
            assert spent_s < HANG_S, name
            slowest_s = max(slowest_s, spent_s)
    assert outcomes.total() == mutants.MUTANTS
    assert set(outcomes) == {
        "Photo",
        "ImageCorrupt of image",
        "ImageUnsupported of image",
        "ImageTooLarge of image",
    }
    assert outcomes["Photo"] > mutants.MUTANTS // 20, "too little damage gets past the container to test the parsers"
    refused = outcomes.total() - outcomes["Photo"]
    measured = f"{outcomes.total():,} mutants: 0 crashes, slowest {slowest_s * 1000:.0f} ms, {refused:,} typed errors"
    figure("malformed image", measured, "0 crashes, none over 2 s, 100 % typed")


def test_mutants_are_the_same_on_every_run() -> None:
    first, second = mutants.mutants(), mutants.mutants()
    for _ in range(200):
        assert next(first) == next(second)


@pytest.mark.parametrize("name", mutants.seeds())
def test_the_undamaged_seed_is_a_photo(name: str) -> None:
    assert outcome(mutants.seeds()[name]) == "Photo"


# ---- bombs and lying headers


def vp8x(width_px: int, height_px: int) -> bytes:
    return bytes(4) + (width_px - 1).to_bytes(3, "little") + (height_px - 1).to_bytes(3, "little")


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(kind + struct.pack("<I", len(c)) + c + bytes(len(c) % 2) for kind, c in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jpeg_of_size(width_px: int, height_px: int) -> bytes:
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
        "png_ztxt": (ImageTooLarge, images.png_with((b"zTXt", b"a\0\0" + large))),
        "png_itxt": (ImageTooLarge, images.png_with((b"iTXt", b"a\0\1\0en\0a\0" + large))),
        "png_many_ztxt": (ImageTooLarge, images.png_with(*[(b"zTXt", b"a\0\0" + small)] * 2000)),
        "png_plain_text": (ImageTooLarge, images.png_with((b"tEXt", b"a\0" + bytes(9 << 20)))),
        "png_profile": (ImageTooLarge, images.png_with((b"iCCP", b"a\0\0" + large))),
        "png_many_chunks": (ImageTooLarge, images.png_with(*[(b"teXt", b"")] * MAX_PARTS)),
        "jpeg_65000_squared": (ImageTooLarge, jpeg_of_size(65000, 65000)),
        "jpeg_little_data": (ImageCorrupt, jpeg_of_size(7000, 7000)),
        "jpeg_many_segments": (ImageTooLarge, b"\xff\xd8" + b"\xff\xe1\0\x02" * MAX_PARTS + b"\xff\xd9"),
        "webp_canvas": (ImageTooLarge, riff((b"VP8X", vp8x(16384, 16384)), (b"VP8 ", webp))),
        "webp_canvas_differs": (ImageCorrupt, riff((b"VP8X", vp8x(97, 64)), (b"VP8 ", webp))),
        "webp_lossy": (ImageTooLarge, riff((b"VP8 ", huge_lossy))),
        "webp_lossless": (ImageTooLarge, riff((b"VP8L", huge_lossless))),
        "webp_inside": (ImageTooLarge, riff((b"VP8X", vp8x(96, 64)), (b"VP8L", huge_lossless))),
        "webpriff_size": (ImageCorrupt, b"RIFF\xff\xff\xff\x7fWEBPVP8 " + webp),
        "webp_many_chunks": (ImageTooLarge, riff((b"VP8X", vp8x(96, 64)), *[(b"XMP ", b"")] * MAX_PARTS)),
    }


PROBE = """
import json, sys, time
from pathlib import Path
from typing import Any
from pipeline.decode import decode_bytes
from pipeline.errors import ImageError

def peak_kb():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

found = {}
for name in sys.argv[1:]:
    data = Path(name).read_bytes()
    Path("/proc/self/clear_refs").write_text("5")
    before_kb, code, spent_s = peak_kb(), "accepted", []
    for _ in range(10):
        start_s = time.process_time()
        try:
            decode_bytes(data)
        except ImageError as fault:
            code = fault.code
        spent_s.append(time.process_time() - start_s)
    found[Path(name).name] = [code, (peak_kb() - before_kb) / 1024, min(spent_s)]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def bomb_outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, float, float]]:
    """Code, peak memory in MiB and the least of ten times in CPU seconds of each bomb, in a process of their own."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("peak memory of one call can only be measured where /proc/self/clear_refs is")
    folder = tmp_path_factory.mktemp("bombs")
    for name, (_, data) in bombs().items():
        (folder / name).write_bytes(data)
    run = subprocess.run(
        [sys.executable, "-c", PROBE, *sorted(folder.iterdir())],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    outcomes: dict[str, tuple[str, float, float]] = json.loads(run.stdout)
    return outcomes


def test_bombs_and_lying_headers_are_refused_before_allocation(
    bomb_outcomes: dict[str, tuple[str, float, float]], figure: Figure
) -> None:
    assert {name: code for name, (code, _, _) in bomb_outcomes.items()} == {
        name: error.__name__ for name, (error, _) in bombs().items()
    }
    peak_mb = max(peak_mb for _, peak_mb, _ in bomb_outcomes.values())
    slowest_s = max(seconds for _, _, seconds in bomb_outcomes.values())
    measured = f"{len(bomb_outcomes)} files: at most {peak_mb:.0f} MiB and {slowest_s * 1000:.0f} ms"
    figure("bombs, lying headers", measured, "refused, < 64 MB, < 50 ms")
    assert peak_mb < REFUSED_MB
    assert slowest_s < REFUSED_S


# ---- orientation


def test_every_orientation_comes_out_upright(figure: Figure) -> None:
    upright = images.scene(96, 64)
    tried = 0
    for orientation in range(1, 9):
        for kind in KINDS:
            for order in "<>":
                data = images.encode(
                    images.stored(upright, orientation),
                    kind,
                    exif=b"Exif\0\0" + images.exif(orientation, order),
                    **LOSSLESS[kind],
                )
                photo = decode_bytes(data, frame_px=96)
                assert (photo.source_width_px, photo.source_height_px) == (96, 64)
                assert images.mean_delta_e(photo.rgb, upright) < 1, (orientation, kind, order)
                tried += 1
    figure("EXIF orientation", f"8/8 upright, in {tried} files", "8/8 upright")


BROKEN_EXIF = [
    b"II*\0",
    b"II*\0\xff\xff\xff\xff",
    b"XX*\0\x08\0\0\0\x01\0",
    images.exif(6)[:-9],
    images.exif(9),
    images.exif(0),
    images.exif(6).replace(b"\x08\0\0\0", b"\x90\x0f\0\0"),
    bytes(200),
]


def test_broken_exif_means_no_orientation(figure: Figure) -> None:
    for broken in BROKEN_EXIF:
        for kind in KINDS:
            photo = decode_bytes(images.encode(images.scene(), kind, exif=b"Exif\0\0" + broken), frame_px=96)
            assert photo.rgb.shape == (64, 96, 3)
            assert codes(photo) == []
    figure("EXIF orientation", f"{len(BROKEN_EXIF) * len(KINDS)} broken ones: 0 failures", "no orientation, no failure")


# ---- colour


def icc_chunk(icc: bytes) -> tuple[bytes, bytes]:
    return b"iCCP", b"name\0\0" + zlib.compress(icc)


def coloured() -> Iterator[tuple[str, bytes, U8]]:
    """Name and file of a picture of each kind of coding, and what littleCMS makes of it: uint8 [H, W, 3]."""
    wide, grey_icc = images.wide_gamut_profile(), images.grey_profile(1.0)
    large, small = images.scene(600, 400), images.scene()
    for kind in KINDS:
        reference = resize_linear(images.managed(large, wide), 150, 100)
        yield f"ICC {kind}", images.encode(large, kind, icc_profile=wide, **LOSSLESS[kind]), reference
    of_wide, grey = images.managed(small, wide), Image.fromarray(small).convert("L")
    of_grey = images.managed(grey, grey_icc)
    yield "16 bit", images.png(small.astype(np.uint16) * 257, 16, images.TRUECOLOUR, icc_chunk(wide)), of_wide
    samples = np.asarray(grey)
    yield "16 bit grey", images.png(samples.astype(np.uint16) * 257, 16, images.GREY, icc_chunk(grey_icc)), of_grey
    yield "grey", images.encode(grey, "PNG", icc_profile=grey_icc), of_grey
    indexed = Image.fromarray(small).quantize(64)
    yield "palette", images.encode(indexed, "PNG", icc_profile=wide), images.managed(indexed.convert("RGB"), wide)
    seen = np.where(np.arange(96) < 40, 0, 255).astype(np.uint8) * np.ones((64, 1), np.uint8)
    over_white = np.where(seen[..., None] == 255, of_grey, 255).astype(np.uint8)
    yield "LA", images.encode(Image.merge("LA", (grey, Image.fromarray(seen))), "PNG", icc_profile=grey_icc), over_white
    black_and_white = (samples >> 7) * np.uint8(255)
    yield "1 bit", images.png(samples >> 7, 1, images.GREY), np.dstack([black_and_white] * 3)


def test_every_kind_of_colour_is_converted_as_littlecms_does(figure: Figure) -> None:
    found = {}
    for name, data, reference in coloured():
        photo = decode_bytes(data, frame_px=max(reference.shape))
        assert codes(photo) == (["alpha_composited"] if name == "LA" else []), name
        found[name] = images.mean_delta_e(photo.rgb, reference)
    inks = Image.fromarray(images.patches()).convert("CMYK")
    photo = decode_bytes(
        images.encode(inks, "JPEG", icc_profile=images.cmyk_profile(), **LOSSLESS["JPEG"]), frame_px=128
    )
    assert codes(photo) == []
    managed = images.managed(inks, images.cmyk_profile())
    found["CMYK"] = images.mean_delta_e(images.patch_centres(photo.rgb), images.patch_centres(managed))
    worst = max(found, key=lambda name: found[name])
    measured = f"{len(found)} kinds: mean ΔE at most {found[worst]:.2f} ({worst})"
    figure("ICC, CMYK, 16 bit, alpha", measured, "mean ΔE ≤ 1")
    assert found[worst] <= 1
    plain, wide = images.scene(600, 400), images.wide_gamut_profile()
    assert images.mean_delta_e(plain, images.managed(plain, wide)) > 2, "the profile changes nothing"


def test_alpha_is_composited_on_white_and_said_so() -> None:
    samples = np.zeros((64, 64, 4), np.uint8)
    samples[..., :3], samples[..., 3] = (200, 40, 0), np.arange(64) * 4
    photo = decode_bytes(images.encode(Image.fromarray(samples), "PNG"), frame_px=64)
    cover = samples[..., 3:].astype(float) / 255
    assert np.array_equal(photo.rgb, np.floor(samples[..., :3] * cover + 255 * (1 - cover) + 0.5))
    assert codes(photo) == ["alpha_composited"]
    assert "#FFFFFF" in photo.warnings[0].message


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


# ---- several frames, several pictures


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_gives_its_first_frame_and_a_warning(kind: str) -> None:
    first, second = np.full((64, 64, 3), (250, 0, 0), np.uint8), np.full((64, 64, 3), (0, 0, 250), np.uint8)
    photo = decode_bytes(images.animation(kind, [first, second, first]), frame_px=64)
    assert np.max(abs(photo.rgb.astype(int) - first)) <= 4
    assert codes(photo) == ["animation_first_frame"]


def test_no_further_frame_is_decoded(figure: Figure) -> None:
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
    figure("animated, multi-picture", "frame 0 of 2 files whose others are spoilt", "frame 0, a warning")


def test_a_file_of_several_pictures_gives_the_first_and_a_warning() -> None:
    first, second = Image.fromarray(images.scene(seed=1)), Image.fromarray(255 - images.scene(seed=2))
    data = images.encode(first, "MPO", save_all=True, append_images=[second], quality=95)
    photo = decode_bytes(data, frame_px=96)
    assert images.mean_delta_e(photo.rgb, images.scene(seed=1)) < 4
    assert codes(photo) == ["multi_picture_first"]


# ---- truncated


def truncated() -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every seed, cut at 1 to 99 %."""
    for name, data in mutants.seeds().items():
        # A file of several pictures is whole once its first is.
        size_bytes = data.index(b"\xff\xd9") if name == "jpeg_several" else len(data)
        for percent in range(1, 100, 8):
            yield f"{name} at {percent} %", data[: max(16, size_bytes * percent // 100)]
        for missing_bytes in (1, 2, 3, 8):
            yield f"{name} without its last {missing_bytes}", data[: size_bytes - missing_bytes]


def test_a_file_cut_anywhere_is_corrupt(figure: Figure) -> None:
    tried = 0
    for name, data in truncated():
        with pytest.raises(ImageCorrupt):
            pytest.fail(f"{name} became {decode_bytes(data, frame_px=FRAME_PX)}")
        tried += 1
    figure("truncated", f"{tried} of {tried} cut files are ImageCorrupt", "100 % of 200 Corrupt")
    assert tried >= 200


def test_a_cut_file_filled_up_with_zeros_is_corrupt(figure: Figure) -> None:
    tried = 0
    for name, data in mutants.seeds().items():
        if name.startswith("webp") or name in ("jpeg_several", "png_animated"):
            continue
        for percent in (20, 50, 80, 95):
            kept = len(data) * percent // 100
            with pytest.raises(ImageCorrupt):
                decode_bytes(data[:kept] + bytes(len(data) - kept), frame_px=FRAME_PX)
            tried += 1
    figure("truncated", f"{tried} of {tried} filled up with zeros too", "never grey filling")


def test_a_jpeg_cut_between_two_segments_is_corrupt() -> None:
    data = mutants.seeds()["jpeg_progressive"]
    markers = [at for at in range(4, len(data)) if data[at - 1 : at] != b"\xff" and data[at : at + 1] == b"\xff"]
    cuts = [at for at in markers if 0xC0 <= data[at + 1] <= 0xFE]
    assert len(cuts) > 20
    for at in cuts:
        with pytest.raises(ImageCorrupt):
            decode_bytes(data[:at], frame_px=96)


# ---- other formats


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


def test_other_formats_are_unsupported_and_named() -> None:
    for name, data in DISGUISED.items():
        with pytest.raises(ImageUnsupported, match=re.escape(f"is {name};")):
            decode_bytes(data + bytes(400))


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


def test_only_the_parsers_of_the_three_formats_are_entered(tmp_path: Path, figure: Figure) -> None:
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
    measured = f"{len(DISGUISED)} formats named and refused, 3 parsers imported"
    figure("formats in disguise", measured, "only JPEG, PNG and WebP parsers entered")


# ---- base64


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


def test_text_inside_text_is_named() -> None:
    png_file = images.encode(images.scene(), "PNG")
    inner = b"data:image/png;base64," + base64.b64encode(png_file)
    with pytest.raises(ImageUnsupported, match=r"data: URL inside"):
        decode_bytes(bytes_of_text(base64.b64encode(inner).decode()))


def test_base64_of_1_byte_to_50_mb_is_refused_by_its_length_before_it_is_decoded(figure: Figure) -> None:
    tried, peak_bytes, slowest_s = 0, 0, 0.0
    for size_bytes in (1, 2, 3, 100, 10_000, 1_000_000, MAX_BYTES, MAX_BYTES + 1, 30_000_000, 50_000_000):
        text = base64.b64encode(bytes(size_bytes)).decode()
        for form in (text, text + "=", text.rstrip("=")[:-1] + "!", f"data:image/png;base64,{text}"):
            tracemalloc.start()
            start_s = time.perf_counter()
            with pytest.raises(ImageError) as caught:
                decode_bytes(bytes_of_text(form))
            spent_s = time.perf_counter() - start_s
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert caught.value.field == "image"
            tried += 1
            if len(form) > MAX_TEXT_CHARS:
                # Half of these are no base64: had they been decoded first, they would be called corrupt.
                assert type(caught.value) is ImageTooLarge
                peak_bytes, slowest_s = max(peak_bytes, peak), max(slowest_s, spent_s)
    limits = f"those too long in {slowest_s * 1000:.1f} ms with {peak_bytes / 1000:.0f} kB"
    measured = f"{tried} of {tried} refused, {limits}"
    figure("base64 of any kind", measured, "by length, before decoding")
    assert peak_bytes < 1_000_000
    with pytest.raises(ImageTooLarge):
        bytes_of_text("é" * (MAX_TEXT_CHARS + 1))
