"""Lettering drawn with straight strokes: no font is needed, so it is the same on every machine."""

from __future__ import annotations

import numpy as np

from tests.scene.geometry import Field, distance_to_line

_STROKES: dict[str, tuple[tuple[tuple[float, float], ...], ...]] = {
    "E": (((4, 6), (0, 6), (0, 0), (4, 0)), ((0, 3), (3.2, 3))),
    "I": (((2, 0), (2, 6)),),
    "L": (((0, 6), (0, 0), (4, 0)),),
    "R": (((0, 0), (0, 6), (3, 6), (4, 5), (4, 4), (3, 3), (0, 3)), ((2, 3), (4, 0))),
    "V": (((0, 6), (2, 0), (4, 6)),),
    "Y": (((0, 6), (2, 3), (4, 6)), ((2, 3), (2, 0))),
    "2": (((0, 5), (1, 6), (3, 6), (4, 5), (4, 4), (0, 0), (4, 0)),),
    "6": (((4, 5.4), (3, 6), (1, 6), (0, 5), (0, 1), (1, 0), (3, 0), (4, 1), (4, 2.4), (3, 3.3), (0, 3)),),
    "-": (((0.8, 3), (3.2, 3)),),
}


def distance_to_text(text: str, x: Field, y: Field, cap_height: float) -> Field:
    """Distance of each (x, y), y up, to the strokes of `text`, centred at 0, whose capitals are `cap_height` tall."""
    unit = cap_height / 6.0
    left = -(len(text) * 6.0 - 2.0) / 2.0
    nearest = np.full(x.shape, cap_height, dtype=np.float32)
    for i, letter in enumerate(text):
        for stroke in _STROKES[letter]:
            points = (np.array(stroke) + np.array((left + i * 6.0, -3.0))) * unit
            nearest = np.minimum(nearest, distance_to_line(points, x, y, cap_height))
    return nearest
