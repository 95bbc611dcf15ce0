"""Sums along a walk, from which the lines and cubics of least squares to its places follow in a few operations.

From one node the walk goes on point by point, and the sums grow with it: powers of the way walked, and their products
with the points. The normal equations of a cubic whose parameter is its share of the way are polynomials in these.
"""

from __future__ import annotations

from pipeline.compiled import inlined
from pipeline.types import F64

SIZE = 18
"""Sums kept: way^0 to way^6; way^0 to way^3 times x, and times y; x x, x y, y y."""


@inlined
def walk_on(m: F64, way: float, x: float, y: float) -> None:
    """Adds a point, (x, y) from the node in px after `way` px, to the sums m."""
    power = 1.0
    for k in range(7):
        m[k] += power
        if k < 4:
            m[7 + k] += power * x
            m[11 + k] += power * y
        power *= way
    m[15] += x * x
    m[16] += x * y
    m[17] += y * y


@inlined
def line_squares(m: F64, x: float, y: float) -> float:
    """Sum of the squared distances, px^2, to the line from the node to (x, y)."""
    return float((y * y * m[15] - 2 * x * y * m[16] + x * x * m[17]) / max(x * x + y * y, 1e-12))


@inlined
def cubic_sums(m: F64, length: float, x: float, y: float, q: F64) -> None:
    """The sums q that `handles_from` takes, for a cubic from the node to (x, y) after `length` px."""
    i1 = 1 / length
    i2, i3 = i1 * i1, i1 * i1 * i1
    t2, t3, t4, t5, t6 = m[2] * i2, m[3] * i3, m[4] * i2 * i2, m[5] * i3 * i2, m[6] * i3 * i3
    q[0] = 9 * (t2 - 4 * t3 + 6 * t4 - 4 * t5 + t6)
    q[1] = 9 * (t3 - 3 * t4 + 3 * t5 - t6)
    q[2] = 9 * (t4 - 2 * t5 + t6)
    near = 9 * t3 - 24 * t4 + 21 * t5 - 6 * t6  # f1 times the far end's share 3 t^2 - 2 t^3
    far = 9 * t4 - 15 * t5 + 6 * t6
    x1, x2, x3 = m[8] * i1, m[9] * i2, m[10] * i3
    y1, y2, y3 = m[12] * i1, m[13] * i2, m[14] * i3
    q[3], q[4] = 3 * (x1 - 2 * x2 + x3) - x * near, 3 * (y1 - 2 * y2 + y3) - y * near
    q[5], q[6] = 3 * (x2 - x3) - x * far, 3 * (y2 - y3) - y * far
