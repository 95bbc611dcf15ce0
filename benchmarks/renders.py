"""SVG text as pixels in three independent renderers: resvg, Skia and librsvg (through libvips).

Each takes the SVG, the map's size, how many device pixels a map pixel gets, and a band of rows of the picture, so that
a large one never has to be in memory whole. resvg and Skia are of the `bench` extra and imported when first needed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import numpy as np
import pyvips
from PIL import Image

from pipeline.types import U8

BAND_PX = 1024
"""Rows of one band; Skia's surfaces are squares of twice that."""
TILE_PX = 2 * BAND_PX

_ROOT = re.compile(r"<svg\b[^>]*>")
_NAMESPACE = re.compile(r'xmlns(?::\w+)?="[^"]*"')

Render = Callable[[str, tuple[int, int], int, int, int], U8]
"""svg, (width, height) of the map, scale, first row, last row → uint8 [rows, width · scale, 4]."""


def crisp_resvg(svg: str, size_px: tuple[int, int], scale: int, first: int, last: int) -> U8:
    """Without anti-aliasing: a pixel shows what covers its centre. RGBA, straight."""
    return _resvg(svg, size_px, scale, first, last, ' shape-rendering="crispEdges"')


def smooth_resvg(svg: str, size_px: tuple[int, int], scale: int, first: int, last: int) -> U8:
    """With anti-aliasing. RGBA, straight."""
    return _resvg(svg, size_px, scale, first, last, "")


def _resvg(svg: str, size_px: tuple[int, int], scale: int, first: int, last: int, shaping: str) -> U8:
    import resvg_py  # noqa: PLC0415 - of the bench extra

    width, rows = size_px[0] * scale, last - first
    view = f"0 {first / scale} {size_px[0]} {rows / scale}"
    root = _ROOT.search(svg)
    if root is None:
        raise ValueError("no SVG root")
    spaces = " ".join(_NAMESPACE.findall(root[0]))
    head = f'<svg {spaces}{shaping} width="{width}" height="{rows}" viewBox="{view}">'
    text = svg[: root.start()] + head + svg[root.end() :]
    png = bytes(resvg_py.svg_to_bytes(svg_string=text, skip_system_fonts=True))
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGBA"))


def smooth_skia(svg: str, size_px: tuple[int, int], scale: int, first: int, last: int) -> U8:
    """With anti-aliasing. RGBA, premultiplied."""
    import skia  # noqa: PLC0415 - of the bench extra

    document = skia.SVGDOM.MakeFromStream(skia.MemoryStream(svg.encode(), True))
    document.setContainerSize(skia.Size(*size_px))
    out = np.zeros((last - first, size_px[0] * scale, 4), np.uint8)
    for left in range(0, out.shape[1], TILE_PX):
        tile = np.zeros((last - first, min(TILE_PX, out.shape[1] - left), 4), np.uint8)
        surface = skia.Surface(tile, colorType=skia.kRGBA_8888_ColorType, alphaType=skia.kPremul_AlphaType)
        canvas = surface.getCanvas()
        canvas.clear(skia.Color4f(0, 0, 0, 0))
        canvas.translate(-left, -first)
        canvas.scale(scale, scale)
        document.render(canvas)
        del canvas, surface  # Skia writes to the tile until it is gone
        out[:, left : left + tile.shape[1]] = tile
    return out


def smooth_librsvg(svg: str, size_px: tuple[int, int], scale: int, first: int, last: int) -> U8:
    """With anti-aliasing. RGBA, straight."""
    drawn = pyvips.Image.svgload_buffer(svg.encode(), scale=scale, unlimited=True)
    if (drawn.width, drawn.height) != (size_px[0] * scale, size_px[1] * scale):
        raise ValueError(f"librsvg makes it {drawn.width} × {drawn.height} px")
    out: U8 = drawn.crop(0, first, drawn.width, last - first).numpy()
    return out


SMOOTH: dict[str, Render] = {"resvg": smooth_resvg, "skia": smooth_skia, "librsvg": smooth_librsvg}


def whole(render: Render, svg: str, size_px: tuple[int, int]) -> U8:
    """The whole picture at the map's own size, uint8 [H, W, 4]."""
    bands = [render(svg, size_px, 1, first, last) for first, last in bands_of(size_px[1])]
    return np.concatenate(bands)


def bands_of(rows: int) -> list[tuple[int, int]]:
    """`range(rows)` in bands of at most `BAND_PX`."""
    return [(first, min(first + BAND_PX, rows)) for first in range(0, rows, BAND_PX)]
