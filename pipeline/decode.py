"""Encoded photo → `Photo`: limits, container, pixels, working frame.

The bytes come from strangers. So the container is walked here first, with every length checked, and only what the
pixels need is handed on, as a *bare* JPEG, PNG or WebP, to exactly one Pillow parser: no text, EXIF, profile, second
picture or second frame reaches it. Size, completeness and checksums are known before a pixel is allocated. Then:

    pixels → opaque (alpha over `ALPHA_BACKGROUND`) → working frame (linear light) → sRGB (ICC) → upright (EXIF)

The profile is applied after the reduction, to a twelfth of the pixels of a phone's photo: an RGB profile is a curve
close to sRGB's and a matrix, and a matrix commutes with averaging. CMYK is no light, so it becomes sRGB before the
reduction. JPEG's reduced decoding (`draft`) is not used: it averages codes, not light, and saves a fifth of the
decoding time.

littleCMS and libjpeg-turbo come inside Pillow's wheel. Their results are the same on every run of one wheel; across
processor families they are as equal as those libraries make them.
"""

from __future__ import annotations

import binascii
import hashlib
import io
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageCms, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from pipeline.errors import ImageCorrupt, ImageError, ImageTooLarge, ImageUnsupported
from pipeline.resample import resize_linear
from pipeline.types import U8, Photo, Warning

MAX_BYTES: Final = 20 * 1024 * 1024
"""20 MiB of encoded picture."""

MAX_TEXT_CHARS: Final = 28 * 1024 * 1024
"""`MAX_BYTES` in base64 with a line break every 76 characters, and a data: URL's head."""

MAX_PIXELS: Final = 50_000_000
MIN_SIDE_PX: Final = 16
"""Shortest side, of the photo and of its working frame."""

MAX_PARTS: Final = 16_384
"""JPEG segments, PNG or WebP chunks. Encoders write a few thousand at most."""

MAX_SCANS: Final = 64
"""Scans of a progressive JPEG; encoders write up to about 20, and each costs a pass over all coefficients."""

MAX_SIDE_DATA_BYTES: Final = 8 * 1024 * 1024
"""Text of a PNG once inflated, and an ICC profile."""

ALPHA_BACKGROUND: Final = (255, 255, 255)
"""What shows through transparent pixels."""

MEDIA_TYPES: Final = frozenset({"image/jpeg", "image/jpg", "image/png", "image/webp"})

# What Pillow and littleCMS raise on malformed input, besides their own errors (UnidentifiedImageError is an OSError).
# MemoryError is not among them: sizes are checked first, so it means that the worker, not the picture, is at fault.
_PARSER_FAULTS: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    Image.DecompressionBombError,
    ImageCms.PyCMSError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

_OTHER_FORMATS: Final = (
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP"),
    (b"II*\0", "a TIFF"),
    (b"MM\0*", "a TIFF"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"%PDF", "a PDF"),
    (b"8BPS", "a Photoshop document"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"<svg", "SVG"),
    (b"<?xml", "SVG or other XML"),
    (b"<", "HTML or XML"),
    (b"data:", "a data: URL inside another encoding"),
)

_FIRST_FRAME: Final = Warning("animation_first_frame", "the picture is animated; its first frame is used")
_FIRST_PICTURE: Final = Warning("multi_picture_first", "the file holds several pictures; the first is used")
_ALPHA: Final = Warning("alpha_composited", "transparent pixels are shown on white, #FFFFFF")
_PROFILE: Final = Warning("profile_unreadable", "the colour profile can't be used; the picture is read without it")
_PLAIN_CMYK: Final = Warning("cmyk_without_profile", "CMYK without a usable profile; converted by the plain formula")

_BASE64_ALPHABET: Final = bytes.maketrans(b"-_", b"+/")
_WHITESPACE: Final = b" \t\r\n\v\f"
_CUT_SHORT: Final = "the picture is cut short"


