"""The resize into the working frame: linear light, no aliasing, slight halos, the same bytes on any thread count."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from pipeline.colour import ENCODED, FULL_SCALE, LINEAR_STEPS
from pipeline.resample import filter_windows, resize_linear
from pipeline.types import U8
from tests.images import scene


def flat(code: int, width_px: int, height_px: int) -> U8:
    return np.full((height_px, width_px, 3), code, np.uint8)


def test_every_code_survives_the_way_through_linear_light() -> None:
    codes = ENCODED[LINEAR_STEPS.astype(np.int64)]
    assert np.array_equal(codes, np.arange(256))


def test_the_code_table_takes_the_nearest_code() -> None:
    light = LINEAR_STEPS.astype(np.int64)
    table = ENCODED
    assert len(table) == FULL_SCALE + 1
    assert np.all(np.diff(table.astype(np.int64)) >= 0)
    for lower in (0, 10, 128, 254):
        span = light[lower + 1] - light[lower]
        assert table[light[lower] + span * 2 // 5] == lower
        assert table[light[lower] + span * 3 // 5] == lower + 1


@pytest.mark.parametrize(("source_px", "target_px"), [(4032, 1024), (100, 37), (37, 100), (17, 16), (3, 50), (1, 9)])
def test_each_window_sums_to_one_and_lies_inside(source_px: int, target_px: int) -> None:
    first, weights = filter_windows(source_px, target_px)
    assert np.all(weights.sum(axis=1, dtype=np.float64) == 1.0)
    assert first.min() >= 0
    assert first.max() + weights.shape[1] <= source_px


@pytest.mark.parametrize("code", [0, 1, 7, 40, 128, 200, 254, 255])
@pytest.mark.parametrize(("width_px", "height_px"), [(31, 19), (150, 90)])
def test_a_flat_picture_stays_flat(code: int, width_px: int, height_px: int) -> None:
    assert np.all(resize_linear(flat(code, 97, 61), width_px, height_px) == code)


def test_a_fine_chequer_becomes_the_grey_of_its_mean_light() -> None:
    chequer = np.where(np.indices((256, 256)).sum(axis=0) % 2 == 0, np.uint8(0), np.uint8(255))
    reduced = resize_linear(np.repeat(chequer[:, :, None], 3, axis=2), 48, 48)
    assert np.all(abs(reduced[4:-4, 4:-4].astype(int) - 188) <= 1)


def test_a_pattern_finer_than_the_frame_leaves_no_moire() -> None:
    light = FULL_SCALE * (0.5 + 0.4 * np.sin(np.arange(1000) * 2 * np.pi * 0.23))
    stripes = ENCODED[light.astype(np.int64)]
    reduced = resize_linear(np.ascontiguousarray(np.broadcast_to(stripes[None, :, None], (64, 1000, 3))), 250, 16)
    assert np.ptp(reduced[8, 10:-10, 0].astype(int)) <= 6


def test_the_halo_beside_a_hard_edge_is_slight() -> None:
    edge = flat(60, 400, 32)
    edge[:, 200:] = 200
    reduced = resize_linear(edge, 100, 16)
    assert int(reduced.min()) >= 50
    assert int(reduced.max()) <= 203


def test_an_edge_stays_sharp() -> None:
    edge = flat(0, 400, 32)
    edge[:, 202:] = 255
    row = LINEAR_STEPS[resize_linear(edge, 100, 16)[8, :, 0]] / FULL_SCALE
    assert np.count_nonzero((row > 0.1) & (row < 0.9)) <= 2


def test_content_does_not_shift() -> None:
    size_px = 240
    y, x = np.mgrid[0:size_px, 0:size_px]
    spot = (255 * np.exp(-((x - 80) ** 2 + (y - 150) ** 2) / 800)).astype(np.uint8)
    for target_px in (60, 400):
        light = LINEAR_STEPS[resize_linear(np.repeat(spot[:, :, None], 3, axis=2), target_px, target_px)[:, :, 1]]
        centre = [(light.sum(axis=axis) * np.arange(target_px)).sum() / light.sum() for axis in (0, 1)]
        expected = [(at + 0.5) * target_px / size_px - 0.5 for at in (80, 150)]
        assert centre == pytest.approx(expected, abs=0.02)


def test_channels_stay_apart_and_in_order() -> None:
    picture = flat(0, 40, 40)
    picture[:, :, 0], picture[:, :, 1] = 250, 120
    assert np.all(resize_linear(picture, 21, 33) == (250, 120, 0))


def test_turning_the_picture_turns_the_result() -> None:
    picture = scene(120, 88)
    turned = resize_linear(np.ascontiguousarray(picture[::-1, ::-1]), 50, 37)[::-1, ::-1]
    assert np.max(abs(turned.astype(int) - resize_linear(picture, 50, 37))) <= 1


def test_the_same_size_is_the_same_picture_in_new_memory() -> None:
    picture = scene()
    same = resize_linear(picture, 96, 64)
    assert np.array_equal(same, picture)
    assert not np.shares_memory(same, picture)


def test_thread_count_does_not_change_a_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = scene(301, 203)
    results = set()
    for threads in ("1", "2", "3", "7"):
        monkeypatch.setenv("LIVERY_THREADS", threads)
        results.add(resize_linear(picture, 128, 86).tobytes() + resize_linear(picture, 400, 270).tobytes())
    assert len(results) == 1


def test_the_bytes_are_those_of_every_other_machine() -> None:
    picture = scene(301, 203, seed=5)
    digest = hashlib.sha256(resize_linear(picture, 128, 86).tobytes() + resize_linear(picture, 400, 270).tobytes())
    assert digest.hexdigest()[:16] == "99b3c9fbe9e1ab35"
