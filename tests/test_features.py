"""No place is narrower than the minimum afterwards, checked apart, label by label."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.trace.features import FeatureReport, hold_min_feature
from pipeline.types import U8, UNPAINTED, IndexMap, Ink, Mask, Palette

DARK, RED, GREEN, SAND = range(4)
PALETTE = Palette(tuple(Ink(hex_, hex_) for hex_ in ("#101010", "#D02020", "#20A040", "#E0D0A0")))


def held(index: U8, min_feature_px: float) -> tuple[U8, FeatureReport]:
    image, report = hold_min_feature(IndexMap(index.astype(np.uint8), PALETTE), min_feature_px)
    assert image.palette is PALETTE
    assert image.index.shape == index.shape
    return image.index, report


def opened(region: Mask, disc_px: int) -> Mask:
    """Pixels that some disc within the region covers, disc by disc; nothing beyond the map is in the region."""
    offset = np.arange(disc_px) - (disc_px - 1) / 2
    disc = offset[:, None] ** 2 + offset**2 <= disc_px**2 / 4
    out = np.zeros_like(region)
    for y in range(region.shape[0] - disc_px + 1):
        for x in range(region.shape[1] - disc_px + 1):
            window = (slice(y, y + disc_px), slice(x, x + disc_px))
            if region[window][disc].all():
                out[window] |= disc
    return out


def narrow_px(index: U8, disc_px: int) -> int:
    """Pixels of pieces that the opening takes away and that are no corners."""
    count = 0
    reach = disc_px * (math.sqrt(2) - 1) / 2 + 1.001
    for label in np.unique(index):
        kept = opened(index == label, disc_px)
        _, parts = cv2.connectedComponents(kept.astype(np.uint8), connectivity=4)
        pieces, piece_of = cv2.connectedComponents(((index == label) & ~kept).astype(np.uint8), connectivity=4)
        kept_yx = np.argwhere(kept)
        for piece in range(1, pieces):
            here = piece_of == piece
            cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
            joined = np.unique(parts[(cv2.dilate(here.astype(np.uint8), cross) != 0) & kept])
            far = len(joined) == 0 or any(np.hypot(*(kept_yx - yx).T).min() > reach for yx in np.argwhere(here))
            count += int(here.sum()) if far or len(joined) > 1 else 0
    return count


labels = st.sampled_from([DARK, RED, GREEN, SAND, UNPAINTED])
noise = st.integers(4, 28).flatmap(
    lambda size: arrays.arrays(np.uint8, st.tuples(st.just(size), st.integers(3, 28)), elements=labels)
)


@st.composite
def drawn(draw: st.DrawFn) -> U8:
    """Boxes, discs and thin lines over one another."""
    index = np.full((30, 34), draw(labels), np.uint8)
    for _ in range(draw(st.integers(1, 12))):
        x, y, u, v = (draw(st.integers(-4, 36)) for _ in range(4))
        kind, label = draw(st.integers(0, 2)), draw(labels)
        if kind == 0:
            cv2.line(index, (x, y), (u, v), label, draw(st.integers(1, 3)), cv2.LINE_8)
        elif kind == 1:
            cv2.circle(index, (x, y), 1 + abs(u) // 3, label, -1)
        else:
            cv2.rectangle(index, (x, y), (u, v), label, -1)
    return index


y_, x_ = np.mgrid[:24, :24]
PATTERNS = {
    "checkerboard": (x_ + y_) % 2,
    "checkerboard of twos": (x_ // 2 + y_ // 2) % 2,
    "diagonals": np.where((x_ + y_) % 5 == 0, RED, SAND),
    "one diagonal": np.where(x_ == y_, DARK, SAND),
    "stripes": x_ % 4,
    "half a checkerboard": np.where(x_ < 12, SAND, (x_ + y_) % 2),
    "a dot of ground": np.where((x_ == 9) & (y_ == 9), UNPAINTED, GREEN),
    "a dot of ink on ground": np.where((x_ == 9) & (y_ == 9), GREEN, UNPAINTED),
    "a frame": np.where((x_ == 0) | (y_ == 0) | (x_ == 23) | (y_ == 23), RED, SAND),
}


def check(index: U8, min_feature_px: float) -> None:
    out, report = held(index, min_feature_px)
    assert report.min_feature_px == min_feature_px
    disc_px = math.ceil(min_feature_px)
    if out.min() != out.max():
        assert narrow_px(out, disc_px) == 0
        assert report.narrowest_px >= min_feature_px
    assert set(np.unique(out)) <= set(np.unique(index))
    changed = int((out != index).sum())
    assert report.merged_px + report.widened_px == changed
    again, second = held(out, min_feature_px)
    assert np.array_equal(again, out)
    assert (second.merged_px, second.widened_px, second.merged_regions) == (0, 0, 0)


@given(noise | drawn(), st.sampled_from([1.2, 2, 2.5, 3, 4, 5, 7]))
@settings(max_examples=120, deadline=None)
def test_nothing_is_narrower_than_the_minimum(index: U8, min_feature_px: float) -> None:
    check(index, min_feature_px)


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("min_feature_px", [2, 3, 6])
def test_nothing_is_narrower_in_patterns(name: str, min_feature_px: float) -> None:
    check(PATTERNS[name].astype(np.uint8), min_feature_px)


@given(noise, st.sampled_from([0, 0.4, 1]))
@settings(max_examples=20, deadline=None)
def test_a_pixel_or_less_changes_nothing(index: U8, min_feature_px: float) -> None:
    out, report = held(index, min_feature_px)
    assert np.array_equal(out, index)
    assert (report.merged_px, report.widened_px, report.merged_regions) == (0, 0, 0)


def test_a_map_that_is_wide_enough_keeps_its_corners() -> None:
    index = np.full((40, 60), SAND, np.uint8)
    index[5:20, 5:20], index[20:35, 12:33] = RED, GREEN
    cv2.circle(index, (44, 13), 7, UNPAINTED, -1)
    for min_feature_px in (2, 3, 5):
        assert np.array_equal(held(index, min_feature_px)[0], index)


def test_a_speck_goes_to_its_longest_border() -> None:
    index = np.full((20, 20), SAND, np.uint8)
    index[:, :10] = GREEN
    index[8:10, 8:11] = RED  # seven cracks with green, three with sand
    out, report = held(index, 4)
    assert (out[8:10, 8:11] == GREEN).all()
    assert (report.merged_regions, report.widened_px) == (1, 0)


def test_a_pixel_at_a_body_s_corner_is_no_part_of_it() -> None:
    index = np.full((20, 20), SAND, np.uint8)
    index[5:12, 5:12] = RED
    index[12, 12] = RED
    out, report = held(index, 2)
    assert out[12, 12] == SAND
    assert report.merged_px == 1


def test_a_speck_between_ink_and_ground_goes_to_the_ink() -> None:
    index = np.full((20, 20), UNPAINTED, np.uint8)
    index[:, :10] = GREEN
    index[8, 10:13] = RED  # one crack with green, seven with bare ground
    assert (held(index, 2)[0][8, 10:13] != RED).all()
    index[8, 11:13] = UNPAINTED
    assert held(index, 3)[0][8, 10] == GREEN


def test_a_spur_goes_and_its_body_stays() -> None:
    index = np.full((30, 40), SAND, np.uint8)
    index[8:22, 4:18] = RED
    index[14:16, 18:36] = RED
    out, _ = held(index, 4)
    assert (out[8:22, 5:17] == RED).all()
    assert (out[:, 20:] == SAND).all()


def test_a_neck_between_two_parts_is_cut_or_filled() -> None:
    index = np.full((30, 40), SAND, np.uint8)
    index[8:22, 4:18] = index[8:22, 20:34] = RED
    index[14, 18:20] = RED
    out, _ = held(index, 3)
    assert narrow_px(out, 3) == 0
    assert (out[8:22, 5:17] == RED).all()


@pytest.mark.parametrize("ends", [((6, 20), (53, 20)), ((20, 6), (20, 53)), ((6, 6), (53, 53)), ((6, 9), (53, 30))])
def test_a_long_dark_line_is_widened(ends: tuple[tuple[int, int], tuple[int, int]]) -> None:
    index = np.full((60, 60), SAND, np.uint8)
    cv2.line(index, *ends, DARK, 1, cv2.LINE_8)
    out, report = held(index, 3)
    assert (out[index == DARK] == DARK).all()
    assert report.widened_px > 0
    assert report.merged_px <= 4
    across = (out == DARK).sum() / math.hypot(ends[1][0] - ends[0][0], ends[1][1] - ends[0][1])
    assert 3 <= across <= 4.4


def test_short_dark_lines_and_lines_of_other_inks_are_merged() -> None:
    index = np.full((60, 60), SAND, np.uint8)
    index[10, 5:12] = DARK
    index[30, 5:55] = RED
    out, report = held(index, 3)
    assert (out == SAND).all()
    assert (report.merged_regions, report.merged_px, report.widened_px) == (2, 57, 0)


def test_a_line_along_the_map_s_border_is_widened_inward() -> None:
    index = np.full((30, 50), SAND, np.uint8)
    index[:, 0] = index[:, -1] = index[-1] = DARK
    out, _ = held(index, 3)
    assert (out[:, :3] == DARK).all()
    assert (out[:, -3:] == DARK).all()
    assert (out[-3:] == DARK).all()
    assert (out[:-4, 4:-4] == SAND).all()


@given(noise, st.sampled_from([2, 3, 5]))
@settings(max_examples=40, deadline=None)
def test_no_ground_is_bared_where_none_was(index: U8, min_feature_px: float) -> None:
    painted = np.where(index == UNPAINTED, SAND, index)
    assert (held(painted, min_feature_px)[0] != UNPAINTED).all()


def test_narrow_ground_is_painted_and_wide_ground_stays_bare() -> None:
    index = np.full((40, 40), GREEN, np.uint8)
    index[:, 10] = UNPAINTED
    index[10:30, 20:36] = UNPAINTED
    out, _ = held(index, 3)
    assert (out[:, 10] == GREEN).all()
    assert (out[10:30, 20:36] == UNPAINTED).all()


def test_the_narrowest_place_is_measured() -> None:
    index = np.full((40, 40), SAND, np.uint8)
    index[:, 10:15] = RED
    assert held(index, 3)[1].narrowest_px == 5
    assert held(index[:, 12:14], 3)[1].narrowest_px == 2


@pytest.mark.parametrize("width", [-1.0, math.nan, math.inf])
def test_a_width_must_be_a_number(width: float) -> None:
    with pytest.raises(ValueError, match="min_feature_px"):
        hold_min_feature(IndexMap(np.zeros((4, 4), np.uint8), PALETTE), width)
