"""What the writer makes of a drawing: circles and ellipses as such, true to their arcs, and the certificate."""

from __future__ import annotations

import importlib
import io
import math
import random
import re
from collections.abc import Callable
from xml.parsers import expat

import numpy as np
import pytest
import pyvips
from PIL import Image

from pipeline.export.audit import audit_svg
from pipeline.export.curves import without_arcs
from pipeline.export.svg import path_data, write_svg
from pipeline.types import F64, U8, Certificate, IndexMap, Ink, Palette, Shape
from pipeline.vectorize import VectorizeOptions, vectorize

PALETTE = Palette((Ink("#000000", "black"), Ink("#FFFFFF", "white"), Ink("#C8262B", "red")))
ZOOM = 4
FINE = 8
CERTIFICATE = Certificate(0.8, 99.3199, 3120, 23, {"lines": 7, "arcs": 4, "ellipses": 2, "circles": 3})


def halves(
    centre_px: tuple[float, float],
    radii_px: tuple[float, float],
    turn_deg: float,
    start_rad: float,
    flags: int,
    grid: int,
) -> Shape:
    """Two halves as the tracer writes them: ends opposite each other, radii a little short for their chord."""
    (cx, cy), (a, b) = centre_px, radii_px
    cos, sin = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
    u, w = a * math.cos(start_rad), b * math.sin(start_rad)
    px, py = (round(100 * spot / grid) * grid for spot in (cx + u * cos - w * sin, cy + u * sin + w * cos))
    qx, qy = round(200 * cx) - px, round(200 * cy) - py
    u, w = ((qx - px) * cos + (qy - py) * sin) / 2 / a, ((qy - py) * cos - (qx - px) * sin) / 2 / b
    rx = max(int(math.hypot(u, w) * a) - 1, 1)
    ry = rx if a == b else max(int(rx * b / a), 1)
    arc = [rx, ry], [0 if rx == ry else round(100 * turn_deg), flags]
    return Shape(0, "MAAZ", np.array([[px, py], *arc, [qx, qy], *arc, [px, py]], dtype=np.int32))


def random_halves(rng: random.Random, kind: str, radius_px: float, frame_px: float, *, at_a_vertex: bool) -> Shape:
    centre = frame_px / 2 + rng.random(), frame_px / 2 + rng.random()
    a = radius_px * rng.uniform(0.7, 1)
    b = a if kind == "circle" else a * rng.uniform(0.2, 0.9)
    turn_deg = rng.randrange(-9000, 18000) / 100 if kind == "turned" else rng.choice([0, 90, -90, 180])
    start_rad = rng.choice([0, math.pi]) if at_a_vertex else rng.uniform(0, 2 * math.pi)
    return halves(centre, (a, b), turn_deg, start_rad, rng.randrange(2), 1 if at_a_vertex else 5)


def svg_of(shape: Shape, frame_px: int = 90) -> str:
    return write_svg([shape], PALETTE, frame_px, frame_px, title="")


def element_of(svg: str) -> tuple[str, dict[str, str]]:
    """The one element that is drawn, and its attributes in their order."""
    found: list[tuple[str, dict[str, str]]] = []
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda name, values: found.append((name, values))
    parser.Parse(svg, True)
    return found[-1]


def off_px(element: tuple[str, dict[str, str]], x: F64, y: F64) -> F64:
    """How far outside the element each spot lies, to first order."""
    kind, values = element
    rx, ry = (float(values[name]) for name in (("r", "r") if kind == "circle" else ("rx", "ry")))
    turned = re.match(r"rotate\((\S+) ", values.get("transform", ""))
    angle = math.radians(float(turned[1])) if turned else 0.0
    dx, dy = x - float(values["cx"]), y - float(values["cy"])
    u, w = dx * math.cos(angle) + dy * math.sin(angle), dy * math.cos(angle) - dx * math.sin(angle)
    level = np.hypot(u / rx, w / ry)
    return (level - 1) * level / np.hypot(u / rx**2, w / ry**2)


