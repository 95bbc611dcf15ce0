"""The only colour mathematics: sRGB, CIE L*a*b* (D65, 2° observer) and CIEDE2000.

Sources: IEC 61966-2-1 (sRGB), CIE 15:2018 (L*a*b*), CIE 142-2001 with the test data of Sharma, Wu and Dalal (2005).

Everything is built from operations that IEEE 754 rounds exactly. Roots come from Newton's iteration; CIEDE2000 takes
its mean hue from the sum of two unit vectors, which is the bisector that the formula's case distinction describes, so
that the only transcendental left is the blue rotation term's. No result depends on a libm or a vector unit.
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.compiled import by_rows, inlined, kernel
from pipeline.types import F32, F64, U8, Palette

WHITE_D65 = (0.95047, 1.0, 1.08883)
_EPSILON = 216.0 / 24389.0
_KAPPA = 24389.0 / 27.0
_POW_25_7 = 25.0**7


def _fifth_root(value: float) -> float:
    root = 1.0
    for _ in range(80):
        root = (4.0 * root + value / (root * root * root * root)) / 5.0
    return root


def _srgb_decode(byte: int) -> float:
    """IEC 61966-2-1 decoding of an 8-bit value to linear light in [0, 1]; x^2.4 is (x^12)^(1/5)."""
    x = byte / 255.0
    if x <= 0.04045:
        return x / 12.92
    y = (x + 0.055) / 1.055
    y2 = y * y
    return y2 * _fifth_root(y2)


LINEAR: F64 = np.array([_srgb_decode(byte) for byte in range(256)], dtype=np.float64)
"""float64 [256]: linear light of each 8-bit sRGB value."""

# The 8-bit value whose decoded interval holds linear light x is found in this table by round(x * 65535): no two sRGB
# steps share a cell, because the smallest (1 / 12.92 / 255) is 20 cells wide.
FULL_SCALE = 65535
"""Linear light of code 255 where light is counted in whole steps; one step of the darkest codes is 20 of these."""


def _encode_table() -> U8:
    midpoints = [_srgb_midpoint(byte) for byte in range(255)]
    return np.searchsorted(np.array(midpoints), np.arange(FULL_SCALE + 1) / FULL_SCALE, side="right").astype(np.uint8)


def _srgb_midpoint(byte: int) -> float:
    """Linear light of the sRGB value half-way between `byte` and `byte + 1`."""
    x = (byte + 0.5) / 255.0
    if x <= 0.04045:
        return x / 12.92
    y = (x + 0.055) / 1.055
    return y * y * _fifth_root(y * y)


ENCODED: U8 = _encode_table()
"""uint8 [65536]: 8-bit sRGB value of linear light i / 65535."""

LINEAR_STEPS: F32 = np.rint(LINEAR * FULL_SCALE).astype(np.float32)
"""float32 [256]: linear light of each 8-bit sRGB value in whole steps, 0 to 65535."""


@inlined
def cube_root(x: float) -> float:
    """Cube root of x in [0, 2] to the last bit or two, by Halley's iteration from a line that is within 6 %."""
    if x <= 0.0:
        return 0.0
    scale = 1.0
    while x < 0.125:
        x *= 8.0
        scale *= 0.5
    y = 0.5 + 0.5 * x if x > 0.4 else 0.35 + 1.0 * x
    for _ in range(3):
        cube = y * y * y
        y *= (cube + x + x) / (cube + cube + x)
    return y * scale


@inlined
def lab_of_linear(r: float, g: float, b: float) -> tuple[float, float, float]:
    """L*a*b* of linear-light sRGB."""
    x = (0.4124564 * r + 0.3575761 * g + 0.1804375 * b) / 0.95047
    y = 0.2126729 * r + 0.7151522 * g + 0.0721750 * b
    z = (0.0193339 * r + 0.1191920 * g + 0.9503041 * b) / 1.08883
    fx = cube_root(x) if x > _EPSILON else (_KAPPA * x + 16.0) / 116.0
    fy = cube_root(y) if y > _EPSILON else (_KAPPA * y + 16.0) / 116.0
    fz = cube_root(z) if z > _EPSILON else (_KAPPA * z + 16.0) / 116.0
    return 116.0 * fy - 16.0, 500.0 * (fx - fy), 200.0 * (fy - fz)


