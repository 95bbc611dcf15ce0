"""Makes the test pictures: nothing binary is committed.

Arrays are uint8 [H, W, 3], sRGB, unless a function says otherwise.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from pipeline.colour import delta_e, srgb_to_lab
from pipeline.types import U8

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
GREY, TRUECOLOUR, INDEXED = 0, 2, 3
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))

PATCHES = np.array(
    [
        [[255, 255, 255], [128, 128, 128], [20, 20, 20], [200, 60, 40]],
        [[60, 140, 70], [50, 80, 170], [230, 190, 50], [120, 60, 130]],
        [[90, 170, 190], [190, 140, 120], [70, 70, 60], [240, 120, 20]],
    ],
    np.uint8,
)


def scene(width_px: int = 96, height_px: int = 64, seed: int = 0) -> U8:
    """A smooth coloured sky and ground, a hard-edged body, and a little grain."""
    grain = np.random.default_rng(seed).integers(-6, 7, (height_px, width_px, 1))
    y, x = np.mgrid[0:height_px, 0:width_px] / np.array([height_px, width_px]).reshape(2, 1, 1)
    picture = np.stack([90 + 120 * x, 130 + 60 * y, 210 - 150 * y], axis=2)
    picture[(abs(x - 0.5) < 0.3) & (abs(y - 0.6) < 0.18)] = (190, 40, 35)
    return np.clip(picture + grain, 0, 255).astype(np.uint8)


def patches(side_px: int = 32) -> U8:
    """`PATCHES` as squares of `side_px`."""
    return PATCHES.repeat(side_px, axis=0).repeat(side_px, axis=1)


def patch_centres(rgb: U8) -> U8:
    """What `patches` came out as: uint8 [3, 4, 3], the middle pixel of each square of a resized picture."""
    rows = (2 * np.arange(3) + 1) * rgb.shape[0] // 6
    columns = (2 * np.arange(4) + 1) * rgb.shape[1] // 8
    centres: U8 = rgb[rows][:, columns]
    return centres


def encode(picture: U8 | Image.Image, kind: str, **options: Any) -> bytes:
    """`picture` as a JPEG, PNG or WebP file, by Pillow and its options."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def animation(kind: str, frames: Sequence[U8]) -> bytes:
    """An animated PNG or WebP."""
    images = [Image.fromarray(frame) for frame in frames]
    return encode(images[0], kind, save_all=True, append_images=images[1:], duration=40)


def png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    """The scene as a PNG with these chunks before its samples."""
    return png(scene(), 8, TRUECOLOUR, *chunks)


def exif(orientation: int, order: str = "<") -> bytes:
    """A TIFF structure that holds the orientation alone."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def stored(upright: U8, orientation: int) -> U8:
    """The picture as a camera stores it, so that EXIF `orientation` turns it into `upright`."""
    turned = {
        1: upright,
        2: np.fliplr(upright),
        3: np.rot90(upright, 2),
        4: np.flipud(upright),
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    return np.ascontiguousarray(turned)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_header(width_px: int, height_px: int, bits: int = 8, colour: int = TRUECOLOUR) -> bytes:
    return png_chunk(b"IHDR", struct.pack(">IIBBBBB", width_px, height_px, bits, colour, 0, 0, 0))


def png(
    samples: npt.NDArray[Any], bits: int, colour: int, *extra: tuple[bytes, bytes], interlaced: bool = False
) -> bytes:
    """A PNG of codes [H, W] or [H, W, C], written here because Pillow writes no 16-bit colour and no interlacing.

    Args:
        samples: codes, 0 to 2 ** bits − 1.
        bits: 1, 2, 4, 8 or 16 for each sample.
        colour: colour type of the PNG specification.
        extra: type and content of chunks that stand before the samples.
        interlaced: in the seven passes of Adam7.
    """
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    scanlines = b"".join(_scanlines(samples[y::step_y, x::step_x], bits) for x, y, step_x, step_y in passes)
    height_px, width_px = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width_px, height_px, bits, colour, 0, 0, interlaced)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(scanlines)), (b"IEND", b"")]
    return PNG_MAGIC + b"".join(png_chunk(kind, content) for kind, content in chunks)


def _scanlines(samples: npt.NDArray[Any], bits: int) -> bytes:
    rows = np.ascontiguousarray(samples).reshape(len(samples), -1)
    if bits < 8:
        planes = (rows[:, :, None] >> np.arange(bits)[::-1]) & 1
        packed = np.packbits(planes.reshape(len(rows), -1).astype(np.uint8), axis=1)
    else:
        packed = rows.astype(f">u{bits // 8}").view(np.uint8)
    return np.pad(packed, ((0, 0), (1, 0))).tobytes()


def zlib_bomb(size_bytes: int) -> bytes:
    """A deflate stream of `size_bytes` zeros, made without holding them."""
    packer = zlib.compressobj(9)
    piece = bytes(1 << 20)
    return b"".join(packer.compress(piece) for _ in range(size_bytes >> 20)) + packer.flush()


def wide_gamut_profile() -> bytes:
    """A display profile with the primaries of Display P3 (adapted to D50) and a gamma of 2.2 (ICC.1:2001)."""
    columns = {
        b"rXYZ": (0.51512, 0.24120, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.15710, 0.06657, 0.78407),
    }
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256))
    tags = {kind: _xyz(*column) for kind, column in columns.items()}
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def grey_profile(gamma: float) -> bytes:
    """A grey profile with a pure power curve."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))})


def cmyk_profile() -> bytes:
    """A made-up press: a table of 3⁴ inks to L*a*b* (lut8Type)."""
    c, m, y, k = np.meshgrid(*[np.linspace(0, 1, 3)] * 4, indexing="ij")
    lightness = 95 * (1 - 0.9 * k) * (1 - 0.4 * c) * (1 - 0.5 * m) * (1 - 0.08 * y)
    lab = [lightness * 2.55, 128 + (72 * m - 36 * c) * (1 - k), 128 + (88 * y - 46 * c) * (1 - k)]
    table = np.rint(np.stack(lab, axis=-1)).astype(np.uint8).tobytes()
    identity = struct.pack(">9i", *(np.eye(3, dtype=int) * 65536).ravel().tolist())
    ramp = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 3, 0)) + identity + ramp * 4 + table + ramp * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": lut})


def mean_delta_e(first: npt.NDArray[np.integer], second: npt.NDArray[np.integer]) -> float:
    """CIEDE2000 between two pictures of codes, on average."""
    lab = [srgb_to_lab(np.ascontiguousarray(rgb, np.uint8).reshape(-1, 3)) for rgb in (first, second)]
    return float(delta_e(*lab).mean())


def managed(picture: U8 | Image.Image, icc: bytes) -> U8:
    """`picture` in sRGB by littleCMS, relative colorimetric with black point compensation, at its full precision."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(icc)),
        ImageCms.createProfile("sRGB"),
        image.mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOOPTIMIZE,
    )
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None
    return np.asarray(converted)


def _xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def _profile(device: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    white = _xyz(0.9642, 1.0, 0.8249)
    tags = {b"wtpt": white} | tags
    offset = 132 + 12 * len(tags)
    table, contents = struct.pack(">I", len(tags)), b""
    for kind, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        table += kind + struct.pack(">II", offset + len(contents), len(content))
        contents += padded
    header = struct.pack(">I4xI4s4s4s12x4s", offset + len(contents), 0x02400000, device, space, connection, b"acsp")
    return header.ljust(68, b"\0") + white[8:] + bytes(48) + table + contents
