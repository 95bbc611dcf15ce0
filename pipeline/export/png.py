"""A drawing as PNG, rendered by librsvg (through libvips) from exactly the SVG text that is handed over."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import pyvips

from pipeline.errors import InternalError, LiveryError
from pipeline.types import Drawing

log = logging.getLogger(__name__)

MAX_WIDTH_PX = 4096

COMPRESSION = 6
"""zlib's level, without row filters: on flat art the filters cost time and bytes, and level 9 five times the time for
15 % fewer bytes."""


@dataclass(frozen=True, slots=True)
class Png:
    """An encoded picture: 8 bits per channel, sRGB; RGB where every pixel is opaque, else RGBA, not premultiplied."""

    data: bytes
    width_px: int
    height_px: int


def render_png(
    drawing: Drawing, width_px: int, width_mm: float | None = None, check: Callable[[], None] = lambda: None
) -> Png:
    """`drawing` at `width_px` pixels across, its height rounded to the nearest pixel.

    The same drawing gives the same bytes. The loader reads no file and no address, since it gets the text without a
    place of its own; `audit_svg` is to be run before.

    Args:
        drawing: its SVG text is what is rendered.
        width_px: of the PNG.
        width_mm: how wide the PNG says that it prints; None for the 72 px to the inch of an SVG without a size.
        check: called while it is drawn and encoded; what it raises of ours ends that.

    Raises:
        ValueError: `width_px` is not 1 to `MAX_WIDTH_PX`.
        InternalError: the text can't be rendered; the log says why.
    """
    if not 1 <= width_px <= MAX_WIDTH_PX:
        raise ValueError(f"a PNG is 1 to {MAX_WIDTH_PX} px wide")
    height_px = max(1, (2 * drawing.height_px * width_px + drawing.width_px) // (2 * drawing.width_px))
    stop = _Stop(check)
    try:
        drawn = pyvips.Image.svgload_buffer(drawing.svg.encode(), scale=_scale(drawing, width_px, height_px))
        left_px, top_px = (drawn.width - width_px) // 2, (drawn.height - height_px) // 2
        picture = stop.hear(drawn.crop(left_px, top_px, width_px, height_px)).copy_memory()
        opaque = picture.extract_band(3).min() == 255
        bands = picture.extract_band(0, n=3) if opaque else picture
        if width_mm is not None:
            bands = bands.copy(xres=width_px / width_mm, yres=width_px / width_mm)
        data: bytes = stop.hear(bands).pngsave_buffer(compression=COMPRESSION, filter="none", keep="none")
    except pyvips.Error as error:
        if stop.fault is None:
            log.exception("the SVG can't be rendered")
            raise InternalError from error
    # libvips says nothing of a kill that comes with its last pixels.
    if stop.fault is not None:
        raise stop.fault
    return Png(data, width_px, height_px)


class _Stop:
    """Ends libvips' work where `check` raises; an exception can't pass through its C code."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self.fault: LiveryError | None = None

    def hear(self, image: pyvips.Image) -> pyvips.Image:
        """`image`, asked about as it is computed."""
        image.set_progress(True)
        image.signal_connect("eval", self._ask)
        return image

    def _ask(self, image: pyvips.Image, _progress: object) -> None:
        try:
            self._check()
        except LiveryError as fault:
            self.fault = fault
            image.set_kill(True)


def _scale(drawing: Drawing, width_px: int, height_px: int) -> float:
    """Pixels for each user unit.

    librsvg rounds the picture's size, then fits the drawing into it and centres it, which leaves edge pixels half
    covered where the aspect is not the same. There the drawing is made so much larger that its middle fills the
    picture.
    """
    across, down = width_px / drawing.width_px, height_px / drawing.height_px
    if drawing.width_px * height_px == drawing.height_px * width_px:
        return across
    shorter_px = min(drawing.width_px, drawing.height_px)
    return max(across + 1 / drawing.width_px, down + 1 / drawing.height_px) + 0.5 / shorter_px