@pytest.mark.parametrize("kind", ["circle", "upright", "turned"])
def test_the_element_lies_on_its_arcs(kind: str) -> None:
    rng = random.Random(kind)
    for _ in range(300):
        radius_px = rng.choice([0.5, 3, 40, 900])
        shape = random_halves(rng, kind, radius_px, 100, at_a_vertex=False)
        element = element_of(svg_of(shape))
        assert element[0] == ("circle" if kind == "circle" else "ellipse")
        _, spots = without_arcs(shape.commands, shape.points)
        on_outline = spots[::3] / 100  # the ends of the cubics
        assert len(on_outline) >= 5
        assert np.abs(off_px(element, on_outline[:, 0], on_outline[:, 1])).max() < 0.001


def by_librsvg(svg: str) -> U8:
    return np.asarray(pyvips.Image.svgload_buffer(svg.encode(), scale=ZOOM).numpy())[..., 3]


def by_resvg(svg: str) -> U8:
    data = importlib.import_module("resvg_py").svg_to_bytes(svg_string=svg, zoom=ZOOM)
    return np.asarray(Image.open(io.BytesIO(bytes(data))).convert("RGBA"))[..., 3]


@pytest.fixture(params=[by_librsvg, by_resvg], ids=["librsvg", "resvg"])
def coverage(request: pytest.FixtureRequest) -> Callable[[str], F64]:
    """A renderer: an SVG's alpha at `ZOOM`, 0 to 255."""
    if request.param is by_resvg:
        pytest.importorskip("resvg_py", reason="resvg_py is not installed (it is no dependency of Livery)")
    render: Callable[[str], U8] = request.param
    return lambda svg: render(svg).astype(np.float64)


def as_path(shape: Shape, svg: str) -> str:
    made, count = re.subn(r"<(?:circle|ellipse) [^>]*>", f'<path d="{path_data(shape)}"/>', svg)
    assert count == 1
    return made


@pytest.mark.parametrize("kind", ["circle", "upright", "turned"])
def test_it_is_rendered_as_its_path(kind: str, coverage: Callable[[str], F64]) -> None:
    """Where path and element begin at one vertex, renderers cut both into the same curves."""
    rng = random.Random(kind)
    edges = differ = 0
    for radius_px in (1, 2, 4, 8, 16, 30) * 3:
        shape = random_halves(rng, kind, radius_px, 70, at_a_vertex=True)
        svg = svg_of(shape, 70)
        ours, path = coverage(svg), coverage(as_path(shape, svg))
        edges += int(((path > 0) & (path < 255)).sum())
        differ += int((np.abs(ours - path) > 1).sum())
        assert np.abs(ours - path).max() <= 64
    assert differ < 0.06 * edges


def truth_of(element: tuple[str, dict[str, str]], frame_px: int) -> F64:
    """Each pixel's covered share at `ZOOM`, 0 to 255, by counting `FINE`² spots."""
    spots = (np.arange(frame_px * ZOOM * FINE) + 0.5) / (ZOOM * FINE)
    inside = off_px(element, spots[None, :], spots[:, None]) < 0
    covered: F64 = inside.reshape(frame_px * ZOOM, FINE, -1, FINE).mean(axis=(1, 3))
    return covered * 255


@pytest.mark.parametrize("kind", ["circle", "upright", "turned"])
def test_wherever_the_path_begins_the_element_is_as_true(kind: str, coverage: Callable[[str], F64]) -> None:
    """Renderers flatten the two at other spots, so pixels differ; neither may be further from the disc itself."""
    rng = random.Random(kind)
    errors, wider, edges = np.zeros(2), 0.0, 0
    for radius_px in (3, 9, 20):
        shape = random_halves(rng, kind, radius_px, 48, at_a_vertex=False)
        svg = svg_of(shape, 48)
        truth = truth_of(element_of(svg), 48)
        edge = (truth > 0) & (truth < 255)
        ours, path = coverage(svg), coverage(as_path(shape, svg))
        errors += [np.abs(ours - truth)[edge].mean(), np.abs(path - truth)[edge].mean()]
        wider, edges = wider + float((ours - path).sum()), edges + int(edge.sum())
    assert abs(wider / edges) < 3  # a radius 0.01 px off adds 8
    assert errors[0] < 1.15 * errors[1]


def points(*spots: tuple[int, int]) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    return np.array(spots, dtype=np.int32)


