"""Phase 4: every paint is an ink of the palette, unpainted stays unpainted, and the tracer can be stopped."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image

from pipeline.errors import Cancelled, DeadlineExceeded, InternalError
from pipeline.export.audit import audit_svg
from pipeline.trace import vtracer
from pipeline.types import U8, UNPAINTED, Drawing, IndexMap, Ink, Palette
from pipeline.vectorize import VectorizeOptions, vectorize

VTRACER = VectorizeOptions(tracer="vtracer")
WAYS = {
    "stacked": VectorizeOptions(),
    "abutting": VectorizeOptions(stacking="abutting"),
    "exact": VectorizeOptions(tolerance_px=0.5),
    "vtracer": VTRACER,
}
every_way = pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
LINUX = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads the process table of Linux")


def palette_of(*colours: int) -> Palette:
    return Palette(tuple(Ink(f"#{colour:06X}", f"ink {number}") for number, colour in enumerate(colours)))


def blobs(rng: np.random.Generator, height_px: int, width_px: int, inks: int, count: int = 12) -> U8:
    """A label map of overlapping ellipses: regions as phase 3 makes them."""
    y, x = np.mgrid[:height_px, :width_px]
    index = np.full((height_px, width_px), rng.integers(inks), dtype=np.uint8)
    for _ in range(count):
        cx, cy = rng.random(2) * (width_px, height_px)
        rx, ry = 2 + rng.random(2) * (width_px, height_px) / 3
        index[((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1] = rng.integers(inks)
    return index


def rastered(drawing: Drawing, palette: Palette) -> U8:
    """The label that each pixel's centre shows, without anti-aliasing."""
    svg = drawing.svg.replace("<svg ", '<svg shape-rendering="crispEdges" ', 1)
    rgba = pyvips.Image.svgload_buffer(svg.encode()).numpy().astype(np.int64)
    nearest = ((rgba[:, :, None, :3] - palette.rgb().astype(np.int64)) ** 2).sum(axis=3).argmin(axis=2)
    return np.where(rgba[:, :, 3] < 128, UNPAINTED, nearest).astype(np.uint8)


def agreement(drawing: Drawing, image: IndexMap) -> float:
    return float((rastered(drawing, image.palette) == image.index).mean())


@every_way
def test_200_random_palettes_leave_no_paint_outside_the_palette(options: VectorizeOptions) -> None:
    rng = np.random.default_rng(200)
    for trial in range(200):
        inks = int(rng.integers(2, 65))
        first = int(rng.integers(0, 2**24 - 64))
        near = trial % 4 == 0  # inks that differ by 1 in one channel
        colours = np.arange(first, first + inks) if near else rng.choice(2**24, inks, replace=False)
        palette = palette_of(*colours.tolist())
        drawing = vectorize(IndexMap(blobs(rng, 24, 32, inks), palette), options)
        assert set(re.findall(r'(?:fill|stroke)="([^"]*)"', drawing.svg)) <= set(palette.hexes)
        assert audit_svg(drawing.svg, palette).paints == {ink: use.paths for ink, use in drawing.uses.items()}


@every_way
def test_any_label_map_gives_a_drawing_that_passes_the_audit(options: VectorizeOptions) -> None:
    rng = np.random.default_rng(48)
    shapes = [(1, 1), (1, 48), (48, 1), (2, 2), *rng.integers(1, 49, (40, 2)).tolist()]
    for height_px, width_px in shapes:
        inks = int(rng.integers(2, 65))
        index = rng.integers(0, inks, (height_px, width_px)).astype(np.uint8)
        index[rng.random(index.shape) < rng.random()] = UNPAINTED
        palette = palette_of(*rng.choice(2**24, inks, replace=False).tolist())
        drawing = vectorize(IndexMap(index, palette), options)
        audit_svg(drawing.svg, palette)
        assert f'viewBox="0 0 {width_px} {height_px}"' in drawing.svg


