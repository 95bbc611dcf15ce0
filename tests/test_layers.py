"""Shapes are regrouped into few layers without changing what is seen."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import cv2
import numpy as np
import pytest

from pipeline.export.layers import ink_layers
from pipeline.trace.raster import paint
from pipeline.types import U8, Shape

FRAME_PX = 64


def polygon(ink: int, *points_px: tuple[float, float]) -> Shape:
    points = np.rint(np.array(points_px) * 100).astype(np.int32)
    return Shape(ink, "M" + "L" * (len(points) - 1) + "Z", points)


def box(ink: int, x0: float, y0: float, x1: float, y1: float) -> Shape:
    return polygon(ink, (x0, y0), (x1, y0), (x1, y1), (x0, y1))


def painted(shapes: Iterable[Shape]) -> U8:
    """Polygons painted in their order at four times the frame's size; 255 where none is."""
    canvas = np.full((FRAME_PX * 4, FRAME_PX * 4), 255, dtype=np.uint8)
    for shape in shapes:
        cv2.fillPoly(canvas, [(shape.points * 4 * 16 // 100).astype(np.int32)], shape.ink, shift=4)
    return canvas


@pytest.mark.parametrize("seed", range(25))
def test_the_picture_stays_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shapes = []
    for _ in range(80):
        corner, size = rng.random(2) * FRAME_PX, rng.random(2) * rng.choice([4, 12, 30])
        if rng.random() < 0.5:
            shapes.append(box(int(rng.integers(5)), *corner, *(corner + size)))
        else:
            turns = np.sort(rng.random(7)) * 2 * np.pi
            spots = corner + size * np.stack([np.cos(turns), np.sin(turns)], axis=1)
            shapes.append(polygon(int(rng.integers(5)), *((x, y) for x, y in spots.tolist())))
    layers = ink_layers(shapes)
    regrouped = [shape for layer in layers for shape in layer.shapes]
    assert sorted(map(id, regrouped)) == sorted(map(id, shapes))
    assert all(shape.ink == layer.ink for layer in layers for shape in layer.shapes)
    assert np.array_equal(painted(regrouped), painted(shapes))
    assert len(layers) <= 1 + sum(a.ink != b.ink for a, b in pairwise(shapes))


def test_apart_shapes_of_one_ink_come_together() -> None:
    shapes = [
        box(number % 3, 20 * (number % 4), 20 * (number // 4), *(20 * (number % 4) + 9, 20 * (number // 4) + 9))
        for number in range(12)
    ]
    assert [layer.ink for layer in ink_layers(shapes)] == [0, 1, 2]


def test_a_shape_between_two_of_one_ink_parts_them() -> None:
    shapes = [box(0, 0, 0, 30, 30), box(1, 10, 10, 40, 40), box(0, 20, 20, 50, 50)]
    assert [layer.ink for layer in ink_layers(shapes)] == [0, 1, 0]


def test_the_longest_chain_goes_first() -> None:
    chain = [box(0, 0, 0, 20, 20), box(1, 0, 0, 15, 15), box(0, 0, 0, 10, 10), box(1, 0, 0, 5, 5)]
    free = [box(1, 40, 20 * row, 50, 20 * row + 9) for row in range(3)]
    assert [layer.ink for layer in ink_layers(free + chain)] == [0, 1, 0, 1]


def test_neighbours_whose_boxes_overlap_are_told_apart_by_their_shape() -> None:
    lower = polygon(1, (0, 0), (0, 60), (60, 60))
    upper = polygon(0, (10, 0), (60, 0), (60, 50))
    assert len(ink_layers([upper, lower, box(0, 50, 5, 55, 8)])) == 2
    crossed = ink_layers([upper, lower, box(0, 5, 50, 8, 55), box(1, 50, 5, 55, 8)])
    assert [layer.ink for layer in crossed] == [0, 1, 0]


def test_the_belly_of_a_curve_counts() -> None:
    """A curve whose ends are far from where it bulges: it reaches the box only by its middle."""
    arch = Shape(0, "MCZ", np.array([[0, 6000], [0, -1800], [6000, -1800], [6000, 6000]], dtype=np.int32))
    order = [layer.ink for layer in ink_layers([box(1, 28, 1, 32, 3), arch, box(1, 28, 1, 32, 3)])]
    assert order == [1, 0, 1]


def test_the_belly_of_an_arc_counts() -> None:
    """Half a circle that reaches the box only by its shoulder."""
    arch = Shape(0, "MAZ", np.array([[200, 6000], [3000, 3000], [0, 1], [6200, 6000]], dtype=np.int32))
    order = [layer.ink for layer in ink_layers([box(1, 52, 38, 54, 40), arch, box(1, 52, 38, 54, 40)])]
    assert order == [1, 0, 1]
    beside = [layer.ink for layer in ink_layers([box(1, 2, 30, 4, 32), arch, box(1, 2, 30, 4, 32)])]
    assert beside == [1, 0]


def test_radii_and_turns_of_an_arc_are_no_spots() -> None:
    """A circle far from the corner, though its radii, turn and flags read as spots would draw it there."""
    arc = [[400, 400], [0, 1]]
    circle = Shape(0, "MAAZ", np.array([[5000, 5000], *arc, [5800, 5000], *arc, [5000, 5000]], dtype=np.int32))
    near = box(1, 12, 12, 18, 18)
    assert [layer.ink for layer in ink_layers([near, circle, near])] == [1, 0]
    assert [layer.ink for layer in ink_layers([circle, near, circle])] == [0, 1]


def oval(ink: int, x_px: float, y_px: float, rx_px: float, ry_px: float, turn_deg: float) -> Shape:
    """An ellipse from vertex to vertex and back."""
    along = rx_px * np.array([np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))])
    spots = [np.array([x_px, y_px]) + side * along for side in (-1, 1, -1)]
    arc = [[100 * rx_px - 1, 100 * ry_px], [100 * turn_deg, 1]]
    points = [100 * spots[0], *arc, 100 * spots[1], *arc, 100 * spots[2]]
    return Shape(ink, "MAAZ", np.rint(np.array(points)).astype(np.int32))


@pytest.mark.parametrize("seed", range(8))
def test_circles_and_ellipses_keep_the_picture_too(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shapes = []
    for _ in range(60):
        x, y = (rng.random(2) * FRAME_PX).tolist()
        rx, ry = (1 + rng.random(2) * rng.choice([2, 9])).tolist()
        kind = rng.integers(3)
        ink = int(rng.integers(4))
        shapes.append(box(ink, x, y, x + rx, y + ry) if kind == 0 else oval(ink, x, y, rx, ry, 180 * rng.random()))
    layers = ink_layers(shapes)
    regrouped = [shape for layer in layers for shape in layer.shapes]
    assert sorted(map(id, regrouped)) == sorted(map(id, shapes))
    assert np.array_equal(paint(regrouped, FRAME_PX, FRAME_PX), paint(shapes, FRAME_PX, FRAME_PX))
    assert len(layers) < 1 + sum(a.ink != b.ink for a, b in pairwise(shapes))


def test_inks_that_are_not_mixed_keep_their_order() -> None:
    shapes = [box(2, 0, 0, 9, 9), box(2, 20, 0, 29, 9), box(0, 40, 0, 49, 9), box(1, 0, 40, 9, 49)]
    layers = ink_layers(shapes)
    assert [layer.ink for layer in layers] == [2, 0, 1]
    assert [list(map(id, layer.shapes)) for layer in layers] == [
        [id(shapes[0]), id(shapes[1])],
        [id(shapes[2])],
        [id(shapes[3])],
    ]


def test_what_lies_in_a_hole_counts_as_covered() -> None:
    """A doubt keeps the order: the fill rule is not asked."""
    ring = Shape(0, "MLLLZMLLLZ", np.vstack([box(0, 0, 0, 60, 60).points, box(0, 10, 10, 50, 50).points[::-1]]))
    assert [layer.ink for layer in ink_layers([box(1, 20, 20, 30, 30), ring, box(1, 20, 20, 30, 30)])] == [1, 0, 1]


def test_nothing_gives_no_layer() -> None:
    assert ink_layers([]) == []
