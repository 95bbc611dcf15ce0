"""The draft engine on the project's own scene: the goals it is held to, and that every option does what it says."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.colour import palette_lab
from pipeline.costs import ink_costs, nearest_inks
from pipeline.decode import decode_bytes
from pipeline.enforce import EnforceOptions, enforce
from pipeline.errors import NoSubject, SchemaError
from pipeline.palette import DEFAULT_PALETTE
from pipeline.quality import measure, silhouette_iou
from pipeline.regions import count_regions, undersized
from pipeline.sanitize import SanitizeOptions, sanitize
from pipeline.steer import SteerOptions, steer
from pipeline.subject import SubjectPrior, content_frame
from pipeline.types import U8, UNPAINTED, CleanPlate, IndexMap, Ink, Mask, Palette, Photo
from tests.scene import Scene, encode_jpeg

MIN_AREA_PX = 48
TONES = {"tone off": 0.0, "tone on": 0.5}


@pytest.fixture(scope="module")
def photo(scene: Scene) -> Photo:
    return decode_bytes(encode_jpeg(scene, 88))


@pytest.fixture(scope="module")
def silhouette(scene: Scene, photo: Photo) -> Mask:
    size = (photo.width_px, photo.height_px)
    reduced: Mask = cv2.resize(scene.silhouette.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) > 127
    return reduced


def illustrate(
    rgb: U8,
    palette: Palette = DEFAULT_PALETTE,
    steering: SteerOptions | None = None,
    enforcing: EnforceOptions | None = None,
) -> IndexMap:
    illustration = steer(CleanPlate(rgb), palette, SteerOptions() if steering is None else steering)
    return enforce(illustration, palette, EnforceOptions() if enforcing is None else enforcing)


@pytest.fixture(scope="module")
def maps(photo: Photo) -> dict[str, IndexMap]:
    return {name: illustrate(photo.rgb, steering=SteerOptions(tone=tone)) for name, tone in TONES.items()}


@pytest.mark.parametrize(("name", "most"), [("tone off", 1.15), ("tone on", 1.25)])
def test_the_goals_hold_on_the_scene(
    name: str, most: float, photo: Photo, silhouette: Mask, maps: dict[str, IndexMap]
) -> None:
    quality = measure(photo.rgb, maps[name], min_area_px=MIN_AREA_PX, mask=silhouette)
    assert quality.regions <= 450
    assert quality.undersized == 0
    assert quality.delta_e_ratio <= most
    assert quality.edge_f1 >= 0.80
    assert quality.outline_recall is not None
    assert quality.outline_recall >= 0.85
    assert maps[name].index.max() < len(DEFAULT_PALETTE)


def test_the_figures_tell_the_engine_from_the_two_ends(photo: Photo, silhouette: Mask) -> None:
    part = (slice(240, 580), slice(60, 500))
    rgb, mask = np.ascontiguousarray(photo.rgb[part]), silhouette[part]
    nearest = IndexMap(nearest_inks(*ink_costs(rgb, DEFAULT_PALETTE)), DEFAULT_PALETTE)
    flat = IndexMap(np.zeros(mask.shape, np.uint8), DEFAULT_PALETTE)
    many, one = (measure(rgb, end, min_area_px=MIN_AREA_PX, mask=mask) for end in (nearest, flat))
    assert many.delta_e_ratio == pytest.approx(1.0, abs=0.01)
    assert many.undersized > 0.9 * many.regions > 1000
    assert (one.regions, one.undersized, one.edge_f1, one.outline_recall) == (1, 0, 0.0, 0.0)
    assert one.delta_e_ratio > 2.0


def test_the_vehicle_is_found(photo: Photo, silhouette: Mask) -> None:
    found = steer(CleanPlate(photo.rgb), DEFAULT_PALETTE, SteerOptions()).subject > 127
    assert silhouette_iou(found, silhouette) > 0.6
    rows, columns = np.flatnonzero(silhouette.any(1)), np.flatnonzero(silhouette.any(0))
    box = (float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1]))
    boxed = SteerOptions(subject=SubjectPrior("box", box))
    named = steer(CleanPlate(photo.rgb), DEFAULT_PALETTE, boxed).subject > 127
    assert silhouette_iou(named, silhouette) > 0.75
    assert not named[: rows[0] - 8].any()


def test_a_point_or_a_box_moves_the_importance_there(photo: Photo) -> None:
    # Ivy at the left edge, far from the vehicle.
    place = (slice(150, 250), slice(70, 170))
    auto, point, box = (
        steer(CleanPlate(photo.rgb), DEFAULT_PALETTE, SteerOptions(subject=prior)).importance
        for prior in (
            SubjectPrior(),
            SubjectPrior("point", (120.0, 200.0)),
            SubjectPrior("box", (60.0, 40.0, 260.0, 400.0)),
        )
    )
    assert auto[place].mean() < 150
    assert point[place].mean() > 200
    assert box[place].mean() > 200
    assert box[:, 500:].max() < 50


def test_a_place_keeps_more_regions_where_it_matters_more(photo: Photo) -> None:
    place = (slice(40, 400), slice(60, 260))
    priors = (SubjectPrior("box", (600.0, 300.0, 900.0, 540.0)), SubjectPrior("whole"))
    elsewhere, whole = (
        count_regions(np.ascontiguousarray(illustrate(photo.rgb, steering=SteerOptions(subject=prior)).index[place]))
        for prior in priors
    )
    assert whole > 1.5 * elsewhere


def test_the_whole_weighs_the_same_everywhere(photo: Photo) -> None:
    whole = steer(CleanPlate(photo.rgb), DEFAULT_PALETTE, SteerOptions(subject=SubjectPrior("whole")))
    assert np.all(whole.importance == 255)
    assert np.all(whole.subject == 255)


def test_tone_reaches_for_the_ends_of_the_palette() -> None:
    y, x = np.mgrid[0:120, 0:160]
    murky = np.repeat((90 + 40 * ((x // 20 + y // 20) % 2))[..., None], 3, axis=2).astype(np.uint8)
    spans = []
    for tone in (0.0, 0.5, 1.0):
        steered = steer(CleanPlate(murky), DEFAULT_PALETTE, SteerOptions(tone=tone))
        spans.append(int(steered.rgb.max()) - int(steered.rgb.min()))
    assert spans[0] < spans[1] < spans[2]


def test_more_detail_keeps_more_regions(photo: Photo, maps: dict[str, IndexMap]) -> None:
    counts = [count_regions(illustrate(photo.rgb, enforcing=EnforceOptions(detail=d)).index) for d in (0.0, 1.0)]
    assert counts[0] < count_regions(maps["tone on"].index) < counts[1]


def test_regions_stay_within_the_budget_of_the_detail() -> None:
    rng = np.random.default_rng(8)
    mosaic = rng.integers(0, 256, (42, 64, 3)).astype(np.uint8).repeat(16, 0).repeat(16, 1)
    counts = [count_regions(illustrate(mosaic, enforcing=EnforceOptions(detail=d)).index) for d in (0.0, 0.5)]
    assert counts[0] <= 175
    assert counts[0] < counts[1] <= 700


def test_line_work_adds_the_darkest_ink(photo: Photo, maps: dict[str, IndexMap]) -> None:
    darkest = int(palette_lab(DEFAULT_PALETTE)[:, 0].argmin())
    shares = [
        np.mean(illustrate(photo.rgb, steering=SteerOptions(line_work=strength)).index == darkest)
        for strength in (0.4, 1.0)
    ]
    assert np.mean(maps["tone on"].index == darkest) < shares[0] < shares[1]


def test_a_removed_background_is_unpainted_and_the_vehicle_is_not(photo: Photo, silhouette: Mask) -> None:
    index = illustrate(photo.rgb, enforcing=EnforceOptions(background="remove")).index
    assert np.mean(index[silhouette] != UNPAINTED) > 0.9
    assert np.mean(index[~silhouette] == UNPAINTED) > 0.8
    assert undersized(index, MIN_AREA_PX) == 0


def test_a_background_ink_takes_the_removed_background_s_place(photo: Photo) -> None:
    removed = illustrate(photo.rgb, enforcing=EnforceOptions(background="remove")).index
    laid = illustrate(photo.rgb, enforcing=EnforceOptions(background=14)).index
    assert np.array_equal(laid, np.where(removed == UNPAINTED, np.uint8(14), removed))
    assert np.any(removed == UNPAINTED)


def test_a_picture_without_a_vehicle_can_t_be_cut_out() -> None:
    with pytest.raises(NoSubject) as caught:
        illustrate(np.full((120, 200, 3), 90, np.uint8), enforcing=EnforceOptions(background="remove"))
    assert caught.value.field == "background"


@pytest.mark.parametrize("bars", [((90, 90), (0, 0)), ((0, 0), (120, 100)), ((40, 60), (30, 20))])
def test_letterbox_bars_stay_out_of_the_statistics(bars: tuple[tuple[int, int], tuple[int, int]], photo: Photo) -> None:
    top, left = bars[0][0], bars[1][0]
    inside = (slice(top, top + photo.height_px), slice(left, left + photo.width_px))
    barred = np.pad(photo.rgb, (*bars, (0, 0)))
    assert content_frame(barred) == (top, inside[0].stop, left, inside[1].stop)
    alone = steer(CleanPlate(photo.rgb), DEFAULT_PALETTE, SteerOptions())
    framed = steer(CleanPlate(barred), DEFAULT_PALETTE, SteerOptions())
    # The smoothing's window and the importance's halo reach over the bar's edge, nothing else does.
    within = (slice(inside[0].start + 3, inside[0].stop - 3), slice(inside[1].start + 3, inside[1].stop - 3))
    difference = np.abs(framed.rgb[within].astype(int) - alone.rgb[3:-3, 3:-3])
    assert difference.mean() < 0.5
    assert np.array_equal(framed.subject[inside], alone.subject)
    assert framed.subject_confidence == alone.subject_confidence


def test_named_regions_are_filled_and_protected_ones_are_not_touched(photo: Photo) -> None:
    scale = photo.source_width_px / photo.width_px
    region, guard = (100.0, 100.0, 200.0, 160.0), (150.0, 90.0, 260.0, 170.0)
    options = SanitizeOptions(
        regions=(tuple(v * scale for v in region),),  # type: ignore[arg-type]
        protect=(tuple(v * scale for v in guard),),  # type: ignore[arg-type]
    )
    plate = sanitize(photo, options)
    changed = (plate.rgb != photo.rgb).any(axis=2)
    assert changed[105:155, 105:145].mean() > 0.5
    assert not changed[90:170, 150:260].any()
    assert not changed[:95].any()
    outside = np.ones(changed.shape, bool)
    outside[97:163, 97:203] = False  # the region's own soft edge, and whole pixels
    assert not changed[outside].any()
    assert [removed.kind for removed in plate.removed] == ["region"]
    assert sanitize(photo, SanitizeOptions(enabled=False, regions=options.regions)).rgb is photo.rgb


def test_regions_that_cover_too_much_are_refused(photo: Photo) -> None:
    half = (0.0, 0.0, float(photo.source_width_px), photo.source_height_px / 2)
    with pytest.raises(SchemaError) as caught:
        sanitize(photo, SanitizeOptions(regions=(half,)))
    assert caught.value.field == "sanitize.regions"


def smallest_area_px(shape: tuple[int, ...]) -> int:
    return max(9, int(MIN_AREA_PX * (max(shape) / 1024) ** 2))


EXTREME_SHAPES = [(16, 16), (16, 1024), (1024, 16), (64, 96)]


@pytest.mark.parametrize("shape", EXTREME_SHAPES)
@pytest.mark.parametrize("inks", [2, 64])
def test_small_and_narrow_pictures_work_with_any_palette(shape: tuple[int, int], inks: int) -> None:
    rng = np.random.default_rng(5)
    palette = Palette(tuple(Ink(f"#{i:02X}{(i * 67) % 256:02X}{255 - i:02X}", str(i)) for i in range(inks)))
    index = illustrate(rng.integers(0, 256, (*shape, 3)).astype(np.uint8), palette).index
    assert index.shape == shape
    assert index.max() < inks
    assert count_regions(index) == 1 or undersized(index, smallest_area_px(shape)) == 0


@pytest.mark.parametrize("shape", EXTREME_SHAPES)
def test_every_option_works_on_small_and_narrow_pictures(shape: tuple[int, int]) -> None:
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    blob = ((y / shape[0] - 0.5) ** 2 + (x / shape[1] - 0.5) ** 2 < 0.1)[..., None]
    rgb = np.where(blob, (200, 30, 30), (90, 120, 160)).astype(np.uint8)
    steering = SteerOptions(
        tone=1.0, line_work=1.0, subject=SubjectPrior("box", (2.0, 2.0, shape[1] - 2, shape[0] - 2))
    )
    index = illustrate(rgb, steering=steering, enforcing=EnforceOptions(detail=1.0, background="remove")).index
    middle = index[shape[0] // 2 - 1 : shape[0] // 2 + 2, shape[1] // 2 - 1 : shape[1] // 2 + 2]
    assert np.all(middle != UNPAINTED)
    assert np.any(index == UNPAINTED)


def test_one_flat_colour_is_one_region() -> None:
    index = illustrate(np.full((100, 140, 3), 200, np.uint8)).index
    assert count_regions(index) == 1
