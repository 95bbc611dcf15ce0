"""Colour mathematics against published data and independent references."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.colour import ENCODED, LINEAR, cube_root, delta_e, delta_e_matrix, exp_negative, palette_lab, srgb_to_lab
from pipeline.compiled import kernel
from pipeline.costs import ink_costs, nearest_inks, shade_lenience
from pipeline.palette import DEFAULT_PALETTE
from pipeline.types import F64, U8, Ink, Palette

# Sharma, Wu and Dalal (2005), table 1: L1 a1 b1 L2 a2 b2 ΔE00.
SHARMA = np.array(
    [
        [50, 2.6772, -79.7751, 50, 0, -82.7485, 2.0425],
        [50, 3.1571, -77.2803, 50, 0, -82.7485, 2.8615],
        [50, 2.8361, -74.0200, 50, 0, -82.7485, 3.4412],
        [50, -1.3802, -84.2814, 50, 0, -82.7485, 1.0000],
        [50, -1.1848, -84.8006, 50, 0, -82.7485, 1.0000],
        [50, -0.9009, -85.5211, 50, 0, -82.7485, 1.0000],
        [50, 0, 0, 50, -1, 2, 2.3669],
        [50, -1, 2, 50, 0, 0, 2.3669],
        [50, 2.49, -0.001, 50, -2.49, 0.0009, 7.1792],
        [50, 2.49, -0.001, 50, -2.49, 0.0010, 7.1792],
        [50, 2.49, -0.001, 50, -2.49, 0.0011, 7.2195],
        [50, 2.49, -0.001, 50, -2.49, 0.0012, 7.2195],
        [50, -0.001, 2.49, 50, 0.0009, -2.49, 4.8045],
        [50, -0.001, 2.49, 50, 0.0010, -2.49, 4.8045],
        [50, -0.001, 2.49, 50, 0.0011, -2.49, 4.7461],
        [50, 2.5, 0, 50, 0, -2.5, 4.3065],
        [50, 2.5, 0, 73, 25, -18, 27.1492],
        [50, 2.5, 0, 61, -5, 29, 22.8977],
        [50, 2.5, 0, 56, -27, -3, 31.9030],
        [50, 2.5, 0, 58, 24, 15, 19.4535],
        [50, 2.5, 0, 50, 3.1736, 0.5854, 1.0000],
        [50, 2.5, 0, 50, 3.2972, 0, 1.0000],
        [50, 2.5, 0, 50, 1.8634, 0.5757, 1.0000],
        [50, 2.5, 0, 50, 3.2592, 0.3350, 1.0000],
        [60.2574, -34.0099, 36.2677, 60.4626, -34.1751, 39.4387, 1.2644],
        [63.0109, -31.0961, -5.8663, 62.8187, -29.7946, -4.0864, 1.2630],
        [61.2901, 3.7196, -5.3901, 61.4292, 2.2480, -4.9620, 1.8731],
        [35.0831, -44.1164, 3.7933, 35.0232, -40.0716, 1.5901, 1.8645],
        [22.7233, 20.0904, -46.6940, 23.0331, 14.9730, -42.5619, 2.0373],
        [36.4612, 47.8580, 18.3852, 36.2715, 50.5065, 21.2231, 1.4146],
        [90.8027, -2.0831, 1.4410, 91.1528, -1.6435, 0.0447, 1.4441],
        [90.9257, -0.5406, -0.9208, 88.6381, -0.8985, -0.7239, 1.5381],
        [6.7747, -0.2908, -2.4247, 5.8714, -0.0985, -2.2286, 0.6377],
        [2.0776, 0.0795, -1.1350, 0.9033, -0.0636, -0.5514, 0.9082],
    ]
)
POP15 = (
    "#1A1423 #3D1E6D #8A4FFF #2D7DD2 #97CC04 #EEB902 #F45D01 #FF2E63 #FFD6E0 #F9F7F7 #08D9D6 #006D77 #7F4F24 "
    "#B08968 #DDB892"
)


def palette_of(text: str) -> Palette:
    return Palette(tuple(Ink(value, value) for value in text.split()))


def random_colours(count: int, seed: int) -> U8:
    return np.random.default_rng(seed).integers(0, 256, (count, 3)).astype(np.uint8)


def textbook_lab(rgb: U8) -> F64:
    x = rgb / 255.0
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    matrix = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    t = linear @ np.array(matrix).T / [0.95047, 1.0, 1.08883]
    f = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def textbook_ciede2000(p: F64, q: F64) -> F64:
    """The formula as CIE 142 prints it, in degrees, of corresponding colours; float64 [N, 3] each."""
    (l1, a1, b1), (l2, a2, b2) = p.T, q.T
    mean = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    g = 0.5 * (1 - np.sqrt(mean**7 / (mean**7 + 25**7)))
    a1, a2 = a1 * (1 + g), a2 * (1 + g)
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = np.degrees(np.arctan2(b1, a1)) % 360, np.degrees(np.arctan2(b2, a2)) % 360
    near, neutral = np.abs(h1 - h2) <= 180, c1 * c2 == 0
    turn = np.where(near, h2 - h1, np.where(h2 <= h1, h2 - h1 + 360, h2 - h1 - 360))
    turn = np.where(neutral, 0.0, turn)
    wrapped = np.where(h1 + h2 < 360, h1 + h2 + 360, h1 + h2 - 360) / 2
    middle = np.where(near, (h1 + h2) / 2, wrapped)
    middle = np.where(neutral, np.where(c1 == 0, h2, h1), middle)
    dh = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn) / 2)
    lm, cm = (l1 + l2) / 2, (c1 + c2) / 2
    t = (
        1
        - 0.17 * np.cos(np.radians(middle - 30))
        + 0.24 * np.cos(np.radians(2 * middle))
        + 0.32 * np.cos(np.radians(3 * middle + 6))
        - 0.20 * np.cos(np.radians(4 * middle - 63))
    )
    rotation = -2 * np.sqrt(cm**7 / (cm**7 + 25**7)) * np.sin(np.radians(60 * np.exp(-(((middle - 275) / 25) ** 2))))
    x = (l2 - l1) / (1 + 0.015 * (lm - 50) ** 2 / np.sqrt(20 + (lm - 50) ** 2))
    y, z = (c2 - c1) / (1 + 0.045 * cm), dh / (1 + 0.015 * cm * t)
    square: F64 = x * x + y * y + z * z + rotation * y * z
    return np.sqrt(square)


def test_ciede2000_gives_the_published_values_in_both_orders() -> None:
    first, second, published = SHARMA[:, :3], SHARMA[:, 3:6], SHARMA[:, 6]
    assert len(SHARMA) == 34
    assert np.abs(delta_e(first, second) - published).max() < 1e-4
    assert np.abs(delta_e(second, first) - published).max() < 1e-4


def test_the_reference_formula_gives_the_published_values() -> None:
    assert np.abs(textbook_ciede2000(SHARMA[:, :3], SHARMA[:, 3:6]) - SHARMA[:, 6]).max() < 1e-4


def tricky_pairs(rng: np.random.Generator) -> F64:
    """Pairs where the hue is undefined or ambiguous: neutrals, one colour twice, hues opposite by half a turn or so."""
    first = rng.uniform((0, -90, -90), (100, 90, 90), (500, 3))
    second = rng.uniform((0, -90, -90), (100, 90, 90), (500, 3))
    grey, opposite = second * [1, 0, 0], first * [1, -1, -1]
    # Exactly opposite hues on the axes, where the sum of the two unit vectors vanishes.
    axes = np.array([[50, 40, 0], [50, -40, 0], [60, 0, 30], [60, 0, -30], [50, 40, 0]], np.float64)
    beside = opposite + rng.normal(0, 1e-3, opposite.shape)
    pairs = ((first, grey), (grey, first), (first, first), (first, beside), (grey, first * [1, 0, 0]))
    found: F64 = np.concatenate([np.stack(pair, axis=1) for pair in (*pairs, (axes[:-1], axes[1:]))])
    return found


@pytest.mark.parametrize(
    ("pairs", "tolerance"),
    [
        pytest.param(textbook_lab(random_colours(20_000, 1)).reshape(-1, 2, 3), 1e-9, id="random"),
        # Close to half a turn the mean hue itself is ill-conditioned.
        pytest.param(tricky_pairs(np.random.default_rng(4)), 1e-6, id="neutral and opposite"),
    ],
)
def test_ciede2000_equals_the_textbook_formula(pairs: F64, tolerance: float) -> None:
    first, second = np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])
    assert np.abs(delta_e(first, second) - textbook_ciede2000(first, second)).max() < tolerance
    assert np.abs(delta_e(first, second) - delta_e(second, first)).max() < tolerance


def test_lab_equals_the_cie_formulas() -> None:
    rgb = random_colours(10_000, 2)
    assert np.abs(srgb_to_lab(rgb) - textbook_lab(rgb)).max() < 1e-9


def test_srgb_survives_the_way_to_linear_light_and_back() -> None:
    assert np.array_equal(ENCODED[(LINEAR * 65535 + 0.5).astype(int)], np.arange(256))


@pytest.mark.parametrize("x", [0.0, 1e-9, 0.3, 1.0, 7.5, 40.0, 200.0])
def test_exp_negative_is_exact_to_ten_digits(x: float) -> None:
    assert exp_negative(x) == pytest.approx(math.exp(-x), rel=1e-10)


@kernel
def cube_root_of(x: float) -> float:
    return cube_root(x)  # only kernels may call it


@pytest.mark.parametrize("x", [0.0, 1e-12, 216 / 24389, 0.1249, 0.125, 0.39, 0.4, 0.41, 0.99, 1.0, 1.08, 2.0])
def test_cube_root_is_exact_to_the_last_bits(x: float) -> None:
    assert cube_root_of(x) == pytest.approx(math.cbrt(x), rel=4e-16, abs=0.0)


def test_the_nearest_ink_is_brute_force_s_on_random_colours() -> None:
    rgb = random_colours(100_000, 3)
    inks = textbook_lab(DEFAULT_PALETTE.rgb())
    lab = textbook_lab(rgb)
    exact = np.stack([textbook_ciede2000(lab, np.broadcast_to(ink, lab.shape)) for ink in inks], axis=1)
    table = delta_e_matrix(srgb_to_lab(rgb), palette_lab(DEFAULT_PALETTE))
    two_least = np.sort(exact, axis=1)[:, :2]
    clear = two_least[:, 1] - two_least[:, 0] > 1e-4  # below that float32 can't tell the two inks apart
    assert clear.mean() > 0.999
    assert np.array_equal(table.argmin(axis=1)[clear], exact.argmin(axis=1)[clear])


def test_the_ink_of_each_pixel_is_that_of_its_own_colour_on_flat_art() -> None:
    # Colours whose cells of 4×4×4 codes each hold one colour only, as in flat art.
    rgb = (random_colours(100_000, 3) // 4 * 4).reshape(200, 500, 3)
    expected = delta_e_matrix(srgb_to_lab(rgb.reshape(-1, 3)), palette_lab(DEFAULT_PALETTE)).argmin(axis=1)
    assert np.array_equal(nearest_inks(*ink_costs(rgb, DEFAULT_PALETTE)).ravel(), expected)


def test_a_cell_stands_for_the_mean_of_its_own_pixels() -> None:
    rgb = np.array([[[200, 100, 40], [202, 103, 40], [203, 101, 43], [96, 101, 40]]], np.uint8)
    cells, costs = ink_costs(rgb, DEFAULT_PALETTE)
    assert cells[0, 0] == cells[0, 1] == cells[0, 2] != cells[0, 3]
    mean = srgb_to_lab(np.array([[202, 101, 41]], np.uint8))
    assert np.array_equal(costs[cells[0, :1]], delta_e_matrix(mean, palette_lab(DEFAULT_PALETTE)))


def test_costs_of_flat_art_are_exact() -> None:
    rgb = np.repeat(DEFAULT_PALETTE.rgb()[:, None], 7, axis=1)
    cells, costs = ink_costs(rgb, DEFAULT_PALETTE)
    inks = palette_lab(DEFAULT_PALETTE)
    assert np.array_equal(costs[cells[:, 0]], delta_e_matrix(inks, inks))
    assert np.all(costs[cells[:, 0]].diagonal() == 0.0)


def nearest_of(hex_value: str, palette: Palette) -> str:
    rgb = np.array([[Ink(hex_value, "").rgb]], np.uint8)
    return palette.hexes[int(nearest_inks(*ink_costs(rgb, palette, shade_lenience(palette)))[0, 0])]


@pytest.mark.parametrize("red", ["#A01828", "#801020", "#6A0E1C", "#5A0C16"])
def test_a_shaded_red_stays_red_where_the_palette_has_one_bright_red(red: str) -> None:
    assert nearest_of(red, palette_of(POP15)) == "#FF2E63"


def test_without_that_lenience_the_shaded_red_would_be_brown() -> None:
    rgb = np.array([[Ink("#801020", "").rgb]], np.uint8)
    palette = palette_of(POP15)
    assert palette.hexes[int(nearest_inks(*ink_costs(rgb, palette))[0, 0])] == "#7F4F24"


@pytest.mark.parametrize("grey", ["#202020", "#606060", "#909090", "#D0D0D0"])
def test_a_neutral_never_takes_a_vivid_ink_for_its_shade(grey: str) -> None:
    assert nearest_of(grey, palette_of(POP15)) not in {"#FF2E63", "#97CC04", "#F45D01", "#8A4FFF", "#EEB902"}


def test_a_palette_with_dark_shades_is_measured_plainly() -> None:
    assert np.all(shade_lenience(DEFAULT_PALETTE) == 1.0)
