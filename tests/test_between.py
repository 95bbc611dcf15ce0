"""Circles and lines between the pixels: what is found separates every pixel's centre, and lies near what was drawn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pipeline.compiled import kernel
from pipeline.trace.between import circle_between, line_between
from pipeline.trace.conics import circle_through
from pipeline.types import F64, Mask

SIDE_PX = 180
Cracks = tuple[F64, F64, Mask]


@kernel
def _circle(x: F64, y: F64, horizontal: Mask, circle: F64) -> bool:
    circle[0], circle[1], circle[2] = circle_through(x, y, 0, len(x))
    return circle_between(x, y, horizontal, 0, len(x), circle)


@kernel
def _line(x: F64, y: F64, horizontal: Mask, line: F64) -> bool:
    return line_between(x, y, horizontal, 0, len(x), line)


@kernel
def _least_squares(x: F64, y: F64) -> F64:
    return np.array(circle_through(x, y, 0, len(x)))


def _centres() -> tuple[F64, F64]:
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX] + 0.5
    return x, y


def _cracks(inside: Mask) -> Cracks:
    """Middles of the cracks round the mask, and whether each is horizontal."""
    y, x = np.nonzero(inside[:, 1:] != inside[:, :-1])
    upright = np.column_stack((x + 1.0, y + 0.5, np.zeros(len(x))))
    y, x = np.nonzero(inside[1:] != inside[:-1])
    level = np.column_stack((x + 0.5, y + 1.0, np.ones(len(x))))
    both = np.concatenate((upright, level))
    return both[:, 0].copy(), both[:, 1].copy(), both[:, 2] == 1


def _disc(centre: tuple[float, float], radius_px: float, turn_rad: float, sweep_rad: float) -> Cracks:
    """The cracks of a disc sampled at pixel centres, of those directions alone."""
    x, y = _centres()
    cx, cy, horizontal = _cracks(np.hypot(x - centre[0], y - centre[1]) < radius_px)
    seen = np.mod(np.arctan2(cy - centre[1], cx - centre[0]) - turn_rad, 2 * np.pi) < sweep_rad
    return cx[seen], cy[seen], horizontal[seen]


def _sides(cracks: Cracks) -> tuple[F64, F64, F64, F64]:
    """The two pixel centres beside each crack: x and y of the upper or left one, then of the other."""
    x, y, horizontal = cracks
    half_x, half_y = np.where(horizontal, 0.0, 0.5), np.where(horizontal, 0.5, 0.0)
    return x - half_x, y - half_y, x + half_x, y + half_y


DISCS = list(itertools.product((8.3, 21.7, 74.9), (2.0, 3.4, 7.0), range(8)))


def _drawn(radius_px: float, sweep_rad: float, seed: int) -> tuple[tuple[float, float], Cracks]:
    draw = np.random.default_rng(seed)
    centre = 90 + draw.random(), 90 + draw.random()
    return centre, _disc(centre, radius_px, 6 * draw.random(), sweep_rad)


@pytest.mark.parametrize(("radius_px", "sweep_rad", "seed"), DISCS)
def test_the_circle_has_every_pixel_centre_on_its_own_side(radius_px: float, sweep_rad: float, seed: int) -> None:
    (true_x, true_y), cracks = _drawn(radius_px, sweep_rad, seed)
    circle = np.empty(3)
    assert _circle(*cracks, circle)
    ax, ay, bx, by = _sides(cracks)
    one, two = (
        np.hypot(ax - circle[0], ay - circle[1]) < circle[2],
        np.hypot(bx - circle[0], by - circle[1]) < circle[2],
    )
    assert (one != two).all()
    assert (one == (np.hypot(ax - true_x, ay - true_y) < radius_px)).all()


def test_it_lies_nearer_to_the_true_circle_than_least_squares() -> None:
    near, far = [], []
    for radius_px, sweep_rad, seed in DISCS:
        if radius_px < 20:
            continue
        centre, cracks = _drawn(radius_px, sweep_rad, seed)
        circle = np.empty(3)
        assert _circle(*cracks, circle)
        near.append(np.hypot(*(circle[:2] - centre)))
        far.append(np.hypot(*(_least_squares(*cracks[:2])[:2] - centre)))
    assert np.mean(near) < 0.65 * np.mean(far)


def test_where_no_circle_separates_the_pixels_the_given_one_stays() -> None:
    x, y = _centres()
    ellipse = ((x - 90.2) / 40) ** 2 + ((y - 90.7) / 44) ** 2 < 1
    cracks = _cracks(ellipse)
    circle = np.empty(3)
    assert not _circle(*cracks, circle)
    assert circle.tolist() == _least_squares(*cracks[:2]).tolist()


@pytest.mark.parametrize("seed", range(20))
def test_the_line_has_every_pixel_centre_on_its_own_side(seed: int) -> None:
    draw = np.random.default_rng(seed)
    turn = draw.uniform(-3, 3)
    along, at = np.array([np.cos(turn), np.sin(turn)]), 90 + draw.random(2)
    x, y = _centres()
    below = (y - at[1]) * along[0] - (x - at[0]) * along[1] > 0
    cracks = _cracks(below)
    near = np.hypot(cracks[0] - at[0], cracks[1] - at[1]) < 40
    cracks = (cracks[0][near], cracks[1][near], cracks[2][near])
    order = np.argsort(cracks[0] * along[0] + cracks[1] * along[1])
    cracks = (cracks[0][order], cracks[1][order], cracks[2][order])
    line = np.array([cracks[0].mean(), cracks[1].mean(), *along])
    assert _line(*cracks, line)
    ax, ay, bx, by = _sides(cracks)
    one = (ay - line[1]) * line[2] - (ax - line[0]) * line[3] > 0
    two = (by - line[1]) * line[2] - (bx - line[0]) * line[3] > 0
    assert (one != two).all()
    assert np.hypot(line[2], line[3]) == pytest.approx(1.0, abs=1e-12)


def test_where_no_line_separates_the_pixels_the_given_one_stays() -> None:
    cracks = _disc((90.2, 90.4), 60.0, 0.2, 0.9)
    line = np.array([cracks[0].mean(), cracks[1].mean(), 0.6, 0.8])
    before = line.tolist()
    assert not _line(*cracks, line)
    assert line.tolist() == before
