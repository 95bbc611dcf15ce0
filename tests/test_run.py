"""One job: the order, the report, the deadlines, the places in the photo, the dry run and the health."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pikepdf
import pytest
from ezdxf.bbox import extents
from ezdxf.filemanagement import read as read_dxf
from PIL import Image

import pipeline.run
from pipeline.errors import (
    Cancelled,
    DeadlineExceeded,
    InternalError,
    ModelMissing,
    OutOfMemory,
    PaletteError,
    SchemaError,
)
from pipeline.health import ping
from pipeline.request import parse_request
from pipeline.run import JobResult, dry_run, run
from pipeline.schema import Report
from pipeline.settings import Settings
from pipeline.steps import PERCENT, Progress
from pipeline.trace import livery
from pipeline.trace.features import hold_min_feature
from pipeline.types import UNPAINTED, Drawing, Phase
from pipeline.vectorize import vectorize
from pipeline.worker import Worker

FRAME_PX = 96
INKS = ["#14161A", "#C8262B", "#457B9D", "#7A838C", "#F2F4F5"]
SETTINGS = Settings()


def picture() -> bytes:
    """A red car-like block with wheels on grey ground under a blue sky, 192 × 128 px, PNG."""
    rgb = np.full((128, 192, 3), (69, 123, 157), np.uint8)
    rgb[84:] = (122, 131, 140)
    rgb[48:92, 40:152] = (200, 38, 43)
    rgb[54:66, 60:130] = (225, 229, 232)
    rgb[86:104, 56:76] = rgb[86:104, 116:136] = (20, 22, 26)
    encoded = io.BytesIO()
    Image.fromarray(rgb).save(encoded, "PNG")
    return encoded.getvalue()


PICTURE = picture()


def illustrate(request: dict[str, Any] | None = None, **options: Any) -> JobResult:
    job = parse_request({"palette": INKS, "output": {"png_widths": [64]}} | ({} if request is None else request))
    return run(job, Worker(options.pop("settings", SETTINGS)), data=PICTURE, frame_px=FRAME_PX, **options)


@pytest.fixture(scope="module")
def result() -> JobResult:
    return illustrate()


def without_timings(report: Report) -> dict[str, Any]:
    return report.model_dump(exclude={"timings_ms"})


def test_the_phases_run_in_order_and_the_progress_rises() -> None:
    told: list[Progress] = []
    illustrate(progress=told.append)
    assert [step.phase for step in told] == ["decode", "sanitize", "steer", "enforce", "vectorize", "export"]
    percents = [step.percent for step in told]
    assert percents == sorted(set(percents))
    assert percents[-1] < 100


def test_the_report_says_what_is_in_the_drawing(result: JobResult) -> None:
    report = result.report
    svg = result.drawing.svg.encode()
    assert report.input_sha256 == hashlib.sha256(PICTURE).hexdigest()
    assert report.output_sha256 == hashlib.sha256(svg).hexdigest()
    assert report.bytes == len(svg)
    assert report.size is not None
    assert (report.size.width, report.size.height) == (96, 64) == (result.index.width_px, result.index.height_px)
    assert [ink.hex for ink in report.palette] == INKS
    assert report.paths == result.drawing.paths == len(re.findall("<(?:path|circle|ellipse) ", result.drawing.svg))
    assert sum(ink.paths or 0 for ink in report.palette) == report.paths
    assert sum(ink.nodes or 0 for ink in report.palette) == report.nodes
    for ink in report.palette:
        share = np.mean(result.index.index == ink.index) * 100
        assert ink.coverage_pct == pytest.approx(share, abs=0.001)
        assert (ink.mean_delta_e is None) == (share == 0)
    assert report.subject is not None
    assert report.subject.source == "auto"
    assert report.options.palette == result.index.palette


def test_the_timings_cover_every_phase_that_ran(result: JobResult) -> None:
    timings = result.report.timings_ms
    assert timings.upload is None
    spent = [getattr(timings, phase) for phase in PERCENT if phase != "upload"]
    assert all(phase_ms is not None for phase_ms in spent)
    assert sum(spent) <= timings.total + 1


def test_the_same_job_gives_the_same_bytes_whatever_ran_between(result: JobResult) -> None:
    illustrate({"background": "remove", "detail": 1})
    again = illustrate()
    assert again.drawing.svg == result.drawing.svg
    assert again.pngs == result.pngs
    assert without_timings(again.report) == without_timings(result.report)


def test_200_random_palettes_reach_every_pixel_and_nothing_else_does() -> None:
    """Flat stripes of a palette's own inks: each is drawn in its ink, whatever the palette is."""
    rng = np.random.default_rng(17)
    cube = np.stack(np.meshgrid(*[(0, 85, 170, 255)] * 3), axis=-1).reshape(-1, 3)
    for _ in range(200):
        inks = (rng.permutation(cube)[: rng.integers(2, 9)] + rng.integers(-40, 41, 3)).clip(0, 255).astype(np.uint8)
        stripes = np.repeat(rng.permutation(len(inks)), 12)[None].repeat(48, axis=0)
        photo = io.BytesIO()
        Image.fromarray(inks[stripes]).save(photo, "PNG")
        hexes = [f"#{red:02X}{green:02X}{blue:02X}" for red, green, blue in inks.tolist()]
        request = {"engine": "draft", "palette": hexes, "tone": 0, "output": {"formats": ["svg"]}}
        made = run(parse_request(request), Worker(SETTINGS), data=photo.getvalue(), frame_px=max(stripes.shape))
        assert set(re.findall('fill="([^"]*)"', made.drawing.svg)) == set(hexes)
        assert (made.index.index == stripes).mean() > 0.95