def oval(rx: int, ry: int, turn: int, dx: int, dy: int) -> Shape:
    arc = (rx, ry), (turn, 1)
    return Shape(0, "MAAZ", points((1000, 2000), *arc, (1000 + dx, 2000 + dy), *arc, (1000, 2000)))


WRITTEN = {
    "a circle": (oval(499, 499, 0, 1000, 0), '<circle cx="15" cy="20" r="5"/>'),
    "radii that just fit": (oval(500, 500, 0, 1000, 0), '<circle cx="15" cy="20" r="5"/>'),
    "a turn that turns nothing": (oval(499, 499, 3000, 1000, 0), '<circle cx="15" cy="20" r="5"/>'),
    "half a step": (oval(49, 49, 0, 101, 1), '<circle cx="10.505" cy="20.005" r=".505"/>'),
    "an oblique chord": (oval(70, 70, 0, 100, 100), '<circle cx="10.5" cy="20.5" r=".707"/>'),
    "left of the frame": (oval(1000, 1000, 0, -2030, 0), '<circle cx="-.15" cy="20" r="10.15"/>'),
    "an ellipse": (oval(1000, 400, 0, 2000, 0), '<ellipse cx="20" cy="20" rx="10" ry="4"/>'),
    "enlarged in proportion": (oval(500, 200, 0, 2000, 0), '<ellipse cx="20" cy="20" rx="10" ry="4"/>'),
    "a quarter turn": (oval(1000, 400, 9000, 0, 2000), '<ellipse cx="10" cy="30" rx="4" ry="10"/>'),
    "half a turn": (oval(1000, 400, -18000, 2000, 0), '<ellipse cx="20" cy="20" rx="10" ry="4"/>'),
    "turned": (
        oval(1000, 400, 3000, 1733, 1000),
        '<ellipse cx="18.665" cy="25" rx="10.004" ry="4.002" transform="rotate(30 18.665 25)"/>',
    ),
    "turned by more than an eighth": (
        oval(1000, 400, 12025, -1008, 1728),
        '<ellipse cx="4.96" cy="28.64" rx="4.001" ry="10.003" transform="rotate(30.25 4.96 28.64)"/>',
    ),
}


@pytest.mark.parametrize(("shape", "written"), WRITTEN.values(), ids=WRITTEN)
def test_a_circle_and_an_ellipse_are_written_with_the_fewest_digits(shape: Shape, written: str) -> None:
    svg = svg_of(shape)
    assert svg.splitlines()[3] == written
    audit_svg(svg, PALETTE)


LENSES = {
    "radii too large for the chord": oval(501, 501, 0, 1000, 0),
    "an ellipse too large for the chord": oval(1001, 400, 0, 2000, 0),
    "a chord that is long only across": oval(1000, 400, 9000, 700, 0),
    "no chord": oval(500, 500, 0, 0, 0),
    "no radius": oval(0, 0, 0, 1000, 0),
    "a flat ellipse": oval(500, 0, 0, 1000, 0),
    "other radii": Shape(0, "MAAZ", points((0, 0), (499, 499), (0, 1), (1000, 0), (500, 500), (0, 1), (0, 0))),
    "another turn": Shape(0, "MAAZ", points((0, 0), (499, 300), (0, 1), (1000, 0), (499, 300), (10, 1), (0, 0))),
    "back on the same side": Shape(
        0, "MAAZ", points((0, 0), (499, 499), (0, 1), (1000, 0), (499, 499), (0, 0), (0, 0))
    ),
    "an end elsewhere": Shape(0, "MAAZ", points((0, 0), (499, 499), (0, 1), (1000, 0), (499, 499), (0, 1), (0, 1))),
    "more than one outline": Shape(
        0, "MAAZMLLZ", points((0, 0), *(((9, 9), (0, 1), (20, 0), (9, 9), (0, 1), (0, 0))), (0, 0), (5, 0), (5, 5))
    ),
}


@pytest.mark.parametrize("shape", LENSES.values(), ids=LENSES)
def test_what_is_no_whole_circle_stays_a_path(shape: Shape) -> None:
    svg = svg_of(shape)
    assert element_of(svg) == ("path", {"d": path_data(shape)})
    audit_svg(svg, PALETTE)