@inlined
def linear_of_lab(lightness: float, a: float, b: float) -> tuple[float, float, float]:
    """Linear-light sRGB of L*a*b*; may leave [0, 1] where the colour is outside the gamut."""
    fy = (lightness + 16.0) / 116.0
    fx = fy + a / 500.0
    fz = fy - b / 200.0
    x = fx * fx * fx if fx * fx * fx > _EPSILON else (116.0 * fx - 16.0) / _KAPPA
    y = fy * fy * fy if lightness > 8.0 else lightness / _KAPPA
    z = fz * fz * fz if fz * fz * fz > _EPSILON else (116.0 * fz - 16.0) / _KAPPA
    x *= 0.95047
    z *= 1.08883
    return (
        3.2404542 * x - 1.5371385 * y - 0.4985314 * z,
        -0.9692660 * x + 1.8760108 * y + 0.0415560 * z,
        0.0556434 * x - 0.2040259 * y + 1.0572252 * z,
    )


@inlined
def srgb_of_linear(value: float, encoded: U8) -> int:
    """8-bit sRGB of linear light, clipped to [0, 1]; `encoded` is `ENCODED`."""
    if value <= 0.0:
        return 0
    if value >= 1.0:
        return 255
    return int(encoded[int(value * 65535.0 + 0.5)])


@inlined
def _arc_tangent(x: float) -> float:
    """atan(x) for x in [0, 1]: two half-angle reductions, then the series."""
    x = x / (1.0 + math.sqrt(1.0 + x * x))
    x = x / (1.0 + math.sqrt(1.0 + x * x))
    q = x * x
    series = 1.0 / 13.0 - q / 15.0
    series = 1.0 / 11.0 - q * series
    series = 1.0 / 9.0 - q * series
    series = 1.0 / 7.0 - q * series
    series = 1.0 / 5.0 - q * series
    series = 1.0 / 3.0 - q * series
    return 4.0 * x * (1.0 - q * series)


@inlined
def hue_degrees(cosine: float, sine: float) -> float:
    """Angle of the unit vector (cosine, sine), 0 to 360 degrees."""
    u, v = abs(cosine), abs(sine)
    angle = _arc_tangent(v / u) if v <= u else math.pi / 2.0 - _arc_tangent(u / v)
    if cosine < 0.0:
        angle = math.pi - angle
    if sine < 0.0:
        angle = 2.0 * math.pi - angle
    return angle * (180.0 / math.pi)


@kernel
def exp_negative(x: float) -> float:
    """exp(−x) for x ≥ 0: the series at x / 64, squared six times."""
    if x > 700.0:
        return 0.0
    u = -x / 64.0
    if u < -1.0:
        half = exp_negative(0.5 * x)
        return half * half
    term = 1.0
    total = 1.0
    for i in range(1, 18):
        term *= u / i
        total += term
    for _ in range(6):
        total *= total
    return total


@inlined
def _sine(x: float) -> float:
    """sin(x) for |x| ≤ π/2, by its series."""
    q = x * x
    total = x
    term = x
    for i in range(1, 10):
        term *= -q / ((2 * i) * (2 * i + 1))
        total += term
    return total


@inlined
def _rotation(cosine: float, sine: float, mean_chroma: float) -> float:
    """R_T, the blue region's hue–chroma interaction."""
    t = (hue_degrees(cosine, sine) - 275.0) / 25.0
    if t * t > 40.0:
        return 0.0
    c7 = mean_chroma**7
    return -_sine(math.pi / 3.0 * exp_negative(t * t)) * 2.0 * math.sqrt(c7 / (c7 + _POW_25_7))


@inlined
def _hue_weight(c: float, s: float) -> float:
    """T of CIE 142 for the mean hue's unit vector: cosines of its multiples by the angle sum rules."""
    c2, s2 = c * c - s * s, 2.0 * c * s
    c3, s3 = c2 * c - s2 * s, s2 * c + c2 * s
    c4, s4 = c2 * c2 - s2 * s2, 2.0 * c2 * s2
    return (
        1.0
        - 0.17 * (0.8660254037844386 * c + 0.5 * s)
        + 0.24 * c2
        + 0.32 * (0.9945218953682733 * c3 - 0.10452846326765347 * s3)
        - 0.20 * (0.45399049973954675 * c4 + 0.8910065241883678 * s4)
    )