@every_way
def test_the_drawing_agrees_with_the_map(options: VectorizeOptions) -> None:
    image = IndexMap(blobs(np.random.default_rng(7), 240, 360, 9, count=30), palette_of(*range(0, 0xFFFFFF, 0x1C71C7)))
    assert agreement(vectorize(image, options), image) > 0.985


@every_way
def test_a_photograph_s_map_is_met(options: VectorizeOptions) -> None:
    folder = os.environ.get("LIVERY_MAPS")
    if folder is None:
        pytest.skip("LIVERY_MAPS names no folder of label maps")
    colours = json.loads(Path(folder, "truck_2048.palette.json").read_text())
    palette = palette_of(*(int(colour[1:], 16) for colour in colours))
    image = IndexMap(np.array(Image.open(Path(folder, "truck_2048.labels.png")), dtype=np.uint8), palette)
    assert agreement(vectorize(image, options), image) > 0.98


@every_way
def test_inks_one_step_apart_stay_apart(options: VectorizeOptions) -> None:
    index = np.zeros((20, 40), dtype=np.uint8)
    index[:, 20:] = 1
    image = IndexMap(index, palette_of(0x808080, 0x818181))
    drawing = vectorize(image, options)
    assert drawing.svg.count('fill="#808080"') == drawing.svg.count('fill="#818181"') == 1


def test_no_two_codes_are_alike() -> None:
    codes = vtracer.code_colours(palette_of(*range(0xFF0000, 0xFF0040)))
    apart = np.abs(np.subtract.outer(np.array([vtracer.KEY_RGB, *codes]).T, 0)).T
    assert min(np.abs(a - b).max() for i, a in enumerate(apart) for b in apart[:i]) >= 2


@every_way
def test_unpainted_pixels_show_nothing_even_when_enclosed(options: VectorizeOptions) -> None:
    y, x = np.mgrid[:120, :160]
    from_centre = np.hypot(x - 80, y - 60)
    index = np.where(x < 80, 0, 1).astype(np.uint8)
    index[from_centre < 40] = 2
    index[from_centre < 30] = UNPAINTED  # a hole
    index[from_centre < 12] = 1  # an island in it
    index[:, 130:134] = UNPAINTED  # a cut from side to side
    image = IndexMap(index, palette_of(0x101010, 0xC03020, 0xF0F0F0))
    shown = rastered(vectorize(image, options), image.palette)
    bare, shown_bare = index == UNPAINTED, shown == UNPAINTED
    assert (bare & shown_bare).sum() / (bare | shown_bare).sum() > 0.97
    inside = (from_centre < 28) & (from_centre > 14)
    assert shown_bare[inside].all()
    assert (shown[from_centre < 10] == 1).all()


@every_way
def test_a_map_without_paint_is_an_empty_drawing(options: VectorizeOptions) -> None:
    image = IndexMap(np.full((5, 7), UNPAINTED, dtype=np.uint8), palette_of(0, 0xFFFFFF))
    drawing = vectorize(image, options)
    assert drawing.paths == drawing.nodes == 0
    assert drawing.warnings == ()
    audit_svg(drawing.svg, image.palette)


def test_an_ink_too_thin_to_draw_is_reported() -> None:
    index = np.zeros((20, 20), dtype=np.uint8)
    index[9, 9] = 1
    drawing = vectorize(IndexMap(index, palette_of(0, 0xFFFFFF)), VTRACER)
    assert [(warning.code, "ink 1" in warning.message) for warning in drawing.warnings] == [("ink_not_drawn", True)]


@every_way
def test_uses_count_what_the_text_holds(options: VectorizeOptions) -> None:
    image = IndexMap(blobs(np.random.default_rng(3), 60, 80, 5), palette_of(0, 0xFF, 0xFF00, 0xFF0000, 0xFFFFFF))
    drawing = vectorize(image, options)
    ovals = len(re.findall("<(?:circle|ellipse) ", drawing.svg))
    assert drawing.paths == drawing.svg.count("<path ") + ovals
    nodes = 3 * ovals  # what its path would take: M and two arcs
    for outline in re.findall(r' d="([^"]*)"', drawing.svg):
        for letter, rest in re.findall(r"([mlhvcaz])([^mlhvcaz]*)", outline):
            numbers = re.findall(r"-?(?:\d+(?:\.\d+)?|\.\d+)", rest)
            nodes += len(numbers) // {"m": 2, "l": 2, "h": 1, "v": 1, "c": 6, "a": 7, "z": 1}[letter]
    assert drawing.nodes == nodes > 0