def test_the_certificate_stands_behind_the_title() -> None:
    svg = write_svg([], PALETTE, 9, 9, title="t", certificate=CERTIFICATE)
    assert svg.splitlines()[1:] == [
        "<title>t</title>",
        '<metadata><livery:certificate xmlns:livery="urn:livery:certificate:1" tolerance_px=".8" agreement_pct="99.31"'
        ' nodes="3120" paths="23" circles="3" ellipses="2" arcs="4" lines="7"/></metadata>',
        "</svg>",
    ]
    audit_svg(svg, PALETTE)


@pytest.mark.parametrize(
    ("agreement_pct", "written"),
    [(100.0, "100.00"), (99.999999, "99.99"), (64.1, "64.10"), (8.29, "8.29"), (1e-7, "0.00"), (0.0, "0.00")],
)
def test_agreement_is_rounded_down(agreement_pct: float, written: str) -> None:
    svg = write_svg([], PALETTE, 9, 9, title="", certificate=Certificate(0.5, agreement_pct, 1, 1))
    assert f' agreement_pct="{written}" ' in svg
    audit_svg(svg, PALETTE)


def test_the_certificate_states_the_narrowest_place_only_where_it_was_asked_for() -> None:
    stated = Certificate(1.25, 99.0, 1, 1, min_feature_px=5.90551)
    svg = write_svg([], PALETTE, 9, 9, title="", certificate=stated)
    assert ' tolerance_px="1.25" ' in svg
    assert svg.splitlines()[2].endswith(' paths="1" min_feature_px="5.906"/></metadata>')
    audit_svg(svg, PALETTE)
    assert "min_feature" not in write_svg([], PALETTE, 9, 9, title="", certificate=CERTIFICATE)
    assert "metadata" not in write_svg([], PALETTE, 9, 9, title="")


def test_a_renderer_does_not_mind_the_certificate(coverage: Callable[[str], F64]) -> None:
    shape = oval(499, 499, 0, 1000, 0)
    plain = svg_of(shape)
    stated = write_svg([shape], PALETTE, 90, 90, title="", certificate=CERTIFICATE)
    assert (coverage(stated) == coverage(plain)).all()
    assert coverage(plain).max() == 255


def test_layers_of_the_tracer_are_written_in_its_order() -> None:
    """Each ink's shapes follow one another, so nothing is regrouped."""
    shapes = [Shape(ink, "MLLZ", points((0, 0), (100 * at, 0), (0, 100))) for at, ink in enumerate((2, 2, 0, 1, 1), 1)]
    svg = write_svg(shapes, PALETTE, 9, 9, title="")
    assert re.findall(r'fill="([^"]*)"', svg) == ["#C8262B", "#000000", "#FFFFFF"]
    assert re.findall(r' d="([^"]*)"', svg) == [path_data(shape) for shape in shapes]


def test_a_drawn_wheel_is_a_circle_and_its_certificate_is_the_drawing_s() -> None:
    y, x = np.mgrid[:120, :160] + 0.5
    index = (np.hypot(x - 61.3, y - 58.8) < 30.4).astype(np.uint8)
    index[((x - 125) / 9) ** 2 + ((y - 60) / 26) ** 2 < 1] = 2
    drawing = vectorize(IndexMap(index, PALETTE), VectorizeOptions(min_feature_px=2, deadline_s=300))
    audit = audit_svg(drawing.svg, PALETTE)
    assert audit.paints == {ink: use.paths for ink, use in drawing.uses.items()}
    ((cx, cy, r),) = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="([\d.]+)"/>', drawing.svg)
    assert np.abs(np.array([cx, cy, r], dtype=float) - (61.3, 58.8, 30.4)).max() < 0.05
    assert drawing.svg.count("<ellipse ") == 1
    stated = drawing.certificate
    assert stated is not None
    metadata = drawing.svg.splitlines()[2]
    for name, value in (("nodes", stated.nodes), ("paths", len(drawing.tracing.shapes)), ("min_feature_px", 2)):
        assert f' {name}="{value}"' in metadata
    for name, count in stated.primitives.items():
        assert f' {name}="{count}"' in metadata
    vtracer = vectorize(IndexMap(index, PALETTE), VectorizeOptions(tracer="vtracer"))
    assert "metadata" not in vtracer.svg
