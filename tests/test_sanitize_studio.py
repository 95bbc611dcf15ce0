"""Phase 1 of the studio engine: what is taken off, what stays, what is reported, what is refused, what fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from models.requests import BoxF, Detection
from pipeline.errors import Cancelled, LiveryError, ModelCorrupt, NoSubject, OutOfMemory, SchemaError
from pipeline.sanitize import GROWTH, LEAST_GROWTH_PX, SanitizeOptions, sanitize_studio
from pipeline.schema import Sanitize
from pipeline.subject import SubjectPrior
from pipeline.things import MOST_THINGS, PHRASES, Thing, merged
from pipeline.types import U8, CleanPlate, Mask, Photo
from pipeline.vehicle import bounds
from tests.finder import (
    BODY,
    CAR,
    FAR_MIRROR,
    GROUND,
    HEIGHT_PX,
    LOGO,
    MIRROR,
    PLATE,
    SIGN,
    STREET,
    TEXT,
    THINGS,
    WIDTH_PX,
    Drawn,
    StreetModels,
    nothing_to_check,
    photo_of,
    street,
)

OPEN = SanitizeOptions(max_subject_share=1.0)
GROWTH_PX = max(LEAST_GROWTH_PX, round(GROWTH * WIDTH_PX))


def clean(
    options: SanitizeOptions = OPEN,
    models: StreetModels | None = None,
    prior: SubjectPrior | None = None,
    photo: Photo | None = None,
    check: Callable[[], None] = nothing_to_check,
) -> CleanPlate:
    return sanitize_studio(
        photo_of(street()) if photo is None else photo,
        options,
        SubjectPrior() if prior is None else prior,
        StreetModels() if models is None else models,
        check,
    )


def colours(rgb: U8) -> set[tuple[int, ...]]:
    return {tuple(int(v) for v in colour) for colour in np.unique(rgb.reshape(-1, 3), axis=0)}


def grown(box: Sequence[float], by_px: int = GROWTH_PX) -> tuple[slice, slice]:
    x0, y0, x1, y1 = (int(v) for v in box)
    return slice(max(y0 - by_px, 0), y1 + by_px), slice(max(x0 - by_px, 0), x1 + by_px)


def test_everything_asked_for_is_gone_and_nothing_else_is_touched() -> None:
    before = street()
    plate = clean()
    assert not colours(plate.rgb) & {MIRROR, LOGO, PLATE, TEXT, SIGN}
    touched = np.zeros(before.shape[:2], bool)
    for thing in THINGS[:-1]:
        touched[grown(thing.box)] = True
    assert np.array_equal(plate.rgb[~touched], before[~touched])
    assert plate.warnings == ()


def test_each_thing_is_reported_once_by_its_best_name() -> None:
    scale = 3
    plate = clean(photo=photo_of(street(), scale))
    told = {(removed.kind, removed.score): removed for removed in plate.removed}
    # The logo was found as a badge too, and surer; the text on the plate went with the plate.
    assert set(told) == {("mirror", 0.8), ("badge", 0.7), ("plate", 0.9), ("text", 0.5)}
    for kind, thing in (("mirror", THINGS[0]), ("badge", THINGS[1]), ("plate", THINGS[2]), ("text", THINGS[4])):
        (removed,) = [r for r in plate.removed if r.kind == kind]
        x0, y0, x1, y1 = thing.box
        assert removed.box == tuple(scale * v for v in thing.box)
        assert removed.area_px == scale**2 * (x1 - x0) * (y1 - y0)
    assert [r.score for r in plate.removed] == sorted((r.score for r in plate.removed), key=lambda s: -(s or 0))


def test_mirrors_of_other_vehicles_stay() -> None:
    plate = clean()
    assert FAR_MIRROR in colours(plate.rgb)
    van = clean(prior=SubjectPrior("box", (4, 20, 54, 60)))
    assert FAR_MIRROR not in colours(van.rgb)
    assert MIRROR in colours(van.rgb)
    whole = clean(prior=SubjectPrior("whole"))
    assert not {MIRROR, FAR_MIRROR} & colours(whole.rgb)


def test_a_thing_s_soft_edge_goes_with_it() -> None:
    soft = street()
    x0, y0, x1, y1 = THINGS[1].box
    soft[y0 - 1 : y1 + 1, x0 - 1 : x1 + 1] = (220, 150, 140)
    soft[y0:y1, x0:x1] = LOGO
    plate = clean(photo=photo_of(soft))
    assert (220, 150, 140) not in colours(plate.rgb)


@pytest.mark.parametrize("long_side_px", [320, 1280, 3200])
def test_the_edge_that_goes_with_a_thing_grows_with_the_picture(long_side_px: int) -> None:
    times = long_side_px // WIDTH_PX
    drawn = tuple(replace(thing, box=tuple(times * v for v in thing.box)) for thing in STREET)  # type: ignore[arg-type]
    large = street().repeat(times, axis=0).repeat(times, axis=1)
    models = StreetModels(drawn)
    clean(OPEN_BADGES, models, photo=photo_of(large))
    (holes,) = [call[1] for call in models.asked if call[0] == "inpaint"]
    x0, y0, x1, y1 = (times * v for v in THINGS[1].box)
    reach = max(LEAST_GROWTH_PX, round(GROWTH * long_side_px))
    corners = 4 * reach * reach * (1 - np.pi / 4)
    expected = (x1 - x0 + 2 * reach) * (y1 - y0 + 2 * reach) - corners
    assert holes == pytest.approx(expected, rel=0.02)


OPEN_BADGES = replace(OPEN, targets=("badge",))


def test_targets_and_thresholds_reach_the_detector() -> None:
    models = StreetModels()
    clean(replace(OPEN, targets=("plate", "badge"), box_threshold=0.41, text_threshold=0.13), models)
    assert models.asked[2] == ("detect", (*PHRASES["plate"], *PHRASES["badge"]), 0.41, 0.13)
    nothing = StreetModels()
    plate = clean(replace(OPEN, targets=()), nothing)
    assert plate.removed == ()
    assert np.array_equal(plate.rgb, street())
    assert "inpaint" not in {call[0] for call in nothing.asked}


@pytest.mark.parametrize(("threshold", "kinds"), [(0.0, 4), (0.55, 3), (0.75, 2), (0.85, 1), (0.99, 0)])
def test_a_higher_threshold_takes_less(threshold: float, kinds: int) -> None:
    assert len(clean(replace(OPEN, box_threshold=threshold)).removed) == kinds


def test_defaults_are_the_request_s() -> None:
    request, options = Sanitize(), SanitizeOptions()
    for name in ("enabled", "regions", "protect", "targets", "box_threshold", "text_threshold", "max_subject_share"):
        assert getattr(request, name) == getattr(options, name), name


def test_what_is_protected_is_not_touched() -> None:
    sign = tuple(float(v) for v in THINGS[4].box)
    near_plate = (175.0, 120.0, 183.0, 150.0)
    before = street()
    plate = clean(replace(OPEN, protect=(sign, near_plate)))  # type: ignore[arg-type]
    for x0, y0, x1, y1 in (sign, near_plate):
        rows, columns = slice(int(y0), int(y1)), slice(int(x0), int(x1))
        assert np.array_equal(plate.rgb[rows, columns], before[rows, columns])
    (number,) = [r for r in plate.removed if r.kind == "plate"]
    assert number.box == (183, 130, 210, 142)
    assert number.area_px == 27 * 12


def test_a_thing_that_is_mostly_protected_stays_whole() -> None:
    x0, y0, x1, y1 = (float(v) for v in THINGS[4].box)
    plate = clean(replace(OPEN, protect=((x0, y0, x0 + 0.6 * (x1 - x0), y1),)))
    assert np.array_equal(plate.rgb[grown(THINGS[4].box)], street()[grown(THINGS[4].box)])
    assert not [r for r in plate.removed if r.kind == "text"]


def test_named_regions_are_filled_as_well_and_reported_as_such() -> None:
    region = (20.0, 170.0, 60.0, 190.0)
    drawn = street()
    drawn[170:190, 20:60] = (1, 2, 3)
    plate = clean(replace(OPEN, regions=(region,)), photo=photo_of(drawn, 1))
    assert (1, 2, 3) not in colours(plate.rgb)
    named = plate.removed[-1]
    assert (named.kind, named.box, named.score, named.area_px) == ("region", region, None, 40 * 20)


def test_regions_that_cover_too_much_are_refused() -> None:
    with pytest.raises(SchemaError) as refused:
        clean(replace(OPEN, regions=((0.0, 0.0, float(WIDTH_PX), HEIGHT_PX / 2),)))
    assert refused.value.field == "sanitize.regions"


def test_too_much_of_the_vehicle_is_refused_and_the_limit_is_the_request_s() -> None:
    models = StreetModels()
    with pytest.raises(SchemaError) as refused:
        clean(replace(OPEN, max_subject_share=0.02), models)
    assert refused.value.field == "sanitize.max_subject_share"
    assert "2.0%" in str(refused.value)
    assert "inpaint" not in {call[0] for call in models.asked}
    plate = clean(SanitizeOptions())  # at the default of 8 %
    taken = (plate.rgb != street()).any(axis=2) & CAR.mask(street())
    assert 0 < taken.sum() <= 0.08 * CAR.mask(street()).sum()


@pytest.mark.parametrize("side_px", range(10, 60, 4))
def test_what_goes_of_the_vehicle_is_never_more_than_the_limit(side_px: int) -> None:
    holes: list[Mask] = []

    class Noting(StreetModels):
        def inpaint(self, rgb: U8, mask: Mask, check: Callable[[], None]) -> U8:
            holes.append(mask)
            return super().inpaint(rgb, mask, check)

    drawn = (CAR, Drawn((120, 80, 120 + side_px, 80 + side_px), LOGO, {"logo": 0.6}))
    rgb, limit = street(drawn), SanitizeOptions().max_subject_share
    silhouette = CAR.mask(rgb)
    clean(OPEN, Noting(drawn), photo=photo_of(rgb))
    share = (holes.pop() & silhouette).sum() / silhouette.sum()
    if share > limit:
        with pytest.raises(SchemaError):
            clean(SanitizeOptions(), Noting(drawn), photo=photo_of(rgb))
        assert holes == []
    else:
        clean(SanitizeOptions(), Noting(drawn), photo=photo_of(rgb))
        assert len(holes) == 1
    assert limit == 0.08
    assert (share > limit) == (side_px > 36)


def test_named_regions_do_not_count_against_the_vehicle() -> None:
    region = (70.0, 100.0, 140.0, 155.0)
    plate = clean(SanitizeOptions(targets=(), regions=(region,), max_subject_share=0.0))
    assert [r.kind for r in plate.removed] == ["region"]


def test_the_vehicle_itself_is_no_sticker() -> None:
    wrapped = Drawn(CAR.box, BODY, {"sticker": 0.9}, CAR.also)
    plate = clean(SanitizeOptions(), StreetModels((*STREET, wrapped)))
    assert BODY in colours(plate.rgb)
    assert "sticker" not in {r.kind for r in plate.removed}
    # What lies on the vehicle is not swallowed by it.
    assert {"plate", "badge"} <= {r.kind for r in plate.removed}
    (warning,) = plate.warnings
    assert warning.code == "vehicle_kept"
    assert "sticker" in warning.message


def test_the_vehicle_goes_with_the_plate_to_phase_2() -> None:
    plate = clean()
    assert plate.vehicle is not None
    assert plate.vehicle.source == "auto"
    # Without the mirror that stood out over its roof line.
    assert np.array_equal(plate.vehicle.mask, CAR.mask(plate.rgb))
    assert plate.vehicle.box == bounds(plate.vehicle.mask)
    seen_again = replace(OPEN, targets=("plate",))
    models = StreetModels()
    untouched = clean(seen_again, models).vehicle
    assert untouched is not None
    assert np.array_equal(untouched.mask, CAR.mask(street()))
    assert [call[0] for call in models.asked].count("segment") == 2


def test_a_mirror_off_the_outline_is_off_the_silhouette() -> None:
    # Here the mirror stands out at the side; the vehicle's silhouette had it.
    car = replace(CAR, box=(60, 60, 276, 160))
    mirror = Drawn((256, 80, 276, 96), MIRROR, {"side mirror": 0.8})
    rgb = street((Drawn((60, 60, 260, 160), BODY, {}), mirror))
    models = StreetModels((car, mirror))
    plate = clean(OPEN, models, photo=photo_of(rgb))
    assert plate.vehicle is not None
    assert car.mask(rgb)[90, 270]
    assert not plate.vehicle.mask[90, 270]
    assert colours(plate.rgb) == {GROUND, BODY}
    assert plate.vehicle.score == 0.9


def test_disabled_it_finds_the_vehicle_and_nothing_else() -> None:
    models = StreetModels()
    photo = photo_of(street())
    plate = clean(SanitizeOptions(enabled=False, regions=((0.0, 0.0, 9.0, 9.0),)), models, photo=photo)
    assert plate.rgb is photo.rgb
    assert plate.removed == ()
    assert plate.vehicle is not None
    assert [call[0] for call in models.asked] == ["detect", "segment"]


def test_no_vehicle_ends_the_job() -> None:
    with pytest.raises(NoSubject):
        clean(models=StreetModels(THINGS))


def test_the_job_can_be_stopped_between_the_models() -> None:
    seen = 0
    while True:
        left = seen

        def check() -> None:
            nonlocal left
            if left == 0:
                raise Cancelled("stop")
            left -= 1

        models = StreetModels()
        try:
            clean(models=models, check=check)
        except Cancelled:
            seen += 1
        else:
            break
    assert seen >= 4


@dataclass
class Broken(StreetModels):
    """Fails in one of its methods, from its n-th call on."""

    method: str = ""
    from_call: int = 1
    error: type[LiveryError] = ModelCorrupt

    def _count(self, method: str) -> None:
        if method == self.method:
            self.from_call -= 1
            if self.from_call <= 0:
                raise self.error("broken")

    def detect(
        self, rgb: U8, phrases: Sequence[str], box_threshold: float, text_threshold: float
    ) -> tuple[Detection, ...]:
        self._count("detect")
        return super().detect(rgb, phrases, box_threshold, text_threshold)

    def segment(self, rgb: U8, boxes: Sequence[BoxF]) -> tuple[Mask, ...]:
        self._count("segment")
        return super().segment(rgb, boxes)

    def segment_at(self, rgb: U8, point: tuple[float, float]) -> Mask:
        self._count("segment_at")
        return super().segment_at(rgb, point)

    def inpaint(self, rgb: U8, mask: Mask, check: Callable[[], None]) -> U8:
        self._count("inpaint")
        return super().inpaint(rgb, mask, check)


@pytest.mark.parametrize("error", [ModelCorrupt, OutOfMemory])
@pytest.mark.parametrize(
    ("method", "call"), [("detect", 1), ("detect", 2), ("segment", 1), ("segment", 2), ("segment", 3), ("inpaint", 1)]
)
def test_a_fault_in_any_call_of_a_model_is_the_job_s(method: str, call: int, error: type[LiveryError]) -> None:
    with pytest.raises(error):
        clean(models=Broken(method=method, from_call=call, error=error))


def test_a_fault_at_a_point_is_the_job_s() -> None:
    with pytest.raises(ModelCorrupt):
        clean(models=Broken(method="segment_at"), prior=SubjectPrior("point", (300.0, 190.0)))


def test_a_segmenter_that_cuts_out_nothing_is_told_of() -> None:
    class Empty(StreetModels):
        def segment(self, rgb: U8, boxes: Sequence[BoxF]) -> tuple[Mask, ...]:
            masks = super().segment(rgb, boxes)
            return masks if CAR.box in [tuple(box) for box in boxes] else tuple(np.zeros_like(m) for m in masks)

    plate = clean(models=Empty())
    (warning,) = plate.warnings
    assert warning.code == "box_taken"
    assert not colours(plate.rgb) & {LOGO, PLATE, TEXT, SIGN}


def test_a_crowd_of_things_is_cut_and_told_of() -> None:
    crowd = tuple(
        Drawn(
            (4 + 6 * (i % 50), 164 + 8 * (i // 50), 8 + 6 * (i % 50), 170 + 8 * (i // 50)),
            (i, 0, 255),
            {"logo": 0.5 + i / 1000},
        )
        for i in range(MOST_THINGS + 20)
    )
    plate = clean(models=StreetModels((CAR, *crowd)), photo=photo_of(street((CAR, *crowd))))
    assert [w.code for w in plate.warnings] == ["things_left"]
    assert len(plate.removed) == MOST_THINGS
    assert min(r.score for r in plate.removed if r.score is not None) == 0.5 + 20 / 1000


def square(x: int, y: int, side: int) -> Mask:
    mask = np.zeros((60, 60), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def test_one_thing_found_twice_is_one() -> None:
    twice = [Thing("badge", square(10, 10, 20), 0.7), Thing("logo", square(11, 11, 20), 0.6)]
    for order in (twice, twice[::-1]):
        (one,) = merged(order)
        assert (one.kind, one.score) == ("badge", 0.7)
        assert np.array_equal(one.mask, square(10, 10, 20) | square(11, 11, 20))


def test_a_part_goes_by_the_name_of_the_whole() -> None:
    (one,) = merged([Thing("text", square(12, 12, 6), 0.95), Thing("plate", square(10, 10, 20), 0.5)])
    assert (one.kind, one.score) == ("plate", 0.5)


def test_neighbours_stay_two() -> None:
    two = merged([Thing("logo", square(0, 0, 20), 0.5), Thing("text", square(14, 14, 20), 0.6)])
    assert [thing.kind for thing in two] == ["text", "logo"]


def test_with_real_networks_of_random_weights_the_promises_hold(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="the studio extra is not installed")
    torch.set_num_threads(1)
    from builder.synthetic import grounding_dino, sam  # noqa: PLC0415
    from models import grounding_dino as detector  # noqa: PLC0415
    from models import sam as segmenter  # noqa: PLC0415
    from models.device import CPU  # noqa: PLC0415
    from models.files import ModelFiles  # noqa: PLC0415

    for row, writer in (("grounding-dino-base", grounding_dino), ("sam-vit-huge", sam)):
        writer.write(row, tmp_path / row, "tiny", 7)
    finds = detector.load(ModelFiles("grounding-dino-base", "0" * 40, tmp_path / "grounding-dino-base"), CPU)
    cuts = segmenter.load(ModelFiles("sam-vit-huge", "0" * 40, tmp_path / "sam-vit-huge"), CPU)

    class Real(StreetModels):
        detect = staticmethod(finds.detect)  # type: ignore[assignment]
        segment = staticmethod(cuts.segment)  # type: ignore[assignment]

    before = street()
    protect = (100.0, 60.0, 180.0, 120.0)
    options = replace(OPEN, protect=(protect,), box_threshold=0.2, text_threshold=0.2)
    plate = clean(options, Real(), SubjectPrior("box", CAR.box))
    assert plate.removed
    assert np.array_equal(plate.rgb[60:120, 100:180], before[60:120, 100:180])
    assert (plate.rgb != before).any()
    again = clean(options, Real(), SubjectPrior("box", CAR.box))
    assert np.array_equal(plate.rgb, again.rgb)
    assert plate.removed == again.removed