@every_way
def test_the_same_map_gives_the_same_bytes(options: VectorizeOptions) -> None:
    image = IndexMap(blobs(np.random.default_rng(5), 90, 120, 8), palette_of(*range(0, 80, 10)))
    assert vectorize(image, options).svg == vectorize(image, options).svg


def test_regions_that_vtracer_joins_are_traced_again_apart() -> None:
    """64 neighbouring greys of noise: vtracer averages regions into fills that are no code."""
    rng = np.random.default_rng(0)
    palette = palette_of(*range(64))
    image = IndexMap(rng.integers(0, 64, (32, 32)).astype(np.uint8), palette)
    codes = vtracer.code_colours(palette)
    picture = vtracer.encode(image, codes, top_px=0)
    ends_at = time.monotonic() + 30
    with pytest.raises(vtracer.UnknownFill):
        vtracer.parse(vtracer.run(picture, vtracer.SETTINGS, ends_at, None), codes, 0)
    audit_svg(vectorize(image, VTRACER).svg, palette)


@pytest.mark.parametrize(
    ("curve", "commands"),
    [
        ("C1 0 2 0 3 0", "MLLZ"),  # handles on the chord
        ("C1 .03 2 0 3 0", "MCLZ"),
        ("C-1 0 2 0 3 0", "MCLZ"),  # a handle behind the start
        ("C1 0 4 0 3 0", "MCLZ"),  # a handle beyond the end
        ("C1 0 1 0 0 0", "MCCZ"),  # no chord
    ],
)
def test_only_a_curve_that_is_straight_becomes_a_line(curve: str, commands: str) -> None:
    path = f'<path d="M0 0 {curve} C2 1 1 2 0 3 Z " fill="#000000" transform="translate(5,7.25)"/>'
    (shape,) = vtracer.parse(path.encode(), [(0, 0, 0)], 1)
    assert shape.commands == commands
    assert shape.points[0].tolist() == [500, 625]
    assert shape.points[-1].tolist() == [500, 925]


@pytest.mark.parametrize(
    "path",
    [
        '<path d="M0 0 C1 1 2 2 NaN 3 Z " fill="#000000" transform="translate(0,0)"/>',
        '<path d="M0 0 C1 1 2 2 3 Z " fill="#000000" transform="translate(0,0)"/>',
        '<path d="L0 0 Z " fill="#000000" transform="translate(0,0)"/>',
        '<path d="M0 0 Q1 1 2 2 Z " fill="#000000" transform="translate(0,0)"/>',
        '<path d="M0 0 Z " fill="#000000" transform="rotate(3)"/>',
    ],
)
def test_output_that_is_not_vtracer_s_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        vtracer.parse(path.encode(), [(0, 0, 0)], 0)
    assert not isinstance(caught.value, vtracer.UnknownFill)


def test_lines_alone_at_half_a_pixel_show_every_pixel() -> None:
    image = IndexMap(blobs(np.random.default_rng(21), 90, 120, 6), palette_of(*range(0, 96, 16)))
    drawing = vectorize(image, VectorizeOptions(tolerance_px=0.5, curves=False, edges=True))
    assert set("".join(shape.commands for shape in drawing.tracing.shapes)) == set("MLZ")
    assert set("".join(edge.commands for edge in drawing.tracing.edges)) <= set("MLZ")
    assert drawing.certificate is not None
    assert drawing.certificate.agreement_pct == 100.0
    assert drawing.tracing.edges
    assert not vectorize(image, VectorizeOptions()).tracing.edges


