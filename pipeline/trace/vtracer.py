"""The tracer that is vtracer 0.6, held to the palette, in a process that can be stopped.

vtracer sees colours, not labels. So each ink is drawn in its *code colour*: the ink's own colour, moved where two inks
are too close for vtracer to tell apart, so that regions are stacked on neighbours of a similar tone. Each outline's
fill is then looked up among the codes. A fill that is no code means that vtracer averaged two regions into one; the map
is then traced again with a setting under which it never joins regions, at the price of more outlines.

Unpainted pixels are transparent to vtracer, which leaves them out of every outline, as holes where they are enclosed.
It does so only where enough of five scan lines is transparent, hence the transparent row above the picture.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import logging
import os
import re
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

import numpy as np

from pipeline.errors import Cancelled, DeadlineExceeded, InternalError
from pipeline.types import I32, POINTS_OF, U8, UNITS_PER_PX, UNPAINTED, IndexMap, Palette, Shape, Tracing

log = logging.getLogger(__name__)

Settings = Mapping[str, str | int | float]

SETTINGS: Settings = {
    "colormode": "color",
    "hierarchical": "stacked",
    "mode": "spline",
    "filter_speckle": 0,
    "color_precision": 8,
    "layer_difference": 0,
    "corner_threshold": 60,
    "length_threshold": 4.0,
    "splice_threshold": 30,
    "path_precision": 2,
}
"""The thresholds (degrees, px, degrees) were chosen by eye at 400 % and by agreement with the map. A longer
`length_threshold` takes a quarter off the nodes, but wheels get facets; a wider `splice_threshold`, such as vtracer's
own 45, lets long curves bulge."""

NEVER_JOIN: Settings = {**SETTINGS, "layer_difference": -1}
"""Each region becomes an outline of its own colour, also where a neighbour's average happens to equal it."""

KEY_RGB = (255, 0, 0)
"""The first colour that vtracer tries as the stand-in for transparent pixels: no code comes near it."""

POLL_S = 0.05
STRAIGHT_UNITS = 2
"""A curve whose handles lie within 2/100 px of its chord is a line (vtracer writes lines as curves)."""

Rgb = tuple[int, int, int]

PASSED_ON = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
"""The only environment variables that the child gets: what a Python may need to start."""

_PATH = re.compile(rb'<path d="([^"]*)" fill="#([0-9A-F]{6})" transform="translate\((-?[\d.]+),(-?[\d.]+)\)"/>')
_LETTER = re.compile(rb"[MLCZ]")


class UnknownFill(ValueError):
    """vtracer wrote a colour that stands for no ink."""


def trace(image: IndexMap, *, deadline_s: float, cancelled: Callable[[], bool] | None = None) -> Tracing:
    """Outlines of `image` in painter's order.

    Args:
        image: index uint8 [H, W].
        deadline_s: seconds that the whole trace may take.
        cancelled: asked every 50 ms; the process is killed as soon as it answers True.

    Raises:
        Cancelled, DeadlineExceeded, InternalError (vtracer died or wrote what can't be read; the log has the details).
    """
    if not np.any(image.index != UNPAINTED):
        return Tracing(())
    ends_at = time.monotonic() + deadline_s
    codes = code_colours(image.palette)
    top_px = int(np.any(image.index == UNPAINTED))
    picture = encode(image, codes, top_px=top_px)
    try:
        try:
            return Tracing(tuple(parse(run(picture, SETTINGS, ends_at, cancelled), codes, top_px)))
        except UnknownFill:
            return Tracing(tuple(parse(run(picture, NEVER_JOIN, ends_at, cancelled), codes, top_px)))
    except ValueError as error:
        log.exception("vtracer's output can't be read")
        raise InternalError from error


def code_colours(palette: Palette) -> list[Rgb]:
    """One colour for each ink, as near to it as possible, any two at least 2 apart in a channel, `KEY_RGB` too.

    vtracer takes colours that differ by at most 1 in every channel for the same.
    """
    taken = [KEY_RGB]
    for ink in palette.inks:
        taken.append(next(c for c in _around(ink.rgb) if all(_apart(c, other) for other in taken)))
    return taken[1:]


def _around(rgb: Rgb) -> Iterator[Rgb]:
    """Colours about `rgb` in steps of 2, nearest first: 125 where `rgb` is a corner of the cube, more elsewhere."""
    for move in _moves():
        near = (rgb[0] + move[0], rgb[1] + move[1], rgb[2] + move[2])
        if min(near) >= 0 and max(near) <= 255:
            yield near


@cache
def _moves() -> list[Rgb]:
    steps = range(-8, 9, 2)
    return sorted(itertools.product(steps, steps, steps), key=lambda move: (sum(map(abs, move)), move))


def _apart(a: Rgb, b: Rgb) -> bool:
    return max(abs(p - q) for p, q in zip(a, b, strict=True)) >= 2