@inlined
def _hue_bisector(c1: float, s1: float, c2: float, s2: float) -> tuple[float, float, float]:
    """Unit vector half-way between two unit hue vectors, and the length of their sum."""
    c, s = c1 + c2, s1 + s2
    length = math.sqrt(c * c + s * s)
    if length > 1e-12:
        return c / length, s / length, length
    # Opposite hues: the formula takes (h1 + h2) / 2 with both in [0°, 360°).
    if s1 > 0.0 or (s1 == 0.0 and c1 > 0.0):
        return -s1, c1, 0.0
    return -s2, c2, 0.0


@inlined
def ciede2000(l1: float, a1: float, b1: float, l2: float, a2: float, b2: float, k_l: float, k_c: float) -> float:
    """CIEDE2000 difference of two L*a*b* colours; kH = 1, and kL = kC = 1 for the plain formula."""
    mean = 0.5 * (math.sqrt(a1 * a1 + b1 * b1) + math.sqrt(a2 * a2 + b2 * b2))
    c7 = mean**7
    stretch = 1.0 + 0.5 * (1.0 - math.sqrt(c7 / (c7 + _POW_25_7)))
    a1 *= stretch
    a2 *= stretch
    chroma1 = math.sqrt(a1 * a1 + b1 * b1)
    chroma2 = math.sqrt(a2 * a2 + b2 * b2)
    mean_chroma = 0.5 * (chroma1 + chroma2)
    delta_hue = 0.0
    cosine, sine = 1.0, 0.0
    if chroma1 > 0.0 and chroma2 > 0.0:
        cosine, sine, length = _hue_bisector(a1 / chroma1, b1 / chroma1, a2 / chroma2, b2 / chroma2)
        cross = a1 * b2 - a2 * b1
        if length > 1e-3:
            delta_hue = 2.0 * cross / (math.sqrt(chroma1 * chroma2) * length)
        else:
            delta_hue = math.sqrt(2.0 * (chroma1 * chroma2 - a1 * a2 - b1 * b2))
            rising = b1 > 0.0 or (b1 == 0.0 and a1 > 0.0)
            if cross < 0.0 or (cross == 0.0 and not rising):
                delta_hue = -delta_hue
    elif chroma1 > 0.0:
        cosine, sine = a1 / chroma1, b1 / chroma1
    elif chroma2 > 0.0:
        cosine, sine = a2 / chroma2, b2 / chroma2
    from_mid = (0.5 * (l1 + l2) - 50.0) * (0.5 * (l1 + l2) - 50.0)
    dl = (l2 - l1) / (k_l * (1.0 + 0.015 * from_mid / math.sqrt(20.0 + from_mid)))
    dc = (chroma2 - chroma1) / (k_c * (1.0 + 0.045 * mean_chroma))
    dh = delta_hue / (1.0 + 0.015 * mean_chroma * _hue_weight(cosine, sine))
    square = dl * dl + dc * dc + dh * dh
    if dc * dh != 0.0:
        square += _rotation(cosine, sine, mean_chroma) * dc * dh
    return math.sqrt(square) if square > 0.0 else 0.0


@kernel
def _lab_rows(rgb: U8, linear: F64, out: F64, first: int, last: int) -> None:
    for i in range(first, last):
        out[i, 0], out[i, 1], out[i, 2] = lab_of_linear(linear[rgb[i, 0]], linear[rgb[i, 1]], linear[rgb[i, 2]])


def srgb_to_lab(rgb: U8) -> F64:
    """L*a*b* of 8-bit sRGB.

    Args:
        rgb: uint8 [..., 3], sRGB.

    Returns:
        float64 [..., 3], L* 0 to 100, D65.
    """
    flat = np.ascontiguousarray(rgb.reshape(-1, 3))
    out = np.empty(flat.shape, np.float64)
    by_rows(lambda a, b: _lab_rows(flat, LINEAR, out, a, b), len(flat))
    return out.reshape(rgb.shape)


