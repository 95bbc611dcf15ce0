"""Label maps as files: an 8-bit grey PNG whose pixels are palette indices, 255 where nothing is painted."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image

from pipeline.errors import ImageCorrupt, ImageTooLarge, ImageUnsupported
from pipeline.types import UNPAINTED, IndexMap, Palette

MAX_SIDE_PX = 8192
MAX_BYTES = 128 * 1024 * 1024

_MAGIC = b"\x89PNG\r\n\x1a\n"
_GREY = 0  # colour type (PNG, 3rd edition, 11.2.1)


def read_label_map(data: bytes, palette: Palette) -> IndexMap:
    """The map that a file holds.

    Args:
        data: the file's bytes, at most `MAX_BYTES`.
        palette: what the labels index.

    Raises:
        ImageUnsupported: not an 8-bit grey PNG, or a label is neither of the palette nor 255.
        ImageTooLarge: more bytes than `MAX_BYTES`, or a side of more than `MAX_SIDE_PX`.
        ImageCorrupt: damaged or cut short.
    """
    _check_header(data)
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            index = np.array(picture, np.uint8)
            counts = picture.histogram()
    except (OSError, SyntaxError, ValueError, struct.error):  # what Pillow raises of damaged files
        raise ImageCorrupt("the PNG is damaged or cut short") from None
    strangers = [label for label in range(len(palette), UNPAINTED) if counts[label]]
    if strangers:
        known = f"whose {len(palette)} colours are labels 0 to {len(palette) - 1}"
        message = f"label {strangers[0]} is not in the palette, {known}"
        raise ImageUnsupported(message)
    return IndexMap(index, palette)


def _check_header(data: bytes) -> None:
    """Raise unless the file begins as an 8-bit grey PNG within the limits (PNG, 3rd edition, 11.2.1)."""
    if len(data) > MAX_BYTES:
        raise ImageTooLarge(f"a label map is at most {MAX_BYTES // 2**20} MiB")
    if not data.startswith(_MAGIC) or len(data) < 33:
        raise ImageUnsupported("a label map is an 8-bit grey PNG, and this is no PNG")
    width_px, height_px, bits, colour = struct.unpack(">IIBB", data[16:26])
    if (bits, colour) != (8, _GREY):
        kind = "grey" if colour == _GREY else "colour or alpha"
        raise ImageUnsupported(f"a label map is an 8-bit grey PNG, and this one is {kind} of {bits} bits")
    if max(width_px, height_px) > MAX_SIDE_PX:
        raise ImageTooLarge(f"{width_px} × {height_px} px is more than {MAX_SIDE_PX} px on a side")