@dataclass(frozen=True, slots=True)
class _Encoded:
    """What the container says, and the picture alone.

    Attributes:
        parser: the one Pillow class that may read `bare`.
        bare: the picture without metadata, further pictures and further frames.
        exif: a TIFF structure, or empty.
        icc: the colour profile; empty where it is there but damaged, None where there is none.
        colour_key: the PNG grey or RGB code that means transparent, scaled to 8 bits.
    """

    parser: type[ImageFile.ImageFile]
    width_px: int
    height_px: int
    bare: bytes
    exif: bytes = b""
    icc: bytes | None = None
    colour_key: tuple[int, ...] | None = None
    warnings: tuple[Warning, ...] = ()


def bytes_of_text(image: str) -> bytes:
    """The file of a picture sent as text.

    Args:
        image: base64 (RFC 4648, the standard or the URL-safe alphabet, padded; whitespace is skipped), or a `data:` URL
            of it with the media type image/jpeg, image/png or image/webp. Which of the three it is, the bytes decide.

    Raises:
        ImageUnsupported: a data: URL that is none of those.
        ImageCorrupt: not base64, or empty.
        ImageTooLarge: more than `MAX_BYTES`; more text than `MAX_TEXT_CHARS` is refused by its length.
    """
    try:
        return _bytes_of_text(image)
    except ImageError as fault:
        raise type(fault)(fault.message, field="image") from fault


def decode_bytes(data: bytes, *, frame_px: int = 1024, field: str = "image") -> Photo:
    """Decode a JPEG, PNG or WebP file into the working frame.

    Alpha is composited on `ALPHA_BACKGROUND` in the picture's own codes, `(c·a + b·(255 − a)) / 255` rounded, as
    editors and browsers do. Sixteen-bit samples are scaled to 8 bits. A profile that can't be read counts as sRGB, and
    CMYK without one is converted by the plain formula `(255 − c)·(255 − k) / 255`; both are warnings, as are further
    frames and pictures, which are not decoded.

    Args:
        data: the file.
        frame_px: long side of the working frame, pixels; a smaller photo is enlarged.
        field: request field that errors name.

    Raises:
        ImageUnsupported: another format, or a side shorter than `MIN_SIDE_PX` in the photo or the frame.
        ImageCorrupt: damaged or cut short.
        ImageTooLarge: more than `MAX_BYTES`, `MAX_PIXELS`, `MAX_PARTS`, `MAX_SCANS` or `MAX_SIDE_DATA_BYTES`.
    """
    try:
        return _decode(data, frame_px)
    except ImageError as fault:
        raise type(fault)(fault.message, field=field) from fault


def _decode(data: bytes, frame_px: int) -> Photo:
    encoded = _read_container(data)
    width_px, height_px = _frame_size(encoded.width_px, encoded.height_px, frame_px)
    warnings = list(encoded.warnings)
    image, icc = _load(encoded), encoded.icc
    if image.mode == "CMYK":
        image, icc = _rgb_of_cmyk(image, icc, warnings), None
    rgb = resize_linear(_opaque(image, encoded.colour_key, warnings), width_px, height_px)
    if icc is not None:
        rgb = _managed(rgb, icc, warnings)
    transposed, flips = _ORIENTATIONS[_orientation(encoded.exif)]
    upright = (rgb.transpose(1, 0, 2) if transposed else rgb)[flips]
    source_px = (encoded.width_px, encoded.height_px)
    return Photo(
        rgb=np.ascontiguousarray(upright),
        source_width_px=source_px[transposed],
        source_height_px=source_px[not transposed],
        sha256=hashlib.sha256(data).hexdigest(),
        warnings=tuple(warnings),
    )


# Text


def _bytes_of_text(image: str) -> bytes:
    if len(image) > MAX_TEXT_CHARS:
        raise ImageTooLarge(f"the text is longer than {MAX_TEXT_CHARS:,} characters")
    try:
        encoded = _payload(image.strip()).encode("ascii").translate(_BASE64_ALPHABET, _WHITESPACE)
    except UnicodeEncodeError as fault:
        raise ImageCorrupt("the text is not base64") from fault
    if not encoded:
        raise ImageCorrupt("the picture is empty")
    if len(encoded) // 4 * 3 - 2 > MAX_BYTES:
        raise ImageTooLarge(f"the picture has more than {MAX_BYTES:,} bytes")
    try:
        return binascii.a2b_base64(encoded, strict_mode=True)
    except binascii.Error as fault:
        raise ImageCorrupt("the text is not base64, or its padding is wrong") from fault


