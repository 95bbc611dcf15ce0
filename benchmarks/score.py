"""How good one SVG is, read from its text and from what independent renderers make of it.

Seams are pixels where the page shows through an anti-aliased picture, away from its border. *conf48* counts pixels of
the anti-aliased picture that differ by more than 48 of 255 from the mean of 4 × 4 samples of the same SVG: where one
shape's fringe shows between two others. Both are blind to how well the drawing fits its map; `agreement` and the
boundary's error are not.
"""

from __future__ import annotations

import gzip
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.renders import SMOOTH, bands_of, crisp_resvg, smooth_skia, whole
from pipeline.types import F64, U8, IndexMap, Palette
from tests.analytic import TRUTH_SCALE, Circle

Row = dict[str, Any]

SAMPLES = 4
"""Device pixels to a map pixel, each way, of the closer look."""

OPAQUE_ENOUGH = 250
CONFLATED = 48
BORDER_PX = 2
NOTHING = 255
"""Label of a pixel that shows no ink of the palette."""

PARAMETERS = {"m": 2, "l": 2, "h": 1, "v": 1, "c": 6, "s": 4, "q": 4, "t": 2, "a": 7}
ROUND_PX = 0.02
"""Two radii that differ by no more are a circle's: outlines are written to 0.01 px."""

_PATH = re.compile(r'<path\b[^>]*?\bd="([^"]*)"')
_OVAL = re.compile(r"<(?:circle|ellipse)\b")
OVAL_NODES = 3
"""What a circle or an ellipse counts for: the path that it stands for starts, and goes round in two arcs."""

_CIRCLE = re.compile(r'<circle\b[^>]*?cx="([^"]*)"[^>]*?cy="([^"]*)"[^>]*?\br="([^"]*)"')
_PRIMITIVE = re.compile(r"<(?:circle|ellipse|rect|polygon)\b")
_STEP = re.compile(r"([MmLlHhVvCcSsQqTtAaZz])([^MmLlHhVvCcSsQqTtAaZz]*)")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_PAINT = re.compile(r'\b(?:fill|stroke)="(#[0-9A-Fa-f]{6})"')


def text_figures(svg: str, palette: Palette) -> Row:
    """Bytes, nodes, paths, primitives, and how many of its paints the palette lacks.

    Circles and ellipses are among the paths and the nodes, so that no drawing seems smaller for being written in them;
    `primitives` says how many elements are no `<path>`.
    """
    paths, ovals = _PATH.findall(svg), len(_OVAL.findall(svg))
    paints = {paint.upper() for paint in _PAINT.findall(svg)}
    data = svg.encode()
    return {
        "svg_bytes": len(data),
        "gzip_bytes": len(gzip.compress(data, 9)),
        "nodes": sum(_nodes(path) for path in paths) + OVAL_NODES * ovals,
        "paths": len(paths) + ovals,
        "primitives": len(_PRIMITIVE.findall(svg)),
        "off_palette": len(paints - set(palette.hexes)),
    }


def _nodes(path: str) -> int:
    """Points on the outlines of a `d` attribute: one for each command but Z, repeated ones counted too."""
    steps = ((letter.lower(), len(_NUMBER.findall(numbers))) for letter, numbers in _STEP.findall(path))
    return sum(count // PARAMETERS[letter] for letter, count in steps if letter != "z")


def snapped(svg: str, palette: Palette) -> str:
    """The SVG with each fill replaced by the palette's nearest (in sRGB)."""
    inks = palette.rgb().astype(np.int64)

    def nearest(found: re.Match[str]) -> str:
        rgb = np.array([int(found[1][i : i + 2], 16) for i in (1, 3, 5)])
        return f'fill="{palette.hexes[int(((inks - rgb) ** 2).sum(axis=1).argmin())]}"'

    return re.sub(r'fill="(#[0-9A-Fa-f]{6})"', nearest, svg)


def label_agreement(svg: str, image: IndexMap) -> Row:
    """Per cent of the map's pixels that show their own colour without anti-aliasing, as it is and once snapped.

    resvg follows curves coarsely when it does not anti-alias: at this size, a perfect circle of radius 116 px gets 50
    of its pixels wrong. A drawing of many curves scores up to 0.1 lower here than on its certificate.
    """
    size_px = (image.width_px, image.height_px)
    texts = {"agreement_pct": snapped(svg, image.palette), "agreement_exact_pct": svg}
    shown = {text: _labels(whole(crisp_resvg, text, size_px), image.palette) for text in set(texts.values())}
    return {name: 100.0 * float(np.mean(shown[text] == image.index)) for name, text in texts.items()}


def _labels(rgba: U8, palette: Palette) -> U8:
    """The palette index of each pixel, `NOTHING` where it shows another colour or is not opaque. uint8 [H, W]."""
    packed = rgba.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1, 0], np.uint32)
    out = np.full(packed.shape, NOTHING, np.uint8)
    for number, (red, green, blue) in enumerate(palette.rgb().tolist()):
        out[packed == (red << 16 | green << 8 | blue)] = number
    out[rgba[..., 3] != 255] = NOTHING
    return out