def test_base64_and_bytes_are_the_same_photo(result: JobResult) -> None:
    job = parse_request(
        {"palette": INKS, "output": {"png_widths": [64]}, "image": base64.b64encode(PICTURE).decode("ascii")}
    )
    assert without_timings(run(job, Worker(SETTINGS), frame_px=FRAME_PX).report) == without_timings(result.report)
    with pytest.raises(SchemaError, match=r"^image: can't stand beside"):
        run(job, Worker(SETTINGS), data=PICTURE)


def test_a_job_without_a_photo_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"^image: is missing"):
        run(parse_request({}), Worker(SETTINGS))


def test_pngs_come_in_the_widths_asked_for_and_only_then(result: JobResult) -> None:
    assert [(png.width_px, png.height_px) for png in result.pngs] == [(64, 43)]
    wide = illustrate({"output": {"png_widths": [300, 30]}})
    sizes = [Image.open(io.BytesIO(png.data)).size for png in wide.pngs]
    assert sizes == [(300, 200), (30, 20)]
    assert illustrate({"output": {"formats": ["svg"]}}).pngs == ()


def density_dpi(png: bytes) -> float:
    density = Image.open(io.BytesIO(png)).info["dpi"]
    assert density[0] == density[1]
    return float(density[0])


def test_every_file_prints_at_one_width() -> None:
    made = illustrate({"output": {"formats": ["png", "pdf", "dxf"], "png_widths": [300, 60], "width_mm": 50.8}})
    assert [density_dpi(png.data) for png in made.pngs] == [pytest.approx(150, abs=0.02), pytest.approx(30, abs=0.02)]
    pdf, dxf = (file.data for file in made.files)
    assert [file.format for file in made.files] == ["pdf", "dxf"]
    with pikepdf.open(io.BytesIO(pdf)) as document:
        x0, _, x1, _ = (float(side) for side in document.pages[0].mediabox)
    assert x1 - x0 == pytest.approx(144, abs=0.02)
    assert extent_of(dxf) == pytest.approx((50.8, 50.8 * 64 / 96), abs=0.01)
    by_dots = illustrate({"output": {"png_widths": [300], "dpi": 150}})
    assert density_dpi(by_dots.pngs[0].data) == pytest.approx(150, abs=0.02)


def extent_of(dxf: bytes) -> tuple[float, float]:
    """Width and height of what a DXF of polylines draws."""
    document = read_dxf(io.StringIO(dxf.decode("ascii")))
    box = extents(document.modelspace())
    return float(box.size.x), float(box.size.y)


