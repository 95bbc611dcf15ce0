"""Arcs as cubics: on the ellipse, the right way round, from end to end."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.export.curves import ARC_ACCURACY_UNITS, decimal, path_operators, without_arcs
from pipeline.types import F64, I32, POINTS_OF, Shape

GRID = st.integers(-400_000, 400_000)
SPOT = st.tuples(GRID, GRID)
RADIUS = st.integers(1, 400_000)


def points(*rows: tuple[int, int]) -> I32:
    return np.array(rows, dtype=np.int32).reshape(-1, 2)


def sampled(commands: str, spots: F64, steps: int = 33) -> F64:
    """Spots along an outline of one M and its Cs: float64 [N, 2]."""
    assert set(commands) <= {"M", "C"}
    at, found = 1, [spots[:1]]
    t = np.linspace(0, 1, steps)[1:, None]
    for _ in range(commands.count("C")):
        a, b, c, d = spots[at - 1 : at + 3]
        found.append(a * (1 - t) ** 3 + 3 * b * t * (1 - t) ** 2 + 3 * c * t**2 * (1 - t) + d * t**3)
        at += 3
    return np.concatenate(found)


def on_circle(spots: F64, radii: tuple[int, int], turned: int) -> npt.NDArray[np.complex128]:
    """Spots where the ellipse is a circle, its axes along x and y: complex128 [N]."""
    angle = math.radians(turned / 100)
    along = (spots[:, 0] * math.cos(angle) + spots[:, 1] * math.sin(angle)) / radii[0]
    across = (spots[:, 1] * math.cos(angle) - spots[:, 0] * math.sin(angle)) / radii[1]
    return along + 1j * across


def circle_through(spots: npt.NDArray[np.complex128]) -> tuple[complex, float]:
    """Centre and radius by least squares (Kåsa)."""
    origin = spots[0]
    moved = spots - origin
    scale = np.abs(moved).max()
    x, y = moved.real / scale, moved.imag / scale
    (a, b, c), *_ = np.linalg.lstsq(np.stack([2 * x, 2 * y, np.ones_like(x)], axis=1), x**2 + y**2)
    return origin + complex(a, b) * scale, math.sqrt(c + a * a + b * b) * scale


@settings(max_examples=300, deadline=None)
@given(SPOT, SPOT, RADIUS, RADIUS, st.integers(-18_000, 18_000), st.integers(0, 3))
def test_an_arc_s_cubics_are_what_svg_says(
    start: tuple[int, int], end: tuple[int, int], radius_x: int, radius_y: int, turned: int, flags: int
) -> None:
    assume(start != end and max(radius_x, radius_y) < 50 * min(radius_x, radius_y))
    commands, spots = without_arcs("MA", points(start, (radius_x, radius_y), (turned, flags), end))
    assert commands == "M" + "C" * ((len(spots) - 1) // 3)
    assert spots[0].tolist() == list(start)
    assert spots[-1].tolist() == list(end)
    circle = on_circle(sampled(commands, spots), (radius_x, radius_y), turned)
    half_chord = abs(circle[-1] - circle[0]) / 2
    assume(half_chord > 0.02)  # on a shallower arc the least squares see nothing of the circle
    centre, radius = circle_through(circle)
    reach = max(1.0, half_chord)
    assert radius == pytest.approx(reach, rel=1e-3)
    turns = np.angle((circle[1:] - centre) / (circle[:-1] - centre))
    assert (turns > 0).all() if flags % 2 else (turns < 0).all()
    whole = abs(turns.sum())
    if half_chord >= 1:
        assert whole == pytest.approx(math.pi, abs=1e-2)
    elif half_chord < 0.999:
        assert (whole > math.pi) == (flags >= 2)


@pytest.mark.parametrize("radius", [1, 100, 5_000, 100_000, 2_000_000])
@pytest.mark.parametrize("squashed", [1, 4])
def test_cubics_keep_to_their_accuracy(radius: int, squashed: int) -> None:
    radii = (radius, max(1, radius // squashed))
    half = [radii, (0, 1)]
    commands, spots = without_arcs("MAA", points((-radius, 0), *half, (radius, 0), *half, (-radius, 0)))
    circle = on_circle(sampled(commands, spots), radii, 0)
    assert (np.abs(np.abs(circle) - 1) * radius).max() <= ARC_ACCURACY_UNITS
    assert 4 <= commands.count("C") <= 32


def test_a_circle_too_small_by_rounding_is_a_circle_still() -> None:
    half = [(4_999, 4_999), (0, 1)]
    commands, spots = without_arcs("MAAZ", points((0, 5_000), *half, (10_000, 5_000), *half, (0, 5_000)))
    assert commands == f"M{'C' * commands.count('C')}Z"
    away = np.hypot(*(sampled(commands[:-1], spots) - 5_000).T)
    assert np.abs(away - 5_000).max() <= ARC_ACCURACY_UNITS


@pytest.mark.parametrize("radii", [(0, 500), (500, 0), (0, 0)])
def test_an_arc_without_a_radius_is_a_line(radii: tuple[int, int]) -> None:
    commands, spots = without_arcs("MALZ", points((0, 0), radii, (0, 1), (900, 300), (0, 700)))
    assert commands == "MLLZ"
    assert spots.tolist() == [[0, 0], [900, 300], [0, 700]]


def test_an_arc_to_its_own_start_goes() -> None:
    commands, spots = without_arcs("MLALZ", points((0, 0), (9, 9), (50, 50), (0, 3), (9, 9), (0, 8)))
    assert commands == "MLLZ"
    assert spots.tolist() == [[0, 0], [9, 9], [0, 8]]


OUTLINE = st.lists(st.sampled_from("LC"), min_size=1, max_size=6).map(lambda steps: f"M{''.join(steps)}Z")


@given(st.lists(OUTLINE, min_size=1, max_size=3).map("".join), st.data())
def test_other_commands_stay_as_they_are(commands: str, data: st.DataObject) -> None:
    count = sum(POINTS_OF[command] for command in commands)
    given_points = points(*data.draw(st.lists(SPOT, min_size=count, max_size=count)))
    kept, spots = without_arcs(commands, given_points)
    assert kept == commands
    assert spots.dtype == np.float64
    assert (spots == given_points).all()
    text = path_operators(Shape(0, commands, given_points))
    assert [line[-1].upper() for line in text.splitlines()] == list(commands.replace("Z", "H"))
    numbers = [word for word in text.split() if word not in {"m", "l", "c", "h"}]
    assert [int(word) for word in numbers] == given_points.ravel().tolist()


def test_arcs_among_other_commands_leave_the_rest_alone() -> None:
    arc = [(300, 300), (0, 1)]
    outline = points((0, 0), (100, 0), *arc, (400, 300), *arc, (100, 600), (0, 600), (9, 9), (8, 9), (8, 8))
    commands, spots = without_arcs("MLAALZMLLZ", outline)
    assert commands == "MLCCLZMLLZ"
    assert spots[[0, 1, 4, 7, 8, 9, 10, 11]].tolist() == outline[[0, 1, 4, 7, 8, 9, 10, 11]].tolist()


@given(st.floats(1e-12, 1e12))
def test_decimals_are_read_back_to_nine_digits(value: float) -> None:
    for signed in (value, -value):
        text = decimal(signed)
        assert set(text) <= set("-.0123456789")
        assert float(text) == pytest.approx(signed, rel=5e-9)
    assert decimal(0.0) == "0"