def seams_at_1x(svg: str, image: IndexMap) -> Row:
    """Seam pixels at the map's own size, by renderer."""
    size_px = (image.width_px, image.height_px)
    return {f"seam_px_1x_{name}": _seams(whole(render, svg, size_px), BORDER_PX) for name, render in SMOOTH.items()}


def _seams(rgba: U8, border: int) -> int:
    inner = rgba[border:-border, border:-border, 3]
    return int(np.count_nonzero(inner < OPAQUE_ENOUGH))


def closer_look(svg: str, image: IndexMap) -> Row:
    """Seam pixels at four times the map's size, by renderer, and conf48."""
    size_px = (image.width_px, image.height_px)
    border, rows = SAMPLES * BORDER_PX, SAMPLES * image.height_px
    figures = dict.fromkeys((f"seam_px_4x_{name}" for name in SMOOTH), 0)
    mean = np.empty((image.height_px, image.width_px, 3), np.float32)
    for first, last in bands_of(rows):
        inner = slice(max(border - first, 0), min(rows - border, last) - first)
        for name, render in SMOOTH.items():
            alpha = render(svg, size_px, SAMPLES, first, last)[inner, border:-border, 3]
            figures[f"seam_px_4x_{name}"] += int(np.count_nonzero(alpha < OPAQUE_ENOUGH))
        samples = crisp_resvg(svg, size_px, SAMPLES, first, last)[..., :3]
        parts = samples.reshape((last - first) // SAMPLES, SAMPLES, image.width_px, SAMPLES, 3)
        mean[first // SAMPLES : last // SAMPLES] = parts.mean(axis=(1, 3))
    smooth = whole(smooth_skia, svg, size_px)[..., :3].astype(np.float32)
    apart = np.abs(smooth - mean).max(axis=2)[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX]
    return {**figures, "conf48": int(np.count_nonzero(apart > CONFLATED))}


def boundary_error(svg: str, truth8x: U8, palette: Palette) -> Row:
    """How far the drawing's boundaries lie from the true ones, in map pixels, and how far true ones lie from any.

    Boundaries are the cracks between unlike samples, eight to a map pixel, so figures below 1/16 px are mostly grid.
    """
    from scipy.spatial import cKDTree  # noqa: PLC0415 - of the bench extra

    rows, width = truth8x.shape
    size_px = (width // TRUTH_SCALE, rows // TRUTH_SCALE)
    text = snapped(svg, palette)
    bands = [_labels(crisp_resvg(text, size_px, TRUTH_SCALE, *band), palette) for band in bands_of(rows)]
    drawn, true = _cracks(np.concatenate(bands)), _cracks(truth8x)
    error, _ = cKDTree(true).query(drawn)
    missed, _ = cKDTree(drawn).query(true)
    return {
        "error_mean_px": float(error.mean()),
        "error_p95_px": float(np.quantile(error, 0.95)),
        "error_max_px": float(error.max()),
        "missed_p95_px": float(np.quantile(missed, 0.95)),
        "missed_max_px": float(missed.max()),
    }


def _cracks(labels: U8) -> F64:
    """Middle of each side between two unlike samples, float64 [N, 2], x and y in map pixels."""
    y, x = np.nonzero(labels[:, 1:] != labels[:, :-1])
    upright = np.column_stack((x + 1.0, y + 0.5))
    y, x = np.nonzero(labels[1:] != labels[:-1])
    level = np.column_stack((x + 0.5, y + 1.0))
    return np.concatenate((upright, level)) / TRUTH_SCALE


SURE_PX = 0.05
"""Error of centre and of radius within which a circle counts as found exactly."""


def circle_errors(svg: str, circles: Sequence[Circle]) -> Row:
    """How far the nearest circle or circular arc of the drawing lies from each true circle, at worst and in the middle.

    Centre and radius, px. An arc that touches the true circle nowhere (its middle is more than 1 px away) is no match.
    """
    drawn = drawn_circles(svg)
    errors = [_nearest(drawn, circle) for circle in circles]
    found = np.array([error for error in errors if error is not None]).reshape(-1, 2)
    figures: Row = {"circles": len(circles), "circles_found": len(found)}
    if len(found):
        (centre, radius), (centre50, radius50) = found.max(axis=0).tolist(), np.median(found, axis=0).tolist()
        figures |= {
            "centre_max_px": centre,
            "radius_max_px": radius,
            "centre_p50_px": centre50,
            "radius_p50_px": radius50,
            "circles_exact": int((found.max(axis=1) <= SURE_PX).sum()),
        }
    return figures


def centre_freedom(size_px: tuple[int, int], circle: Circle) -> float:
    """How far apart two circles' centres can be, px, that have the same pixels on each side, of those that are seen.

    Where that is more than twice `SURE_PX`, no tracer can promise `SURE_PX`. In the centre and r² - |centre|² each
    pixel's centre is a half-space, so two linear programs give the width in one direction; the widest of twelve is
    taken.
    """
    from scipy.optimize import linprog  # noqa: PLC0415 - of the bench extra

    width, height = size_px
    y, x = np.mgrid[:height, :width] + 0.5
    x, y = x - circle.x_px, y - circle.y_px
    away = np.hypot(x, y) - circle.radius_px
    known = np.abs(away) < 3
    if circle.hidden is not None:
        known &= ~circle.hidden
    x, y, sign = x[known], y[known], np.where(away[known] < 0, 1.0, -1.0)
    sides = np.column_stack((-2 * x * sign, -2 * y * sign, -sign))
    room = -(x * x + y * y) * sign
    freedom = 0.0
    for turn in np.linspace(0, np.pi, 12, endpoint=False):
        way = np.array([np.cos(turn), np.sin(turn), 0.0])
        ends = [linprog(step * way, A_ub=sides, b_ub=room, bounds=(None, None)).fun for step in (1, -1)]
        freedom = max(freedom, -sum(ends))
    return freedom


def _nearest(drawn: F64, circle: Circle) -> tuple[float, float] | None:
    """Errors of centre and radius of the best match for `circle`."""
    x, y, radius, middle_x, middle_y = drawn.T
    away = np.abs(np.hypot(middle_x - circle.x_px, middle_y - circle.y_px) - circle.radius_px)
    centre = np.hypot(x - circle.x_px, y - circle.y_px)
    size = np.abs(radius - circle.radius_px)
    total = np.where(away <= 1.0, centre + size, np.inf)
    if not np.isfinite(total).any():
        return None
    best = int(total.argmin())
    return float(centre[best]), float(size[best])


def drawn_circles(svg: str) -> F64:
    """Circles and circular arcs of an SVG without transforms: float64 [N, 5], centre, radius, a point on the middle."""
    found = [(float(x), float(y), float(r), float(x) + float(r), float(y)) for x, y, r in _CIRCLE.findall(svg)]
    for path in _PATH.findall(svg):
        found += _arcs(path)
    return np.array(found, np.float64).reshape(-1, 5)


def _arcs(path: str) -> list[tuple[float, float, float, float, float]]:
    """The circular arcs of a `d` attribute."""
    found = []
    here = start = (0.0, 0.0)
    for letter, text in _STEP.findall(path):
        if letter in "Zz":
            here = start
            continue
        numbers = [float(number) for number in _NUMBER.findall(text)]
        takes = PARAMETERS[letter.lower()]
        for i in range(0, len(numbers) - takes + 1, takes):
            end = _end(letter, numbers[i : i + takes], here)
            if letter in "Aa" and here != end and abs(numbers[i] - numbers[i + 1]) <= ROUND_PX:
                flags = int(numbers[i + 3]), int(numbers[i + 4])
                found.append(_circle_of((numbers[i] + numbers[i + 1]) / 2.0, flags, here, end))
            here = end
            if letter in "Mm" and i == 0:
                start = here
    return found


def _end(letter: str, numbers: list[float], here: tuple[float, float]) -> tuple[float, float]:
    """Where one step ends."""
    x, y = here if letter.islower() else (0.0, 0.0)
    if letter in "Hh":
        return x + numbers[0], here[1]
    if letter in "Vv":
        return here[0], y + numbers[0]
    return x + numbers[-2], y + numbers[-1]


def _circle_of(
    radius: float, flags: tuple[int, int], a: tuple[float, float], b: tuple[float, float]
) -> tuple[float, float, float, float, float]:
    """Centre, radius and middle of the arc from a to b; a radius that can't reach is enlarged (SVG 1.1, F.6.6)."""
    large, clockwise = flags
    dx, dy = b[0] - a[0], b[1] - a[1]
    chord = math.hypot(dx, dy)
    radius = max(radius, chord / 2.0)
    rise = math.sqrt(radius * radius - chord * chord / 4.0)
    # On the screen y runs downward: a clockwise arc of less than half a turn has its centre to the right of a → b.
    side = 1.0 if large != clockwise else -1.0
    normal = (-dy / chord, dx / chord)
    x, y = (a[0] + b[0]) / 2.0 + side * rise * normal[0], (a[1] + b[1]) / 2.0 + side * rise * normal[1]
    outward = -1.0 if clockwise else 1.0
    return x, y, radius, x + outward * radius * normal[0], y + outward * radius * normal[1]