def test_without_a_physical_size_a_pixel_is_a_css_pixel() -> None:
    made = illustrate({"output": {"formats": ["dxf"]}})
    assert extent_of(made.files[0].data) == pytest.approx((25.4, 25.4 * 64 / 96), abs=0.01)


def test_separations_are_one_file_for_each_ink_that_is_used() -> None:
    made = illustrate({"output": {"preset": "screenprint", "width_mm": 60, "formats": ["separations"]}})
    used = [ink.index for ink in made.report.palette if ink.paths]
    assert [(file.format, file.ink) for file in made.files] == [("separations", ink) for ink in used]
    output = made.report.options.output
    assert (output.preset, output.trap_mm, output.registration_marks) == ("screenprint", 0.3, True)
    assert made.pngs == ()
    plates = {"formats": ["separations"], "width_mm": 60}
    assert illustrate({"output": plates}).files != illustrate({"output": plates | {"tolerance_px": 0.5}}).files


def test_the_certificate_is_measured(result: JobResult) -> None:
    stated = result.report.certificate
    assert stated is not None
    assert (stated.tolerance_px, stated.nodes, stated.paths) == (0.8, result.report.nodes, result.report.paths)
    assert 95 < stated.agreement_pct <= 100
    assert (stated.min_feature_px, stated.min_feature_mm) == (None, None)
    exact = illustrate({"output": {"formats": ["svg"], "tolerance_px": 0.5}}).report.certificate
    assert exact is not None
    assert exact.agreement_pct == 100
    coarse = illustrate({"output": {"formats": ["svg"], "tolerance_px": 5, "min_feature_mm": 6, "width_mm": 96}})
    assert coarse.report.certificate is not None
    assert (coarse.report.certificate.tolerance_px, coarse.report.certificate.min_feature_px) == (5, 6)
    assert illustrate({"output": {"formats": ["svg"], "tracer": "vtracer"}}).report.certificate is None


def test_a_minimum_feature_is_held_said_and_certified() -> None:
    held = illustrate({"output": {"formats": ["svg"], "width_mm": 96, "min_feature_mm": 6}})
    assert held.report.certificate is not None
    assert held.report.certificate.min_feature_mm == 6
    assert held.report.certificate.min_feature_px == 6
    # The map holds twice the tolerance more, which fitting may take back.
    assert hold_min_feature(held.index, 7.6)[1].merged_px == 0
    assert "min_feature_held" in [warning.code for warning in held.report.warnings]
    assert sum(ink.coverage_pct or 0 for ink in held.report.palette) == pytest.approx(100, abs=0.01)
    with pytest.raises(SchemaError, match=r"^output.min_feature_mm: leaves no room in a piece 96 mm wide$"):
        illustrate({"output": {"width_mm": 96, "min_feature_mm": 50}})


def test_a_removed_background_leaves_pixels_unpainted() -> None:
    removed = illustrate({"background": "remove"})
    assert (removed.index.index == UNPAINTED).any()
    assert sum(ink.coverage_pct or 0 for ink in removed.report.palette) < 100


def test_an_extracted_palette_is_exact_and_reported() -> None:
    extracted = illustrate({"palette": {"extract": 4}})
    hexes = {ink.hex for ink in extracted.report.palette}
    assert len(hexes) == 4
    assert all(f'fill="{ink.hex}"' in extracted.drawing.svg for ink in extracted.report.palette if ink.coverage_pct)


def test_a_photo_with_too_few_colours_to_extract_is_refused() -> None:
    encoded = io.BytesIO()
    Image.new("RGB", (64, 48), (90, 90, 90)).save(encoded, "PNG")
    with pytest.raises(PaletteError, match=r"^palette"):
        run(parse_request({"palette": {"extract": 4}}), Worker(SETTINGS), data=encoded.getvalue(), frame_px=64)


