"""Outlines for formats that know only lines and cubic curves: PDF and EPS."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pipeline.types import F64, I32, POINTS_OF, Shape

ARC_ACCURACY_UNITS = 1.0
"""How far a cubic may lie from its arc, in 1/100 px: a tenth of a hairline on any screen, and the grid's own step."""

QUARTER_TURN_ERROR = 2.7253e-4
"""How far a quarter of the unit circle leaves its cubic at most; it falls with the sixth power of the turn."""

_STEPS = str.maketrans({"M": "%d %d m\n", "L": "%d %d l\n", "C": "%d %d %d %d %d %d c\n", "Z": "h\n"})

C128 = npt.NDArray[np.complex128]


def path_operators(shape: Shape) -> str:
    """The outline in whole 1/100 px, by PDF's operators m, l, c and h, one to a line; filled by nothing yet."""
    commands, points = without_arcs(shape.commands, shape.points)
    return commands.translate(_STEPS) % tuple(np.rint(points).astype(np.int64).ravel().tolist())


def decimal(value: float) -> str:
    """`value` to nine significant digits, without an exponent, which PDF has no way to write."""
    return np.format_float_positional(value, precision=9, fractional=False, trim="-")


def without_arcs(commands: str, points: I32) -> tuple[str, F64]:
    """The same outline with each arc as cubics that stay within `ARC_ACCURACY_UNITS` of it.

    An arc without a radius becomes a line and one that ends where it starts goes, as SVG has it (SVG 1.1, F.6.2).

    Args:
        commands: as in `Shape`.
        points: int32 [N, 2], 1/100 px, as in `Shape`.

    Returns:
        Commands without A, and their points: float64 [M, 2], 1/100 px. Only the cubics' points have fractions.
    """
    exact = points.astype(np.float64)
    letters: list[str] = []
    pieces: list[F64] = []
    at = 0
    for number, run in enumerate(commands.split("A")):
        if number > 0:
            curves = _arc(exact[at - 1], exact[at : at + 3])
            letters.append("C" * (len(curves) // 3) if len(curves) != 1 else "L")
            pieces.append(curves)
            at += POINTS_OF["A"]
        taken = sum(POINTS_OF[letter] * run.count(letter) for letter in "MLC")
        letters.append(run)
        pieces.append(exact[at : at + taken])
        at += taken
    return "".join(letters), np.concatenate(pieces)


def _arc(start: F64, arc: F64) -> F64:
    """The points of one arc: three for each cubic, one for a line, none where it goes nowhere.

    SVG's way from end points to centre (SVG 1.1, F.6.5 and F.6.6), taken where the ellipse is the unit circle: the x
    axis turned back, each axis divided by its radius, the start at 0.
    """
    (radius_x, radius_y), (turned, flags), end = np.abs(arc[0]), arc[1], arc[2]
    if (start == end).all():
        return np.empty((0, 2))
    if radius_x == 0 or radius_y == 0:
        return arc[2:]
    axis = np.exp(1j * math.radians(turned / 100))
    chord = complex(*(end - start)) / axis
    half = complex(chord.real / radius_x, chord.imag / radius_y) / 2
    reach = max(abs(half), 1.0)  # above 1 the ellipse is too small, and is scaled up until it just reaches
    half, radius_x, radius_y = half / reach, radius_x * reach, radius_y * reach
    large, clockwise = flags >= 2, flags % 2 == 1
    side = 1 if large != clockwise else -1
    centre = half * (1 + side * 1j * math.sqrt(max(1 / abs(half) ** 2 - 1, 0.0)))
    turn = _turn(-centre, 2 * half - centre, clockwise=clockwise)
    circle = centre + _on_circle(-centre, turn, max(radius_x, radius_y))
    ellipse = (circle.real * radius_x + 1j * circle.imag * radius_y) * axis
    curves = np.stack([ellipse.real, ellipse.imag], axis=1) + start
    curves[-1] = end
    return curves


def _turn(first: complex, last: complex, *, clockwise: bool) -> float:
    """The angle from one spoke of the circle to another, in radians, positive where it is clockwise on the screen."""
    turn = math.atan2((last / first).imag, (last / first).real)
    if clockwise and turn < 0:
        return turn + 2 * math.pi
    if not clockwise and turn > 0:
        return turn - 2 * math.pi
    return turn


def _on_circle(spoke: complex, turn: float, radius_units: float) -> C128:
    """The cubics of a turn about 0 that starts at `spoke`: complex128 [3 n], handle, handle, end of each."""
    finer = (QUARTER_TURN_ERROR * radius_units / ARC_ACCURACY_UNITS) ** (1 / 6)
    count = math.ceil(abs(turn) / (math.pi / 2) * max(finer, 1.0) - 1e-9)
    ends = spoke * np.exp(1j * turn / count * np.arange(count + 1))
    arm = 4j / 3 * math.tan(turn / count / 4)
    return np.stack([ends[:-1] * (1 + arm), ends[1:] * (1 - arm), ends[1:]], axis=1).ravel()