def encode(image: IndexMap, codes: list[Rgb], *, top_px: int) -> bytes:
    """The map as an indexed PNG in code colours, below `top_px` transparent rows.

    Compressed because vtracer's binding takes its input byte by byte. In PNG, a filter byte (0, none) leads each row.
    """
    rows = np.zeros((top_px + image.height_px, 1 + image.width_px), dtype=np.uint8)
    rows[:top_px, 1:] = UNPAINTED
    rows[top_px:, 1:] = image.index
    colours = np.zeros((256, 3), dtype=np.uint8)
    colours[: len(codes)] = codes
    opacity = np.where(np.arange(256) == UNPAINTED, 0, 255).astype(np.uint8)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", image.width_px, len(rows), 8, 3, 0, 0, 0)),
        (b"PLTE", colours.tobytes()),
        (b"tRNS", opacity.tobytes()),
        (b"IDAT", zlib.compress(rows.tobytes(), 1)),
        (b"IEND", b""),
    )
    framed = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def run(picture: bytes, settings: Settings, ends_at: float, cancelled: Callable[[], bool] | None) -> bytes:
    """What vtracer makes of `picture` (a PNG), as SVG text, from a process that never outlives this call.

    The picture goes in by an unnamed file: a pipe would be left half written when `communicate` comes back to poll.
    """
    with tempfile.TemporaryFile() as source:
        source.write(picture)
        source.seek(0)
        child = subprocess.Popen(  # noqa: S603 - our own interpreter and script
            _command(settings),
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={name: os.environ[name] for name in PASSED_ON if name in os.environ},
            start_new_session=True,  # a terminal's Ctrl-C is ours to act on
        )
    try:
        svg, complaint = _await(child, ends_at, cancelled)
    finally:
        child.kill()
        child.communicate()
    if child.returncode != 0:
        log.error("vtracer ended with status %d: %s", child.returncode, complaint.decode(errors="replace"))
        raise InternalError
    return svg


def _command(settings: Settings) -> list[str]:
    package = importlib.util.find_spec("vtracer")
    if package is None or package.origin is None:
        log.error("vtracer is not installed")
        raise InternalError
    script = Path(__file__).with_name("vtracer_child.py")
    return [sys.executable, "-I", "-S", str(script), str(Path(package.origin).parent.parent), json.dumps(settings)]


def _await(child: subprocess.Popen[bytes], ends_at: float, cancelled: Callable[[], bool] | None) -> tuple[bytes, bytes]:
    """The child's stdout and stderr once it has ended."""
    while True:
        if cancelled is not None and cancelled():
            raise Cancelled("the job was cancelled while its outlines were traced")
        left_s = ends_at - time.monotonic()
        if left_s <= 0:
            raise DeadlineExceeded("tracing the outlines took too long", phase="vectorize")
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.communicate(timeout=min(POLL_S, left_s))


def parse(svg: bytes, codes: list[Rgb], top_px: int) -> list[Shape]:
    """The outlines of an SVG that vtracer wrote: fills looked up among `codes`, `top_px` rows taken off the top.

    Raises:
        UnknownFill: a fill is no code.
        ValueError: the text is not what vtracer writes.
    """
    inks = {"{:02X}{:02X}{:02X}".format(*code).encode(): ink for ink, code in enumerate(codes)}
    paths = _PATH.findall(svg)
    if len(paths) != svg.count(b"<path"):
        raise ValueError("a path of an unknown form")
    if unknown := {fill for _, fill, _, _ in paths} - inks.keys():
        raise UnknownFill(f"{len(unknown)} fills are no code")
    words = [b"".join(_LETTER.findall(outline)) for outline, *_ in paths]
    shifts_px = [(float(x), float(y) - top_px) for *_, x, y in paths]
    commands, points = _straightened(*_outlines([outline for outline, *_ in paths], words, shifts_px))
    shapes = []
    at = point_at = 0
    for (_, fill, *_), word in zip(paths, words, strict=True):
        letters = commands[at : at + len(word)]
        taken = sum(POINTS_OF[letter] for letter in letters)
        if letters:
            shapes.append(Shape(inks[fill], letters, points[point_at : point_at + taken]))
        at, point_at = at + len(word), point_at + taken
    return shapes


def _outlines(outlines: list[bytes], words: list[bytes], shifts_px: list[tuple[float, float]]) -> tuple[U8, I32]:
    """The commands (letters) and the points (1/100 px) of all outlines, one after the other.

    The numbers are read as one array: outline by outline they would take several times as long.
    """
    numbers = np.array(_LETTER.sub(b" ", b" ".join(outlines)).split(), dtype=np.float64)
    takes = [sum(POINTS_OF[letter] for letter in word.decode()) for word in words]
    if len(numbers) != 2 * sum(takes) or not np.isfinite(numbers).all():
        raise ValueError("commands and numbers do not agree")
    points_px = numbers.reshape(-1, 2) + np.repeat(np.array(shifts_px).reshape(-1, 2), takes, axis=0)
    return np.frombuffer(b"".join(words), dtype=np.uint8), np.rint(points_px * UNITS_PER_PX).astype(np.int32)


def _straightened(commands: U8, points: I32) -> tuple[str, I32]:
    """The same outlines with each curve that can't be told from its chord written as a line."""
    takes = np.zeros(256, dtype=np.int64)
    for letter, count in POINTS_OF.items():
        takes[ord(letter)] = count
    curves = np.flatnonzero(commands == ord("C"))
    first = (np.cumsum(takes[commands]) - takes[commands])[curves]
    start = points[first - 1].astype(np.int64)
    chord = points[first + 2] - start
    squared = (chord**2).sum(axis=1)
    straight = squared > 0
    for handle in (points[first], points[first + 1]):
        arm = handle - start
        across = np.abs(arm[:, 0] * chord[:, 1] - arm[:, 1] * chord[:, 0])
        along = (arm * chord).sum(axis=1)
        straight &= (across <= STRAIGHT_UNITS * np.sqrt(squared)) & (along >= 0) & (along <= squared)
    lined = commands.copy()
    lined[curves[straight]] = ord("L")
    kept = np.ones(len(points), dtype=np.bool_)
    kept[first[straight]] = kept[first[straight] + 1] = False
    return lined.tobytes().decode(), points[kept]