def _payload(text: str) -> str:
    if text[:5].lower() != "data:":
        return text
    comma = text.find(",", 0, 256)
    if comma < 0:
        raise ImageCorrupt("the data: URL has no comma before its data")
    media_type, *parameters = text[5:comma].lower().split(";")
    if media_type.strip() not in MEDIA_TYPES:
        raise ImageUnsupported("the data: URL must have the media type image/jpeg, image/png or image/webp")
    if "base64" not in (parameter.strip() for parameter in parameters):
        raise ImageUnsupported("the data: URL must be base64")
    return text[comma + 1 :]


# Containers

_PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"


def _read_container(data: bytes) -> _Encoded:
    if not data:
        raise ImageCorrupt("the picture is empty")
    if len(data) > MAX_BYTES:
        raise ImageTooLarge(f"the picture has more than {MAX_BYTES:,} bytes")
    if data.startswith(b"\xff\xd8\xff"):
        return _read_jpeg(data)
    if data.startswith(_PNG_MAGIC):
        return _read_png(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _read_webp(data)
    raise ImageUnsupported(f"the picture is {_foreign_format(data)}; send JPEG, PNG or WebP")


def _foreign_format(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        return "AVIF" if data[8:12] in (b"avif", b"avis") else "HEIC or a film"
    start = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip(_WHITESPACE)
    return next((name for magic, name in _OTHER_FORMATS if start.startswith(magic)), "in an unknown format")


def _check_pixels(width_px: int, height_px: int) -> None:
    if width_px * height_px > MAX_PIXELS:
        raise ImageTooLarge(f"the picture has {width_px} × {height_px} pixels, more than {MAX_PIXELS:,}")
    if min(width_px, height_px) < MIN_SIDE_PX:
        raise ImageUnsupported(f"the picture has {width_px} × {height_px} pixels; a side needs {MIN_SIDE_PX} or more")


def _check_side_data(size_bytes: int) -> None:
    if size_bytes > MAX_SIDE_DATA_BYTES:
        raise ImageTooLarge(f"the picture carries more than {MAX_SIDE_DATA_BYTES:,} bytes of text or colour profile")


def _frame_size(width_px: int, height_px: int, frame_px: int) -> tuple[int, int]:
    long_px = max(width_px, height_px)
    frame_width_px, frame_height_px = ((2 * px * frame_px + long_px) // (2 * long_px) for px in (width_px, height_px))
    if min(frame_width_px, frame_height_px) < MIN_SIDE_PX:
        raise ImageUnsupported(
            f"the picture has {width_px} × {height_px} pixels: too narrow, "
            f"its short side would be under {MIN_SIDE_PX} of {frame_px} pixels"
        )
    return frame_width_px, frame_height_px


# JPEG (ITU-T T.81, annex B)

_JPEG_MARKER: Final = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
"""Any marker but TEM and the restarts, which stand inside a scan."""

_SOI, _EOI, _SOS, _APP1, _APP2 = 0xD8, 0xD9, 0xDA, 0xE1, 0xE2
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_KEPT: Final = _FRAMES | {0xC4, 0xCC, _SOS, 0xDB, 0xDD, 0xE0, 0xEE}
"""Frame, DHT, DAC, SOS, DQT, DRI; JFIF (APP0) and Adobe (APP14), which say how the colours are coded."""


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and whole segment (a scan with its entropy-coded data) up to the end-of-image marker.

    Stray bytes between segments are skipped, as libjpeg does; what follows the end is ignored.
    """
    position = 2
    for _ in range(MAX_PARTS):
        found = _JPEG_MARKER.search(data, position)
        if found is None:
            raise ImageCorrupt(_CUT_SHORT)
        start, marker = found.start(), data[found.start() + 1]
        if marker == _EOI:
            return
        length = int.from_bytes(data[start + 2 : start + 4], "big")
        if marker == _SOI or length < 2:
            raise ImageCorrupt("the JPEG's segments are damaged")
        position = start + 2 + length
        if marker == _SOS:
            following = _JPEG_MARKER.search(data, position)
            position = following.start() if following else len(data) + 1
        if position > len(data):
            raise ImageCorrupt(_CUT_SHORT)
        yield marker, data[start:position]
    raise ImageTooLarge(f"the JPEG has more than {MAX_PARTS:,} segments")


def _read_jpeg(data: bytes) -> _Encoded:
    kept, profile_parts, exif, warnings = [b"\xff\xd8"], list[bytes](), b"", list[Warning]()
    frame: tuple[int, int] | None = None
    scans = scan_bytes = 0
    for marker, segment in _jpeg_segments(data):
        if marker in _FRAMES:
            if frame is not None:
                raise ImageCorrupt("the JPEG has two frame headers")
            frame = _jpeg_size(segment)
        elif marker == _SOS:
            scans, scan_bytes = scans + 1, scan_bytes + len(segment)
        elif marker == _APP1 and segment.startswith(b"Exif\0\0", 4) and not exif:
            exif = segment[10:]
        elif marker == _APP2 and segment.startswith(b"ICC_PROFILE\0", 4):
            profile_parts.append(segment[16:])
        elif marker == _APP2 and segment.startswith(b"MPF\0", 4) and not warnings:
            warnings.append(_FIRST_PICTURE)
        if marker in _JPEG_KEPT:
            kept.append(segment)
    if frame is None:
        raise ImageCorrupt("the JPEG holds no picture")
    _check_scans(frame, scans, scan_bytes)
    bare = b"".join([*kept, b"\xff\xd9"])
    icc = _jpeg_profile(profile_parts) if profile_parts else None
    return _Encoded(JpegImageFile, *frame, bare, exif=exif, icc=icc, warnings=tuple(warnings))


def _jpeg_size(segment: bytes) -> tuple[int, int]:
    if len(segment) < 10:
        raise ImageCorrupt("the JPEG's frame header is damaged")
    bits, height_px, width_px, components = struct.unpack_from(">BHHB", segment, 4)
    if bits != 8 or components not in (1, 3, 4):
        raise ImageUnsupported(f"the JPEG has {components} components of {bits} bits; send 1, 3 or 4 of 8 bits")
    _check_pixels(width_px, height_px)
    return width_px, height_px


def _check_scans(frame: tuple[int, int], scans: int, scan_bytes: int) -> None:
    if scans > MAX_SCANS:
        raise ImageTooLarge(f"the JPEG has {scans} scans, more than {MAX_SCANS}")
    # A block of 8 × 8 samples takes a bit at least; a sixteenth of that allows for any subsampling.
    if scan_bytes * 8 < frame[0] * frame[1] // 1024:
        raise ImageCorrupt("the JPEG holds too little data for its size")


def _jpeg_profile(parts: list[bytes]) -> bytes:
    """An ICC profile from its segments' number, count and content (ICC.1, annex B.4); empty where one is missing."""
    numbered = {part[0]: part[2:] for part in parts if len(part) > 2 and part[1] == len(parts)}
    profile = b"".join(numbered[number] for number in sorted(numbered))
    _check_side_data(len(profile))
    return profile if sorted(numbered) == list(range(1, len(parts) + 1)) else b""


# PNG (W3C Recommendation, third edition)

_GREY, _TRUECOLOUR, _INDEXED, _GREY_ALPHA, _TRUECOLOUR_ALPHA = 0, 2, 3, 4, 6
_PNG_CHANNELS: Final = {_GREY: 1, _TRUECOLOUR: 3, _INDEXED: 1, _GREY_ALPHA: 2, _TRUECOLOUR_ALPHA: 4}
_ADAM7: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column, first row and steps of each pass of an interlaced PNG."""

_INFLATE_STEP_BYTES: Final = 1 << 14
"""Coded bytes inflated at a time: 16 MiB at most, since deflate expands no more than 1032 times."""

_PNG_SIDE_DATA: Final = frozenset({b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"acTL"})


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and content of each chunk up to the end chunk, lengths and checksums verified; what follows is ignored."""
    position = len(_PNG_MAGIC)
    for _ in range(MAX_PARTS):
        start = position + 8
        stop = start + int.from_bytes(data[position : position + 4], "big")
        position = stop + 4
        if position > len(data):
            raise ImageCorrupt(_CUT_SHORT)
        kind, content = data[start - 4 : start], data[start:stop]
        if zlib.crc32(content, zlib.crc32(kind)) != int.from_bytes(data[stop:position], "big"):
            raise ImageCorrupt("a checksum of the PNG is wrong")
        if kind == b"IEND":
            return
        yield kind, content
    raise ImageTooLarge(f"the PNG has more than {MAX_PARTS:,} chunks")


def _read_png(data: bytes) -> _Encoded:
    chunks = _png_chunks(data)
    kind, header = next(chunks, (b"", b""))
    if kind != b"IHDR" or len(header) != 13:
        raise ImageCorrupt("the PNG's header is damaged")
    width_px, height_px, bits, colour = struct.unpack_from(">IIBB", header)
    _check_pixels(width_px, height_px)
    side_data, coded, text_bytes = dict[bytes, bytes](), list[bytes](), 0
    for kind, content in chunks:
        if kind == b"IDAT":
            coded.append(content)
        elif kind in _PNG_SIDE_DATA:
            side_data.setdefault(kind, content)
        else:
            text_bytes += _text_bytes(kind, content)
            _check_side_data(text_bytes)
    if not _inflates_to(_png_sample_bytes(header), coded):
        raise ImageCorrupt("the PNG's samples end early or are damaged")
    return _Encoded(
        PngImageFile,
        width_px,
        height_px,
        _bare_png(header, side_data if colour == _INDEXED else {}, coded),
        exif=side_data.get(b"eXIf", b""),
        icc=_png_profile(side_data[b"iCCP"]) if b"iCCP" in side_data else None,
        colour_key=_colour_key(side_data.get(b"tRNS"), bits, colour),
        warnings=(_FIRST_FRAME,) if int.from_bytes(side_data.get(b"acTL", b"")[:4], "big") > 1 else (),
    )


def _png_sample_bytes(header: bytes) -> int:
    """Bytes of all scanlines, each with its filter's number."""
    width_px, height_px, bits, colour, _, _, interlace = struct.unpack(">IIBBBBB", header)
    if colour not in _PNG_CHANNELS:
        raise ImageCorrupt("the PNG's header is damaged")
    total_bytes = 0
    for x, y, step_x, step_y in _ADAM7 if interlace else ((0, 0, 1, 1),):
        columns, rows = -((x - width_px) // step_x), -((y - height_px) // step_y)
        total_bytes += rows * (1 + (columns * bits * _PNG_CHANNELS[colour] + 7) // 8)
    return total_bytes


def _inflates_to(size_bytes: int, coded: list[bytes]) -> bool:
    """Whether there are that many bytes: Pillow would leave rows that a closed stream lacks black, without an error."""
    inflater, missing_bytes = zlib.decompressobj(), size_bytes
    steps = (
        content[at : at + _INFLATE_STEP_BYTES]
        for content in coded
        for at in range(0, len(content), _INFLATE_STEP_BYTES)
    )
    try:
        for step in steps:
            missing_bytes -= len(inflater.decompress(step))
            if missing_bytes <= 0 or inflater.eof:
                break
    except zlib.error:
        return False
    return missing_bytes <= 0


def _bare_png(header: bytes, side_data: dict[bytes, bytes], coded: list[bytes]) -> bytes:
    chunks = [(b"IHDR", header)]
    chunks += [(kind, side_data[kind]) for kind in (b"PLTE", b"tRNS") if kind in side_data]
    chunks += [(b"IDAT", b"".join(coded)), (b"IEND", b"")]
    parts = [_PNG_MAGIC]
    for kind, content in chunks:
        parts += [struct.pack(">I", len(content)), kind, content]
        parts += [struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))]
    return b"".join(parts)


def _text_bytes(kind: bytes, content: bytes) -> int:
    """Bytes of a chunk that is not read, compressed text inflated: a bomb is refused, though it would never go off."""
    _, _, after_keyword = content.partition(b"\0")
    if kind == b"zTXt":
        return len(_inflated(after_keyword[1:]))
    if kind == b"iTXt" and after_keyword[:1] == b"\1":
        return len(_inflated(after_keyword[2:].split(b"\0", 2)[-1]))
    return len(content)


def _inflated(compressed: bytes) -> bytes:
    """Inflated up to just over the limit on side data; empty where the stream is damaged."""
    try:
        return zlib.decompressobj().decompress(compressed, MAX_SIDE_DATA_BYTES + 1)
    except zlib.error:
        return b""


def _png_profile(content: bytes) -> bytes:
    _, _, after_name = content.partition(b"\0")
    profile = _inflated(after_name[1:])
    _check_side_data(len(profile))
    return profile


def _colour_key(content: bytes | None, bits: int, colour: int) -> tuple[int, ...] | None:
    channels = {_GREY: 1, _TRUECOLOUR: 3}.get(colour)
    if content is None or channels is None:
        return None
    if len(content) != 2 * channels:
        raise ImageCorrupt("the PNG's transparent colour is damaged")
    largest = (1 << bits) - 1
    return tuple(
        (min(code, largest) * 255 + largest // 2) // largest for code in struct.unpack(f">{channels}H", content)
    )


# WebP (RFC 9649)

_WEBP_PICTURES: Final = frozenset({b"VP8 ", b"VP8L"})
_WEBP_KEPT: Final = _WEBP_PICTURES | {b"VP8X", b"ALPH", b"ANIM", b"ANMF"}


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and content of each chunk of the RIFF container, lengths verified; what follows it is ignored."""
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise ImageCorrupt(_CUT_SHORT)
    position = 12
    for _ in range(MAX_PARTS):
        if position >= end:
            return
        start = position + 8
        stop = start + int.from_bytes(data[position + 4 : start], "little")
        if stop > end:
            raise ImageCorrupt("a chunk of the WebP is longer than the file")
        yield data[position : position + 4], data[start:stop]
        position = stop + (stop - start) % 2
    raise ImageTooLarge(f"the WebP has more than {MAX_PARTS:,} chunks")


def _read_webp(data: bytes) -> _Encoded:
    canvas: tuple[int, int] | None = None
    parts, side_data, frames = list[bytes](), dict[bytes, bytes](), 0
    for kind, content in _webp_chunks(data):
        if kind == b"VP8X" or kind in _WEBP_PICTURES:
            size = _webp_size(kind, content)
            if canvas not in (None, size):
                raise ImageCorrupt("the WebP's headers contradict each other")
            canvas = size
        frames += kind == b"ANMF"
        if kind in (b"ICCP", b"EXIF"):
            side_data.setdefault(kind, content)
        elif kind in _WEBP_KEPT and frames <= 1:
            parts += [kind, struct.pack("<I", len(content)), content, b"\0" * (len(content) % 2)]
    if canvas is None:
        raise ImageCorrupt("the WebP holds no picture")
    body = b"".join([b"WEBP", *parts])
    icc = side_data.get(b"ICCP")
    _check_side_data(0 if icc is None else len(icc))
    return _Encoded(
        WebPImageFile,
        *canvas,
        b"RIFF" + struct.pack("<I", len(body)) + body,
        exif=side_data.get(b"EXIF", b"").removeprefix(b"Exif\0\0"),
        icc=icc,
        warnings=(_FIRST_FRAME,) if frames > 1 else (),
    )


def _webp_size(kind: bytes, content: bytes) -> tuple[int, int]:
    if kind == b"VP8X" and len(content) >= 10:
        width_px = int.from_bytes(content[4:7], "little") + 1
        height_px = int.from_bytes(content[7:10], "little") + 1
    elif kind == b"VP8L" and len(content) >= 5 and content[0] == 0x2F:
        bits = int.from_bytes(content[1:5], "little")
        width_px, height_px = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 " and content[3:6] == b"\x9d\x01\x2a" and len(content) >= 10:
        width_px, height_px = (side & 0x3FFF for side in struct.unpack_from("<HH", content, 6))
    else:
        raise ImageCorrupt("the WebP's header is damaged")
    _check_pixels(width_px, height_px)
    return width_px, height_px


# Pixels

_AS_IS, _BACK = slice(None), slice(None, None, -1)
_ORIENTATIONS: Final = {
    1: (False, (_AS_IS, _AS_IS)),
    2: (False, (_AS_IS, _BACK)),
    3: (False, (_BACK, _BACK)),
    4: (False, (_BACK, _AS_IS)),
    5: (True, (_AS_IS, _AS_IS)),
    6: (True, (_AS_IS, _BACK)),
    7: (True, (_BACK, _BACK)),
    8: (True, (_BACK, _AS_IS)),
}
"""EXIF orientation → whether rows and columns change places, and then which of the two run backwards."""


def _orientation(exif: bytes) -> int:
    """The orientation in the first directory of a TIFF structure (EXIF 2.32, 4.6.4); 1 where there is no sound one."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, directory)
        for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind = struct.unpack_from(f"{order}HH", exif, entry)
            if tag == 0x0112:
                (value,) = struct.unpack_from(order + ("H" if kind == 3 else "I"), exif, entry + 8)
                return value if value in _ORIENTATIONS else 1
    except struct.error:
        return 1
    return 1


def _load(encoded: _Encoded) -> Image.Image:
    """The decoded picture as RGB, RGBA, CMYK or I;16."""
    try:
        image = encoded.parser(io.BytesIO(encoded.bare))
        size_px = image.size
        if size_px == (encoded.width_px, encoded.height_px):
            image.load()
            return _direct(image)
    except _PARSER_FAULTS as fault:
        raise ImageCorrupt("the picture is damaged") from fault
    raise ImageCorrupt("the picture's headers contradict each other")


def _direct(image: Image.Image) -> Image.Image:
    if image.mode in ("RGB", "RGBA", "CMYK", "I;16"):
        return image
    transparent = image.mode == "LA" or "transparency" in image.info
    return image.convert("RGBA" if transparent else "RGB")


def _opaque(image: Image.Image, colour_key: tuple[int, ...] | None, warnings: list[Warning]) -> U8:
    """uint8 [H, W, 3] with the transparent parts on the background."""
    samples = np.asarray(image)
    if image.mode == "I;16":
        grey = ((samples.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
        samples = np.repeat(grey[:, :, None], 3, axis=2)
    rgb = np.ascontiguousarray(samples[:, :, :3])
    if colour_key is not None:
        alpha = np.where((rgb == np.array(colour_key)).all(axis=2), np.uint8(0), np.uint8(255))
    elif samples.shape[2] == 4:
        alpha = samples[:, :, 3]
    else:
        return rgb
    if alpha.min() == 255:
        return rgb
    warnings.append(_ALPHA)
    cover = alpha[:, :, None].astype(np.uint16)
    background = np.array(ALPHA_BACKGROUND, np.uint16)
    return ((rgb * cover + background * (255 - cover) + 127) // 255).astype(np.uint8)


def _rgb_of_cmyk(image: Image.Image, icc: bytes | None, warnings: list[Warning]) -> Image.Image:
    managed = None if icc is None else _to_srgb(image, icc, warnings)
    if managed is not None:
        return managed
    warnings.append(_PLAIN_CMYK)
    return image.convert("RGB")


def _managed(rgb: U8, icc: bytes, warnings: list[Warning]) -> U8:
    """`rgb` from its profile's colours to sRGB. A grey picture may carry a grey profile."""
    grey = icc[16:20] == b"GRAY" and bool((rgb == rgb[:, :, :1]).all())
    managed = _to_srgb(Image.fromarray(rgb[:, :, 0] if grey else rgb), icc, warnings)
    return rgb if managed is None else np.array(managed)


def _to_srgb(image: Image.Image, icc: bytes, warnings: list[Warning]) -> Image.Image | None:
    """Relative colorimetric with black point compensation; None and a warning where the profile can't be used."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        transform = ImageCms.buildTransform(
            profile,
            ImageCms.createProfile("sRGB"),
            image.mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return ImageCms.applyTransform(image, transform)
    except _PARSER_FAULTS:
        warnings.append(_PROFILE)
        return None
