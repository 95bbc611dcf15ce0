"""PNGs are rendered from the text that is handed over: right size, right colours, the same bytes each time."""

from __future__ import annotations

import importlib
import io
import time
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import Cancelled, InternalError
from pipeline.export.png import MAX_WIDTH_PX, Png, render_png
from pipeline.types import U8, UNPAINTED, Drawing, IndexMap, Ink, Palette
from pipeline.vectorize import VectorizeOptions, vectorize

PALETTE = Palette((Ink("#1D3557", "navy"), Ink("#C8262B", "red"), Ink("#FFFFFF", "white")))
WIDTH_PX, HEIGHT_PX = 96, 64


def label_map() -> U8:
    y, x = np.mgrid[:HEIGHT_PX, :WIDTH_PX]
    index = np.zeros((HEIGHT_PX, WIDTH_PX), dtype=np.uint8)
    index[np.hypot(x - 40, y - 30) < 22] = 1
    index[np.hypot(x - 46, y - 34) < 9] = 2
    return index


@pytest.fixture(scope="module")
def drawing() -> Drawing:
    return vectorize(IndexMap(label_map(), PALETTE), VectorizeOptions())


@pytest.fixture(scope="module")
def cut_out() -> Drawing:
    index = label_map()
    index[index == 0] = UNPAINTED
    return vectorize(IndexMap(index, PALETTE), VectorizeOptions())


def opened(png: Png) -> Image.Image:
    picture = Image.open(io.BytesIO(png.data))
    assert picture.format == "PNG"
    assert picture.size == (png.width_px, png.height_px)
    return picture


def plain(width_px: int, height_px: int) -> Drawing:
    """A frame filled from edge to edge."""
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width_px} {height_px}" width="{width_px}"'
        f' height="{height_px}"><path fill="#1D3557" d="M0 0h{width_px}v{height_px}h-{width_px}z"/></svg>'
    )
    return Drawing(svg, width_px, height_px)


@pytest.mark.parametrize(
    ("frame_px", "width_px", "height_px"),
    [
        ((96, 64), 96, 64),
        ((96, 64), 300, 200),
        ((96, 64), 100, 67),
        ((1024, 683), 2000, 1334),
        ((683, 1024), 777, 1165),
        ((3, 1000), 2, 667),
        ((1000, 3), 40, 1),
        ((96, 64), 1, 1),
        ((96, 64), MAX_WIDTH_PX, 2731),
    ],
)
def test_sizes_are_exact_and_filled_to_the_edge(frame_px: tuple[int, int], width_px: int, height_px: int) -> None:
    picture = opened(render_png(plain(*frame_px), width_px))
    assert picture.size == (width_px, height_px)
    assert picture.mode == "RGB"
    assert picture.getcolors() == [(width_px * height_px, (0x1D, 0x35, 0x57))]


@pytest.mark.parametrize("width_px", [0, -1, MAX_WIDTH_PX + 1])
def test_other_widths_are_refused(drawing: Drawing, width_px: int) -> None:
    with pytest.raises(ValueError, match="px wide"):
        render_png(drawing, width_px)


def test_the_same_drawing_gives_the_same_bytes(drawing: Drawing) -> None:
    assert len({render_png(drawing, 250).data for _ in range(3)}) == 1


def test_away_from_edges_each_pixel_has_its_ink_s_colour(drawing: Drawing) -> None:
    shown = np.asarray(opened(render_png(drawing, 2 * WIDTH_PX)))
    wanted = PALETTE.rgb()[label_map()].repeat(2, axis=0).repeat(2, axis=1)
    assert (shown == wanted).all(axis=2).mean() > 0.95
    middle = np.unique(shown[64:72, 86:100].reshape(-1, 3), axis=0)
    assert middle.tolist() == [list(PALETTE.inks[2].rgb)]


def test_unpainted_pixels_are_transparent(cut_out: Drawing) -> None:
    picture = opened(render_png(cut_out, WIDTH_PX))
    assert picture.mode == "RGBA"
    alpha = np.asarray(picture)[:, :, 3]
    from_centre = np.hypot(*np.mgrid[-30 : HEIGHT_PX - 30, -40 : WIDTH_PX - 40])
    assert (alpha[from_centre > 24] == 0).all()
    assert (alpha[from_centre < 20] == 255).all()


def test_text_that_can_t_be_rendered_is_an_internal_error() -> None:
    with pytest.raises(InternalError):
        render_png(Drawing("<svg", 8, 8), 8)


def by_resvg(svg: str) -> U8:
    data = importlib.import_module("resvg_py").svg_to_bytes(svg_string=svg)
    return np.asarray(Image.open(io.BytesIO(bytes(data))).convert("RGBA"))


def by_skia(svg: str) -> U8:
    skia = importlib.import_module("skia")
    surface = skia.Surface(WIDTH_PX, HEIGHT_PX)
    text = svg.encode()  # the stream only borrows it
    tree = skia.SVGDOM.MakeFromStream(skia.MemoryStream(text))
    tree.setContainerSize(skia.Size(WIDTH_PX, HEIGHT_PX))
    tree.render(surface.getCanvas())
    return np.asarray(surface.makeImageSnapshot().toarray(colorType=skia.kRGBA_8888_ColorType))


QUARTER = 64
"""Skia counts coverage in quarters, so a renderer that measures it may be one such step away."""


@pytest.mark.parametrize(("module", "render"), [("resvg_py", by_resvg), ("skia", by_skia)])
@pytest.mark.parametrize("name", ["drawing", "cut_out"])
def test_other_renderers_show_the_same(module: str, render: object, name: str, request: pytest.FixtureRequest) -> None:
    pytest.importorskip(module, reason=f"{module} is not installed (it is no dependency of Livery)")
    assert callable(render)
    subject: Drawing = request.getfixturevalue(name)
    ours = np.asarray(opened(render_png(subject, WIDTH_PX)).convert("RGBA")).astype(int)
    theirs = render(subject.svg).astype(int)
    shown = (ours[:, :, 3] == 255) & (theirs[:, :, 3] == 255)
    assert (np.abs(ours[:, :, 3] - theirs[:, :, 3]) <= QUARTER).all()
    assert (np.abs(ours - theirs).max(axis=2)[shown] <= 48).mean() > 0.99


def test_larger_is_not_lighter(drawing: Drawing) -> None:
    sizes = [len(render_png(drawing, width_px).data) for width_px in (96, 384, 1536)]
    assert all(small < large for small, large in pairwise(sizes))
    assert sizes[-1] < 1536 * 1024 * 3 / 50


class Late:
    """A check that raises from its n-th call on."""

    def __init__(self, n: int) -> None:
        self.n, self.calls, self.raised_s = n, 0, 0.0

    def __call__(self) -> None:
        self.calls += 1
        if self.calls >= self.n:
            self.raised_s = self.raised_s or time.monotonic()
            raise Cancelled("the job was cancelled")


def test_a_cancel_ends_the_drawing_and_the_encoding(drawing: Drawing) -> None:
    never = Late(1 << 30)
    whole = render_png(drawing, MAX_WIDTH_PX, check=never)
    assert never.calls > 20
    # libvips asks as time passes, so that two renderings differ by some calls.
    for n in (1, never.calls // 2, never.calls * 3 // 4):
        late = Late(n)
        with pytest.raises(Cancelled):
            render_png(drawing, MAX_WIDTH_PX, check=late)
        assert time.monotonic() - late.raised_s < 1
        assert late.calls < n + 8
    assert render_png(drawing, MAX_WIDTH_PX).data == whole.data