def test_an_ink_one_pixel_thin_is_drawn_by_our_own_tracer() -> None:
    index = np.zeros((20, 20), dtype=np.uint8)
    index[9, 9] = 1
    drawing = vectorize(IndexMap(index, palette_of(0, 0xFFFFFF)), VectorizeOptions())
    assert set(drawing.uses) == {0, 1}
    assert drawing.warnings == ()


@every_way
def test_the_certificate_says_what_a_renderer_sees(options: VectorizeOptions) -> None:
    image = IndexMap(blobs(np.random.default_rng(11), 120, 160, 6, count=20), palette_of(*range(0, 96, 16)))
    drawing = vectorize(image, dataclasses.replace(options, min_feature_px=3.5))
    if options.tracer == "vtracer":
        assert drawing.certificate is None
        return
    stated = drawing.certificate
    assert stated is not None
    assert (stated.nodes, stated.paths) == (drawing.nodes, drawing.paths)
    assert (stated.tolerance_px, stated.min_feature_px) == (options.tolerance_px, 3.5)
    assert stated.primitives == drawing.tracing.primitives
    assert stated.agreement_pct == pytest.approx(100 * agreement(drawing, image), abs=0.15)  # librsvg is a little off


def test_a_wider_tolerance_takes_fewer_nodes() -> None:
    image = IndexMap(blobs(np.random.default_rng(12), 200, 300, 6, count=30), palette_of(*range(0, 96, 16)))
    drawings = [vectorize(image, VectorizeOptions(tolerance_px=tolerance_px)) for tolerance_px in (0.5, 0.8, 2.5)]
    nodes = [drawing.nodes for drawing in drawings]
    assert nodes == sorted(nodes, reverse=True)
    agreements = [agreement(drawing, image) for drawing in drawings]
    assert agreements == sorted(agreements, reverse=True)
    assert agreements[0] > 0.998
    assert agreements[1] > 0.99


def children() -> set[str]:
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


SLOW = IndexMap(np.random.default_rng(9).integers(0, 2, (1500, 1500)).astype(np.uint8), palette_of(0, 0xFFFFFF))
"""Noise on which vtracer takes far longer than any test waits."""


@LINUX
def test_a_cancel_ends_the_tracer_at_once_and_leaves_no_process() -> None:
    before = children()
    asked: list[float] = []

    def cancelled() -> bool:
        asked.append(time.monotonic())
        return len(asked) > 4

    with pytest.raises(Cancelled):
        vectorize(SLOW, VTRACER, cancelled=cancelled)
    assert time.monotonic() - asked[-1] < 5
    assert max(later - sooner for sooner, later in itertools.pairwise(asked)) < 5
    assert children() <= before


@LINUX
def test_the_deadline_ends_the_tracer() -> None:
    before = children()
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        vectorize(SLOW, VectorizeOptions(tracer="vtracer", deadline_s=0.2))
    assert time.monotonic() - began < 5
    assert caught.value.phase == "vectorize"
    assert children() <= before


@LINUX
def test_the_tracer_s_process_gets_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVERY_SECRET_KEY", "hunter2")
    before = children()
    seen: list[bytes] = []

    def cancelled() -> bool:
        seen.extend(Path("/proc", pid, "environ").read_bytes() for pid in children() - before)
        return len(seen) > 2

    with pytest.raises(Cancelled):
        vectorize(SLOW, VTRACER, cancelled=cancelled)
    assert b"PYTHON" not in seen[-1]
    assert b"hunter2" not in seen[-1]


def test_a_tracer_that_dies_is_an_internal_error_with_its_words_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(vtracer, "SETTINGS", {**vtracer.SETTINGS, "path_precision": -1})
    image = IndexMap(np.zeros((4, 4), dtype=np.uint8), palette_of(0, 1))
    with caplog.at_level(logging.ERROR), pytest.raises(InternalError) as caught:
        vectorize(image, VTRACER)
    assert "OverflowError" in caplog.text
    assert str(caught.value) == InternalError().message