@pytest.mark.parametrize("phase", [phase for phase in PERCENT if phase != "upload"])
def test_a_phase_past_its_time_fails_the_job_by_its_name(phase: Phase) -> None:
    hasty = Settings.model_validate({f"deadline_{phase}_s": 1e-9})
    with pytest.raises(DeadlineExceeded) as caught:
        illustrate(settings=hasty)
    assert caught.value.phase == phase
    assert caught.value.retryable


def test_a_cancelled_job_stops_before_its_next_phase() -> None:
    for last in range(3):
        told: list[Progress] = []
        with pytest.raises(Cancelled):
            illustrate(progress=told.append, cancelled=lambda told=told, last=last: len(told) > last)  # type: ignore[misc]
        assert len(told) == last + 1


def test_out_of_memory_in_a_phase_is_typed_and_the_next_job_runs(
    monkeypatch: pytest.MonkeyPatch, result: JobResult
) -> None:
    def starve(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.run, "enforce", starve)
        with pytest.raises(OutOfMemory, match=r"in enforce$"):
            illustrate()
    assert illustrate().drawing.svg == result.drawing.svg


def test_a_drawing_that_leaves_the_palette_is_a_failed_job(monkeypatch: pytest.MonkeyPatch) -> None:
    def stray(*args: Any, **options: Any) -> Drawing:
        drawing = vectorize(*args, **options)
        return dataclasses.replace(drawing, svg=drawing.svg.replace(INKS[1], "#C8262C"))

    monkeypatch.setattr(pipeline.run, "vectorize", stray)
    with pytest.raises(InternalError):
        illustrate()


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"sanitize": {"regions": [[0, 0, 9, 9], [192, 0, 200, 9]]}}, "sanitize.regions[1]"),
        ({"sanitize": {"regions": [[-9, 0, 0, 9]]}}, "sanitize.regions[0]"),
        ({"sanitize": {"protect": [[0, 128, 9, 130]]}}, "sanitize.protect[0]"),
        ({"subject": {"box": [0, -5, 9, 0]}}, "subject.box"),
        ({"subject": {"point": [192, 5]}}, "subject.point"),
        ({"subject": {"point": [5, -0.5]}}, "subject.point"),
    ],
)
def test_a_place_outside_the_photo_is_refused_by_its_field(request_: dict[str, Any], field: str) -> None:
    with pytest.raises(SchemaError, match="outside the photo, which is 192 × 128 px") as caught:
        illustrate(request_)
    assert caught.value.field == field


def test_a_box_partly_outside_is_cut_with_a_warning() -> None:
    cut = illustrate({"sanitize": {"regions": [[-10, -10, 40, 20]]}})
    assert [w.message for w in cut.report.warnings if w.code == "box_clipped"] == [
        "sanitize.regions[0] was cut to the photo, which is 192 × 128 px"
    ]
    assert (
        without_timings(illustrate({"sanitize": {"regions": [[0, 0, 40, 20]]}}).report)["removed"]
        == (without_timings(cut.report)["removed"])
    )
    assert len(cut.report.removed) == 1


def test_a_subject_box_is_reported_where_it_was_asked_for() -> None:
    report = illustrate({"subject": {"box": [40, 48, 152, 104]}}).report
    assert report.subject is not None
    assert report.subject.source == "box"
    assert report.subject.box is not None
    x0, y0, x1, y1 = report.subject.box
    assert 20 <= x0 < x1 <= 172
    assert 28 <= y0 < y1 <= 124


def test_auto_says_why_it_took_the_draft_engine(result: JobResult) -> None:
    def reasons(report: Report) -> list[str]:
        return [warning.message for warning in report.warnings if warning.code == "engine_auto"]

    assert reasons(illustrate({"engine": "draft"}).report) == []
    assert reasons(result.report) == ["auto took the draft engine: this worker has no model volume"]
    assert reasons(illustrate(settings=Settings(auto_engine="draft")).report) == [
        "auto took the draft engine, as this worker is set to"
    ]