@kernel
def _plane_rows(rgb: U8, linear: F64, out: F32, first: int, last: int) -> None:
    lightness, a, b = 0.0, 0.0, 0.0
    before = -1
    for y in range(first, last):
        for x in range(rgb.shape[1]):
            colour = rgb[y, x, 0] << 16 | rgb[y, x, 1] << 8 | rgb[y, x, 2]
            if colour != before:  # flat art repeats itself
                lightness, a, b = lab_of_linear(linear[rgb[y, x, 0]], linear[rgb[y, x, 1]], linear[rgb[y, x, 2]])
                before = colour
            out[0, y, x] = lightness
            out[1, y, x] = a
            out[2, y, x] = b


def lab_planes(rgb: U8) -> F32:
    """L*a*b* of a picture as planes.

    Args:
        rgb: uint8 [H, W, 3], sRGB.

    Returns:
        float32 [3, H, W].
    """
    source = np.ascontiguousarray(rgb)
    out = np.empty((3, *rgb.shape[:2]), np.float32)
    by_rows(lambda a, b: _plane_rows(source, LINEAR, out, a, b), len(source))
    return out


@kernel
def _difference_rows(first_lab: F64, second_lab: F64, out: F64, first: int, last: int) -> None:
    for i in range(first, last):
        p, q = first_lab[i], second_lab[i]
        out[i] = ciede2000(p[0], p[1], p[2], q[0], q[1], q[2], 1.0, 1.0)


def delta_e(first_lab: F64, second_lab: F64) -> F64:
    """CIEDE2000 of corresponding colours.

    Args:
        first_lab: float64 [..., 3], L*a*b*.
        second_lab: float64, broadcastable to it.

    Returns:
        float64 [...].
    """
    p, q = np.broadcast_arrays(np.asarray(first_lab, np.float64), np.asarray(second_lab, np.float64))
    p2, q2 = np.ascontiguousarray(p.reshape(-1, 3)), np.ascontiguousarray(q.reshape(-1, 3))
    out = np.empty(len(p2), np.float64)
    by_rows(lambda a, b: _difference_rows(p2, q2, out, a, b), len(p2))
    return out.reshape(p.shape[:-1])


@inlined
def _kinship(a1: float, b1: float, a2: float, b2: float) -> float:
    """How far (a1, b1) is a shade of the vivid (a2, b2): 0 for neutrals and hues over 32° away, 1 for clear shades."""
    chroma1, chroma2 = math.sqrt(a1 * a1 + b1 * b1), math.sqrt(a2 * a2 + b2 * b2)
    if chroma1 < 14.0:
        return 0.0
    along = (a1 * a2 + b1 * b2) / (chroma1 * chroma2)
    return min((chroma1 - 14.0) / 14.0, 1.0) * min(max((along - 0.85) / 0.09, 0.0), 1.0)


@kernel
def _matrix_rows(lab: F64, inks: F64, lenience: F64, out: F32, first: int, last: int) -> None:
    for i in range(first, last):
        for k in range(inks.shape[0]):
            k_l, k_c = 1.0, 1.0
            if lenience[k, 0] > 1.0 and lab[i, 0] < inks[k, 0]:
                kinship = _kinship(lab[i, 1], lab[i, 2], inks[k, 1], inks[k, 2])
                k_l += kinship * (lenience[k, 0] - 1.0)
                k_c += kinship * (lenience[k, 1] - 1.0)
            out[i, k] = ciede2000(lab[i, 0], lab[i, 1], lab[i, 2], inks[k, 0], inks[k, 1], inks[k, 2], k_l, k_c)


def delta_e_matrix(lab: F64, inks: F64, lenience: F64 | None = None) -> F32:
    """CIEDE2000 of each colour against each ink.

    Args:
        lab: float64 [N, 3].
        inks: float64 [K, 3].
        lenience: float64 [K, 2], the formula's kL and kC of each ink for its own darker shades; None for the plain
            formula.

    Returns:
        float32 [N, K].
    """
    source, targets = np.ascontiguousarray(lab), np.ascontiguousarray(inks)
    factors = np.ones((len(targets), 2)) if lenience is None else lenience
    out = np.empty((len(source), len(targets)), np.float32)
    by_rows(lambda a, b: _matrix_rows(source, targets, factors, out, a, b), len(source))
    return out


def palette_lab(palette: Palette) -> F64:
    """float64 [K, 3]: L*a*b* of the inks."""
    return srgb_to_lab(palette.rgb())
