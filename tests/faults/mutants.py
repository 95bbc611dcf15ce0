"""Damages pictures at random, the same way on every run.

A checksum or a length field would stop most damage at the door, so half of the PNG and WebP mutants have theirs put
right again: those reach the parsers behind it. A mutation takes the file, another file and a source of chance.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from random import Random

import numpy as np
from PIL import Image

from tests import images

MUTANTS = 10_000


def seeds() -> dict[str, bytes]:
    """One small file of every coding that Livery reads, with profile, EXIF and text where the format has them."""
    scene, wide = images.scene(80, 64), {"icc_profile": images.wide_gamut_profile()}
    exif = {"exif": b"Exif\0\0" + images.exif(6)}
    picture, frames = Image.fromarray(scene), [images.scene(64, 64, seed) for seed in range(3)]
    cutout = Image.fromarray(np.dstack([scene, scene[:, :, 0]]))
    key = (b"tRNS", bytes(6))
    return {
        "jpeg": images.encode(scene, "JPEG", quality=85, **wide, **exif),
        "jpeg_progressive": images.encode(scene, "JPEG", quality=85, progressive=True, **exif),
        "jpeg_restarts": images.encode(scene, "JPEG", quality=70, restart_marker_blocks=4),
        "jpeg_grey": images.encode(picture.convert("L"), "JPEG", icc_profile=images.grey_profile(1.8)),
        "jpeg_cmyk": images.encode(picture.convert("CMYK"), "JPEG", icc_profile=images.cmyk_profile()),
        "jpeg_several": images.encode(picture, "MPO", save_all=True, append_images=[picture]),
        "png": images.encode(scene, "PNG", **wide, **exif),
        "png_palette": images.encode(picture.quantize(40), "PNG", transparency=bytes(range(40))),
        "png_alpha": images.encode(cutout, "PNG"),
        "png_16_bit": images.png(scene.astype(np.uint16) * 257, 16, images.TRUECOLOUR, key, interlaced=True),
        "png_grey_16_bit": images.png(scene[:, :, 0].astype(np.uint16) * 257, 16, images.GREY),
        "png_bits": images.png(scene[:, :, 0] >> 7, 1, images.GREY, (b"zTXt", b"a\0\0" + zlib.compress(b"text"))),
        "png_animated": images.animation("PNG", frames),
        "webp": images.encode(scene, "WEBP", **wide, **exif),
        "webp_lossless": images.encode(scene, "WEBP", lossless=True),
        "webp_alpha": images.encode(cutout, "WEBP", quality=60),
        "webp_animated": images.animation("WEBP", frames),
    }


def flip_bits(data: bytearray, _other: bytes, chance: Random) -> bytearray:
    for _ in range(chance.choice((1, 2, 8, 40))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return data


def overwrite(data: bytearray, _other: bytes, chance: Random) -> bytearray:
    start, length = chance.randrange(len(data)), chance.choice((1, 2, 4, 16, 200))
    filler = chance.choice((bytes(length), b"\xff" * length, chance.randbytes(length)))
    data[start : start + length] = filler[: len(data) - start]
    return data


def cut(data: bytearray, _other: bytes, chance: Random) -> bytearray:
    return data[: chance.randrange(len(data))]


def remove(data: bytearray, _other: bytes, chance: Random) -> bytearray:
    start = chance.randrange(len(data))
    del data[start : start + chance.choice((1, 3, 50, 400))]
    return data


def splice(data: bytearray, other: bytes, chance: Random) -> bytearray:
    return data[: chance.randrange(len(data))] + other[chance.randrange(len(other)) :]


def repeat(data: bytearray, _other: bytes, chance: Random) -> bytearray:
    start, at = chance.randrange(len(data)), chance.randrange(len(data))
    data[at:at] = data[start : start + chance.choice((4, 60, 600))]
    return data


def edit_header(data: bytearray, _other: bytes, chance: Random) -> bytearray:
    for _ in range(chance.choice((1, 2, 4))):
        data[chance.randrange(min(len(data), 64))] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
    return data


def lie_about_length(data: bytearray, _other: bytes, chance: Random) -> bytearray:
    width, order = chance.choice((2, 4)), chance.choice("<>")
    at = chance.choice([*part_starts(bytes(data)), chance.randrange(len(data))])
    lie = chance.choice((0, 1, 2, 7, len(data), 2**31 - 1, 2**32 - 1, chance.randrange(2**16))) % 2 ** (8 * width)
    data[at : at + width] = struct.pack(order + ("H" if width == 2 else "I"), lie)
    return data


def edit_part(data: bytearray, _other: bytes, chance: Random) -> bytearray:
    starts = part_starts(bytes(data))
    start = chance.choice(starts) if starts else 0
    for _ in range(chance.choice((1, 2, 5))):
        data[min(start + chance.randrange(40), len(data) - 1)] = chance.randrange(256)
    return data


MUTATIONS: tuple[Callable[[bytearray, bytes, Random], bytearray], ...] = (
    flip_bits,
    overwrite,
    cut,
    remove,
    splice,
    repeat,
    edit_header,
    lie_about_length,
    edit_part,
)


def part_starts(data: bytes) -> list[int]:
    """Where the length fields stand: of JPEG segments, PNG chunks and WebP chunks."""
    if data.startswith(b"\xff\xd8"):
        return [at + 2 for at in range(len(data) - 1) if data[at] == 0xFF and 0xC0 <= data[at + 1] < 0xFF]
    if data.startswith(images.PNG_MAGIC):
        return [at for at, _ in _parts(data, 8, ">", 4)]
    return [at + 4 for at, _ in _parts(data, 12, "<", 0)]


def _parts(data: bytes, at: int, order: str, trailer: int) -> Iterator[tuple[int, int]]:
    """Start and content length of each chunk that lies inside."""
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(order + "I", data, at if order == ">" else at + 4)
        if at + 8 + length + trailer > len(data):
            return
        yield at, length
        at += 8 + length + (trailer if trailer else length % 2)


def mend(data: bytearray) -> bytearray:
    """Put a PNG's checksums and a WebP's outer length right again."""
    if data.startswith(images.PNG_MAGIC):
        for at, length in _parts(bytes(data), 8, ">", 4):
            end = at + 8 + length
            data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
    elif data.startswith(b"RIFF") and len(data) >= 8:
        data[4:8] = struct.pack("<I", len(data) - 8)
    return data


def mutants() -> Iterator[tuple[str, bytes]]:
    """Name and bytes of `MUTANTS` damaged files, the same on every run."""
    chance, files = Random(20), seeds()
    names = sorted(files)
    for number in range(MUTANTS):
        name, mutate = names[number % len(names)], chance.choice(MUTATIONS)
        data = mutate(bytearray(files[name]), files[chance.choice(names)], chance)
        yield f"{number} {name} {mutate.__name__}", bytes(mend(data) if chance.random() < 0.5 else data)