@pytest.mark.parametrize(("engine", "auto_engine"), [("studio", "auto"), ("studio", "draft"), ("auto", "studio")])
def test_studio_without_its_models_is_never_a_draft(engine: str, auto_engine: str) -> None:
    settings = Settings.model_validate({"auto_engine": auto_engine})
    with pytest.raises(ModelMissing) as caught:
        illustrate({"engine": engine}, settings=settings)
    assert caught.value.field == "engine"
    with pytest.raises(ModelMissing):
        dry_run(parse_request({"engine": engine}), Worker(settings))


def test_a_seed_that_changes_nothing_is_said() -> None:
    report = illustrate({"seed": 0}).report
    assert report.seed == 0
    assert "seed_unused" in [warning.code for warning in report.warnings]


def test_the_cost_needs_a_price(result: JobResult) -> None:
    assert result.report.cost_estimate_usd is None
    report = illustrate(settings=Settings(price_usd_per_s=1000)).report
    assert report.cost_estimate_usd == pytest.approx(report.timings_ms.total, rel=0.2)


def test_a_dry_run_needs_no_photo_and_bounds_the_cost() -> None:
    settings = Settings(price_usd_per_s=0.001, deadline_decode_s=1, deadline_steer_s=2)
    reply = dry_run(parse_request({"palette": INKS}), Worker(settings))
    rest_s = sum(settings.deadline_s(phase, "draft") for phase in PERCENT if phase not in ("decode", "steer"))
    assert reply.estimate.seconds_at_most == rest_s + 3
    assert reply.estimate.cost_usd_at_most == pytest.approx((rest_s + 3) / 1000)
    assert [ink.hex for ink in reply.report.palette] == INKS
    assert (reply.report.size, reply.report.input_sha256, reply.report.output_sha256) == (None, None, None)
    assert dry_run(parse_request({}), Worker(SETTINGS)).estimate.cost_usd_at_most is None


def test_a_dry_run_checks_the_photo_and_agrees_with_the_run() -> None:
    job = parse_request({"palette": {"extract": 3}, "output": {"png_widths": [64]}, "subject": {"point": [90, 70]}})
    dry = dry_run(job, Worker(SETTINGS), data=PICTURE, frame_px=FRAME_PX).report
    wet = run(job, Worker(SETTINGS), data=PICTURE, frame_px=FRAME_PX).report
    assert [ink.hex for ink in dry.palette] == [ink.hex for ink in wet.palette]
    assert (dry.engine, dry.options, dry.size, dry.input_sha256) == (
        wet.engine,
        wet.options,
        wet.size,
        wet.input_sha256,
    )
    assert dry.paths is None
    with pytest.raises(SchemaError, match=r"^subject.point"):
        dry_run(parse_request({"subject": {"point": [900, 70]}}), Worker(SETTINGS), data=PICTURE)


def test_ping_is_ready_where_the_draft_engine_draws() -> None:
    health = ping(Worker(SETTINGS))
    assert (health.status, health.auto, health.volume, health.gpu) == ("ready", "draft", "unset", None)
    assert health.engines["draft"].ready
    assert health.engines["draft"].self_check_ms is not None
    assert not health.engines["studio"].ready
    assert health.versions["python"] == ".".join(str(part) for part in sys.version_info[:3])
    assert health.versions["numpy"] == np.__version__


def test_ping_reflects_a_broken_tracer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("nowhere")

    monkeypatch.setattr(livery, "trace", fail)
    health = ping(Worker(SETTINGS))
    assert (health.status, health.auto) == ("failing", None)
    assert not health.engines["draft"].ready
    assert "nowhere" not in health.model_dump_json()


def test_ping_reflects_a_worker_that_can_serve_no_auto_job() -> None:
    health = ping(Worker(Settings(auto_engine="studio")))
    assert (health.status, health.auto) == ("failing", None)
    assert health.engines["draft"].ready


def test_ping_tells_the_volumes_state_but_not_its_place(tmp_path: Path) -> None:
    assert ping(Worker(Settings(volume=tmp_path))).volume == "present"
    (tmp_path / "file").touch()
    assert ping(Worker(Settings(volume=tmp_path / "file"))).volume == "missing"
    gone = ping(Worker(Settings(volume=tmp_path / "gone")))
    assert gone.volume == "missing"
    assert str(tmp_path) not in gone.model_dump_json()
