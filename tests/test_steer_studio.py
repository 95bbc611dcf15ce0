"""Phase 2 of the studio engine: sizes, conditions, retries; the models are a painter that copies a drawn scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.requests import BoxF, Check, Detection, PaintRequest, Tell, unchecked
from pipeline.buckets import bucket_sizes, fit_canvas
from pipeline.canny import canny_edges
from pipeline.errors import Cancelled, InternalError, ShapeDrift
from pipeline.modes import PaintOptions, paint_options
from pipeline.paint import Painted, attempt_seed, paint_vehicle
from pipeline.schema import MAX_SEED, Style
from pipeline.steer import SteerOptions, ink_ready
from pipeline.types import U8, CleanPlate, Ink, Mask, Palette, Vehicle

NATIVE_PX = 256
STEPS = 4
VAN_RGB = (200, 40, 40)
PALETTE = Palette(tuple(Ink(hex_, hex_) for hex_ in ("#101010", "#C02020", "#20A040", "#E0D0A0")))


def scene(width_px: int = 300, height_px: int = 200) -> tuple[CleanPlate, Vehicle]:
    """A red van on a road of grey waves."""
    y, x = np.mgrid[:height_px, :width_px]
    rgb = np.repeat((90 + 30 * np.sin(x / 17 + y / 5))[..., None], 3, axis=2).astype(np.uint8)
    x0, y0, x1, y1 = width_px // 5, height_px // 3, width_px * 4 // 5, height_px * 4 // 5
    mask = np.zeros((height_px, width_px), bool)
    mask[y0:y1, x0:x1] = True
    rgb[mask] = VAN_RGB
    return CleanPlate(rgb), Vehicle(mask, (float(x0), float(y0), float(x1), float(y1)), 0.9, "auto")


def red(rgb: U8) -> Mask:
    found: Mask = (rgb[..., 0].astype(int) - rgb[..., 1]) > 60
    return found


@dataclass
class Copyist:
    """Models that see what is red, and paint the van they were told of moved by `shifts_px`, one for each attempt."""

    canvas_rgb: U8 | None = None
    shifts_px: Sequence[int] = (0,)
    depth_map: U8 | None = None
    styled: bool = True
    reads: int = 10_000
    requests: list[PaintRequest] = field(default_factory=list)

    def detect(
        self, rgb: U8, phrases: Sequence[str], box_threshold: float, text_threshold: float
    ) -> tuple[Detection, ...]:
        mask = red(rgb)
        if not mask.any():
            return ()
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
        return (Detection("van", box, 0.9),)

    def segment(self, rgb: U8, boxes: Sequence[BoxF]) -> tuple[Mask, ...]:
        return tuple(red(rgb) for _ in boxes)

    def segment_at(self, rgb: U8, point: tuple[float, float]) -> Mask:
        return red(rgb)

    def native_px(self) -> int:
        return NATIVE_PX

    def has_style(self) -> bool:
        return self.styled

    def unread(self, prompt: str) -> str:
        return prompt[self.reads :]

    def depth(self, rgb: U8) -> U8:
        self.canvas_rgb = rgb
        if self.depth_map is not None:
            rows, columns = (np.arange(side) * 8 // side for side in rgb.shape[:2])
            return np.asarray(self.depth_map[np.ix_(rows, columns)], np.uint8)
        ramp = np.linspace(0, 255, rgb.shape[0]).astype(np.uint8)
        return np.repeat(ramp[:, None], rgb.shape[1], axis=1)

    def paint(self, request: PaintRequest, check: Check, tell: Tell) -> U8:
        check()
        for step in range(STEPS):
            tell(f"step {step + 1} of {STEPS}", step / STEPS)
        assert self.canvas_rgb is not None
        shift_px = self.shifts_px[min(len(self.requests), len(self.shifts_px) - 1)]
        self.requests.append(request)
        return np.roll(self.canvas_rgb, shift_px, axis=1)


def options(mode: Literal["fast", "faithful"] = "faithful", **style: object) -> PaintOptions:
    return paint_options(mode, Style.model_validate(style), seed=7)


def test_the_buckets_are_sdxl_s_own() -> None:
    sizes = set(bucket_sizes(1024))
    published = {(512, 2048), (512, 1856), (576, 1664), (640, 1536), (704, 1344), (768, 1344), (832, 1216), (896, 1152)}
    assert published <= sizes
    assert {(h, w) for w, h in sizes} == sizes
    assert not {(1024, 1088), (832, 1088), (512, 1792), (448, 2048)} & sizes


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([128, 256, 1024]))
@settings(max_examples=300, deadline=None)
def test_a_photo_lies_whole_on_its_canvas_in_its_own_aspect(width_px: int, height_px: int, native_px: int) -> None:
    canvas = fit_canvas(width_px, height_px, native_px)
    assert canvas.width_px % 64 == canvas.height_px % 64 == 0
    assert canvas.width_px * canvas.height_px <= native_px**2
    assert min(canvas.left_px, canvas.top_px) >= 0
    assert canvas.left_px + canvas.inner_width_px <= canvas.width_px
    assert canvas.top_px + canvas.inner_height_px <= canvas.height_px
    full_width = abs(canvas.inner_height_px - max(canvas.width_px * height_px / width_px, 1)) <= 0.5
    full_height = abs(canvas.inner_width_px - max(canvas.height_px * width_px / height_px, 1)) <= 0.5
    assert (canvas.inner_width_px == canvas.width_px and full_width) or (
        canvas.inner_height_px == canvas.height_px and full_height
    )


@pytest.mark.parametrize("aspect", [1, 1.25, 4 / 3, 1.5, 16 / 9, 2, 2.39, 3, 1 / 1.5, 9 / 16])
def test_little_of_the_canvas_is_lost(aspect: float) -> None:
    canvas = fit_canvas(round(3000 * aspect), 3000, 1024)
    assert canvas.inner_width_px * canvas.inner_height_px > 0.93 * 1024**2


def test_what_is_laid_comes_back_and_the_rest_is_its_reflection() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    canvas = fit_canvas(300, 200, NATIVE_PX)
    laid = canvas.lay(rgb)
    assert laid.shape == (canvas.height_px, canvas.width_px, 3)
    inner = canvas.cut(laid)
    assert inner.shape == (canvas.inner_height_px, canvas.inner_width_px, 3)
    assert canvas.left_px > 2
    assert np.array_equal(laid[:, canvas.left_px - 2], laid[:, canvas.left_px + 1])
    thin = fit_canvas(4000, 3, NATIVE_PX).lay(np.zeros((3, 4000, 3), np.uint8))
    assert thin.shape == (128, 512, 3)


def test_edges_are_found_by_the_photo_s_own_measure() -> None:
    plate, vehicle = scene()
    edges = canny_edges(plate.rgb)
    assert edges.dtype == np.uint8
    assert set(np.unique(edges)) == {0, 255}
    outline = vehicle.mask ^ cv2.erode(vehicle.mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    for rgb in (plate.rgb, (plate.rgb // 3 + 80).astype(np.uint8)):
        near = cv2.dilate(canny_edges(rgb), np.ones((5, 5), np.uint8)) > 0
        assert near[outline].mean() > 0.98
    assert not canny_edges(np.full((64, 64, 3), 128, np.uint8)).any()
    noise = np.random.default_rng(0).normal(128, 4, (256, 256, 1)).astype(np.uint8).repeat(3, axis=2)
    assert (canny_edges(noise) > 0).mean() < 0.005


def test_the_modes_and_what_a_request_says_over_them() -> None:
    fast, faithful = options(mode="fast"), options(mode="faithful")
    assert (fast.steps, fast.guidance_scale, fast.canny_until) == (4, 0.0, 1.0)
    assert (faithful.steps, faithful.guidance_scale, faithful.canny_until) == (30, 7.5, 0.75)
    assert (faithful.depth_weight, faithful.canny_weight) == (0.6, 0.4)
    zero = options(
        mode="faithful", depth_weight=0, canny_weight=0, canny_until=0, guidance_scale=0, prompt="", lora_scale=0
    )
    assert (zero.depth_weight, zero.canny_weight, zero.canny_until, zero.guidance_scale) == (0, 0, 0, 0)
    assert (zero.prompt, zero.lora_scale) == ("", 0)
    every: dict[str, Any] = {
        "steps": 9,
        "prompt": "x",
        "negative_prompt": "y",
        "retries": 0,
        "allow_drift": True,
        "iou_threshold": 0.5,
    }
    assert options(**every).style() == Style(**{**faithful.style().model_dump(), **every})
    assert None not in options().style().model_dump().values()


def test_the_picture_has_the_photo_s_aspect_and_the_vehicle_in_its_place() -> None:
    plate, vehicle = scene()
    studio = Copyist()
    painted = paint_vehicle(plate, vehicle, options(), studio, unchecked)
    height_px, width_px = painted.rgb.shape[:2]
    assert abs(width_px / height_px - 1.5) < 0.01
    assert painted.iou is not None
    assert painted.iou > 0.97
    assert len(painted.attempts) == 1
    assert painted.warnings == ()
    assert (painted.subject == red(painted.rgb)).mean() > 0.99
    request = studio.requests[0]
    assert request.depth.shape == request.canny.shape
    assert all(side % 64 == 0 for side in request.depth.shape)
    assert (int(request.depth.min()), int(request.depth.max())) == (0, 255)
    assert (request.seed, request.mode, request.steps) == (7, "faithful", 30)


def test_an_outline_that_drifts_is_tried_again_with_more_hold_and_other_noise() -> None:
    plate, vehicle = scene()
    studio = Copyist(shifts_px=(60, 40, 0))
    painted = paint_vehicle(plate, vehicle, options(), studio, unchecked)
    assert [request.depth_weight for request in studio.requests] == [0.6, 0.7, 0.8]
    assert [request.canny_weight for request in studio.requests] == [0.4, 0.5, 0.6]
    assert len({request.seed for request in studio.requests}) == 3
    assert all(0 <= request.seed <= MAX_SEED for request in studio.requests)
    assert painted.iou == painted.attempts[2].iou
    assert painted.iou is not None
    assert painted.iou > 0.97
    again = Copyist(shifts_px=(60, 40, 0))
    paint_vehicle(plate, vehicle, options(), again, unchecked)
    assert [request.seed for request in again.requests] == [request.seed for request in studio.requests]


def test_no_attempt_is_made_once_the_outline_holds() -> None:
    plate, vehicle = scene()
    studio = Copyist(shifts_px=(60, 0, 0))
    paint_vehicle(plate, vehicle, options(), studio, unchecked)
    assert len(studio.requests) == 2


def test_drift_is_an_error_with_the_best_iou_or_the_best_attempt_with_a_warning() -> None:
    plate, vehicle = scene()
    with pytest.raises(ShapeDrift) as caught:
        paint_vehicle(plate, vehicle, options(), Copyist(shifts_px=(90, 40, 60)), unchecked)
    assert caught.value.field == "style.iou_threshold"
    assert 0.3 < caught.value.iou < 0.85
    painted = paint_vehicle(plate, vehicle, options(allow_drift=True), Copyist(shifts_px=(90, 40, 60)), unchecked)
    assert painted.iou == caught.value.iou == max(attempt.iou or 0 for attempt in painted.attempts)
    assert [warning.code for warning in painted.warnings] == ["retried", "shape_drift"]
    best = painted.attempts.index(max(painted.attempts, key=lambda attempt: attempt.iou or 0))
    assert best == 1
    with pytest.raises(ShapeDrift):
        paint_vehicle(plate, vehicle, options(retries=0), Copyist(shifts_px=(90, 0)), unchecked)


def test_an_attempt_other_than_the_first_that_is_taken_is_said_with_its_seed() -> None:
    plate, vehicle = scene()
    painted = paint_vehicle(plate, vehicle, options(), Copyist(shifts_px=(60, 0)), unchecked)
    (warning,) = painted.warnings
    taken = painted.attempts[1]
    assert taken.seed == attempt_seed(7, 1)
    assert (warning.code, warning.message) == (
        "retried",
        f"attempt 2 of 2 was taken: seed {taken.seed}, IoU of the silhouettes {taken.iou:.4f}",
    )
    worse = paint_vehicle(plate, vehicle, options(allow_drift=True), Copyist(shifts_px=(30, 60, 90)), unchecked)
    assert [warning.code for warning in worse.warnings] == ["shape_drift"], "the first was the best"


def test_the_share_that_is_done_grows_with_each_step_of_each_attempt() -> None:
    plate, vehicle = scene()
    told: list[tuple[str, float]] = []
    studio = Copyist(shifts_px=(60, 60, 0))
    paint_vehicle(plate, vehicle, options(), studio, unchecked, lambda *step: told.append(step))
    assert len(told) == 3 * STEPS
    shares = [share for _, share in told]
    assert shares == sorted(set(shares))
    assert shares[0] == 0
    assert shares[-1] < 1
    assert told[1][0] == "step 2 of 4"
    assert told[STEPS][0] == "attempt 2, step 1 of 4"


def test_thresholds_decide() -> None:
    plate, vehicle = scene()
    lenient = paint_vehicle(plate, vehicle, options(iou_threshold=0.0), Copyist(shifts_px=(90,)), unchecked)
    assert len(lenient.attempts) == 1
    assert lenient.warnings == ()
    with pytest.raises(ShapeDrift):
        paint_vehicle(plate, vehicle, options(iou_threshold=1.0), Copyist(shifts_px=(2,)), unchecked)


def test_a_picture_without_the_vehicle_is_a_drift() -> None:
    plate, vehicle = scene()
    grey = CleanPlate(np.repeat(plate.rgb[..., 1:2], 3, axis=2))
    with pytest.raises(ShapeDrift) as caught:
        paint_vehicle(grey, vehicle, options(), Copyist(), unchecked)
    assert caught.value.iou == 0.0


def test_the_vehicle_is_looked_for_where_it_was() -> None:
    plate, vehicle = scene()
    asked: list[BoxF] = []

    class Blind(Copyist):
        def detect(
            self, rgb: U8, phrases: Sequence[str], box_threshold: float, text_threshold: float
        ) -> tuple[Detection, ...]:
            return ()

        def segment(self, rgb: U8, boxes: Sequence[BoxF]) -> tuple[Mask, ...]:
            asked.extend(boxes)
            return super().segment(rgb, boxes)

    painted = paint_vehicle(plate, vehicle, options(), Blind(), unchecked)
    scale = painted.rgb.shape[1] / 300
    assert asked == [pytest.approx(tuple(side * scale for side in vehicle.box), abs=0.5)]
    assert painted.iou is not None
    assert painted.iou > 0.97


def test_a_weight_that_is_off_stays_off_and_none_grows_past_its_limit() -> None:
    plate, vehicle = scene()
    studio = Copyist(shifts_px=(60,))
    asked = options(depth_weight=0, canny_weight=1.95, allow_drift=True)
    paint_vehicle(plate, vehicle, asked, studio, unchecked)
    assert [request.depth_weight for request in studio.requests] == [0, 0, 0]
    assert [request.canny_weight for request in studio.requests] == [1.95, 2.0, 2.0]


def test_the_whole_picture_as_subject_has_no_outline_to_keep() -> None:
    plate, _ = scene()
    whole = Vehicle(np.ones(plate.rgb.shape[:2], bool), (0.0, 0.0, 300.0, 200.0), None, "whole")
    painted = paint_vehicle(plate, whole, options(), Copyist(shifts_px=(90,)), unchecked)
    assert painted.iou is None
    assert len(painted.attempts) == 1
    assert painted.subject.all()


def test_a_scene_without_depth_is_held_by_its_edges_and_says_so() -> None:
    plate, vehicle = scene()
    studio = Copyist(depth_map=np.full((8, 8), 128, np.uint8))
    painted = paint_vehicle(plate, vehicle, options(), studio, unchecked)
    assert studio.requests[0].depth_weight == 0
    assert [warning.code for warning in painted.warnings] == ["depth_flat"]


def test_depth_that_was_cast_instead_of_stretched_is_a_defect() -> None:
    plate, vehicle = scene()
    for cast in (np.eye(8, dtype=np.uint8), np.eye(8, dtype=np.uint8) * np.uint8(200)):
        with pytest.raises(InternalError):
            paint_vehicle(plate, vehicle, options(), Copyist(depth_map=cast), unchecked)


def test_what_changes_nothing_is_said() -> None:
    plate, vehicle = scene()

    def codes(asked: PaintOptions, studio: Copyist) -> list[str]:
        return [warning.code for warning in paint_vehicle(plate, vehicle, asked, studio, unchecked).warnings]

    assert codes(options(mode="fast", negative_prompt="x"), Copyist()) == ["negative_prompt_unused"]
    assert codes(options(mode="fast", negative_prompt="x", guidance_scale=2), Copyist()) == []
    assert codes(options(mode="fast"), Copyist()) == []
    assert codes(options(lora_scale=0.5), Copyist(styled=False)) == ["lora_scale_unused"]
    assert codes(options(lora_scale=0.5), Copyist()) == codes(options(), Copyist(styled=False)) == []
    assert codes(options(prompt="one two"), Copyist(reads=4)) == ["prompt_cut"]


def test_a_cancelled_job_paints_no_more() -> None:
    plate, vehicle = scene()
    studio = Copyist(shifts_px=(60,))

    def stop() -> None:
        if studio.requests:
            raise Cancelled("the job was cancelled")

    with pytest.raises(Cancelled):
        paint_vehicle(plate, vehicle, options(), studio, stop)
    assert len(studio.requests) == 1


def test_seeds_of_attempts_are_the_caller_s_and_then_others() -> None:
    for seed in (0, 42, MAX_SEED):
        seeds = [attempt_seed(seed, number) for number in range(6)]
        assert seeds[0] == seed
        assert len(set(seeds)) == 6
        assert all(0 <= each <= MAX_SEED for each in seeds)


def painted_scene() -> Painted:
    plate, vehicle = scene()
    return paint_vehicle(plate, vehicle, options(), Copyist(), unchecked)


def test_ink_ready_maps_tones_and_knows_the_vehicle() -> None:
    painted = painted_scene()
    plain = ink_ready(painted, PALETTE, SteerOptions(tone=0.0))
    assert np.array_equal(plain.rgb, painted.rgb)
    assert plain.lines is None
    toned = ink_ready(painted, PALETTE, SteerOptions(tone=1.0, line_work=0.8))
    assert not np.array_equal(toned.rgb, painted.rgb)
    assert toned.lines is not None
    assert np.array_equal(toned.subject == 255, painted.subject)
    assert set(np.unique(toned.subject)) == {0, 255}
    assert (toned.importance[painted.subject] == 255).all()
    assert toned.importance.min() == 0
    assert toned.subject_confidence == 1.0


def test_an_enlarged_picture_keeps_the_vehicle_s_place() -> None:
    painted = painted_scene()
    rgb = np.repeat(np.repeat(painted.rgb, 4, axis=0), 4, axis=1)
    larger = painted.enlarged(rgb)
    illustration = ink_ready(larger, PALETTE, SteerOptions())
    assert illustration.rgb.shape == rgb.shape
    assert illustration.subject.shape == illustration.importance.shape == rgb.shape[:2]
    assert (larger.subject == red(rgb)).mean() > 0.985
    assert larger.iou == painted.iou
