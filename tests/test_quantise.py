"""Cells and nearest inks by torch are the CPU's on every pixel, and so is all that phase 3 makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the studio extra is not installed")

import torch

from models.device import CPU
from models.quantise import quantise
from models.requests import unchecked
from models.studio import StudioWorker
from pipeline.costs import colour_costs, ink_costs, nearest_inks, shade_lenience
from pipeline.enforce import EnforceOptions, enforce
from pipeline.palette import DEFAULT_PALETTE
from pipeline.types import F32, U8, Illustration, Ink, Palette
from tests.images import scene


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def random_palette(rng: np.random.Generator, inks: int) -> Palette:
    codes = rng.choice(1 << 24, inks, replace=False)
    return Palette(tuple(Ink(f"#{code:06X}", f"ink {code}") for code in codes))


def costs_in(palette: Palette) -> Callable[[U8], F32]:
    return lambda colours: colour_costs(colours, palette, shade_lenience(palette))


def assert_equal(rgb: U8, palette: Palette) -> None:
    cells, costs = ink_costs(rgb, palette, shade_lenience(palette))
    rows, table, labels = quantise(rgb, costs_in(palette), CPU)
    assert (rows.dtype, labels.dtype) == (np.dtype(np.int32), np.dtype(np.uint8))
    assert np.array_equal(rows, cells)
    assert np.array_equal(table, costs)
    assert np.array_equal(labels, nearest_inks(cells, costs))


@pytest.mark.parametrize(("inks", "side_px"), [(2, 1000), (15, 1000), (64, 300)])
def test_labels_equal_the_cpu_s_on_a_million_random_pixels(inks: int, side_px: int) -> None:
    rng = np.random.default_rng(inks)
    rgb = rng.integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)
    assert_equal(rgb, random_palette(rng, inks))


def test_labels_equal_the_cpu_s_on_a_picture() -> None:
    assert_equal(np.ascontiguousarray(scene(640, 480)[::-1]), DEFAULT_PALETTE)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (13, 2)])
def test_labels_equal_the_cpu_s_on_scraps(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    assert_equal(rng.integers(0, 256, (*shape, 3), dtype=np.uint8), DEFAULT_PALETTE)


def test_a_cell_stands_for_the_rounded_mean_of_its_pixels() -> None:
    seen: list[U8] = []

    def costs_of(colours: U8) -> F32:
        seen.append(colours)
        return np.zeros((len(colours), 2), np.float32)

    rgb = np.array([[(8, 0, 255), (9, 0, 255), (11, 1, 254), (200, 3, 3)]], np.uint8)
    rows, _, labels = quantise(rgb, costs_of, CPU)
    assert rows.tolist() == [[0, 0, 0, 1]]
    assert seen[0].tolist() == [[9, 0, 255], [200, 3, 3]]
    assert labels.tolist() == [[0, 0, 0, 0]]  # of equal inks the first


def test_phase_3_makes_the_same_map_with_it() -> None:
    rgb = scene(160, 120) // 2
    palette = Palette(tuple(Ink(code, code) for code in ("#E01818", "#F0F0F0", "#101010", "#5C4030", "#3060A0")))
    assert shade_lenience(palette).max() > 1
    flat = np.full(rgb.shape[:2], 200, np.uint8)
    illustration = Illustration(rgb, flat, flat, 1.0)
    calls: list[U8] = []

    def on_device(picture: U8, costs_of: Callable[[U8], F32]) -> tuple[np.ndarray, F32, U8]:
        calls.append(picture)
        return quantise(picture, costs_of, CPU)

    expected = enforce(illustration, palette, EnforceOptions())
    made = enforce(illustration, palette, EnforceOptions(), on_device)
    assert len(calls) == 1
    assert np.array_equal(made.index, expected.index)
    assert len(np.unique(expected.index)) > 2


def test_where_the_device_s_memory_is_short_the_cpu_finds_the_same_inks_and_says_so(tmp_path: Path) -> None:
    studio = StudioWorker(tmp_path, threads=1).job(unchecked)
    rgb, palette = scene(160, 120), random_palette(np.random.default_rng(3), 9)
    asked: list[int] = []

    def short_of_memory(colours: U8) -> F32:
        asked.append(len(colours))
        if len(asked) <= 2:  # at first, and once what was cached is freed; no other model is there to leave
            raise torch.OutOfMemoryError("CUDA out of memory")
        return costs_in(palette)(colours)

    rows, _, labels = studio.quantise(rgb, short_of_memory)
    cells, costs = ink_costs(rgb, palette, shade_lenience(palette))
    assert len(asked) == 3
    assert np.array_equal(rows, cells)
    assert np.array_equal(labels, nearest_inks(cells, costs))
    assert [warning.code for warning in studio.warnings] == ["memory_cpu"]
