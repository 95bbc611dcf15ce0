"""The draft engine on the project's own scene: the goals it is held to, and that every option does what it says."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.colour import palette_lab
from pipeline.decode import decode_bytes
from pipeline.enforce import EnforceOptions, enforce
from pipeline.errors import NoSubject, SchemaError
from pipeline.palette import DEFAULT_PALETTE
from pipeline.quality import measure, silhouette_iou
from pipeline.regions import count_regions, undersized
from pipeline.sanitize import SanitizeOptions, sanitize
from pipeline.steer import SteerOptions, steer
from pipeline.subject import SubjectPrior, content_frame
from pipeline.tone import measure_exposure
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


def test_the_vehicle_is_found(photo: Photo, silhouette: Mask) -> None:
    found = steer(CleanPlate(photo.rgb), DEFAULT_PALETTE, SteerOptions()).subject > 127
    assert silhouette_iou(found, silhouette) > 0.6
    rows, columns = np.flatnonzero(silhouette.any(1)), np.flatnonzero(silhouette.any(0))
    box = (float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1]))
    boxed = SteerOptions(subject=SubjectPrior("box", box))
    named = steer(CleanPlate(photo.rgb), DEFAULT_PALETTE, boxed).subject > 127
    assert silhouette_iou(named, silhouette) > 0.75
    assert not named[: rows[0] - 8].any()


def test_a_point_and_the_whole_move_the_importance(photo: Photo) -> None:
    auto, point, whole = (
        steer(CleanPlate(photo.rgb), DEFAULT_PALETTE, SteerOptions(subject=prior)).importance
        for prior in (SubjectPrior(), SubjectPrior("point", (120.0, 200.0)), SubjectPrior("whole"))
    )
    assert not np.array_equal(auto, point)
    assert np.all(whole == 255)


def test_more_detail_keeps_more_regions(photo: Photo, maps: dict[str, IndexMap]) -> None:
    counts = [count_regions(illustrate(photo.rgb, enforcing=EnforceOptions(detail=d)).index) for d in (0.0, 1.0)]
    assert counts[0] < count_regions(maps["tone on"].index) < counts[1]


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


def test_a_picture_without_a_vehicle_can_t_be_cut_out() -> None:
    with pytest.raises(NoSubject) as caught:
        illustrate(np.full((120, 200, 3), 90, np.uint8), enforcing=EnforceOptions(background="remove"))
    assert caught.value.field == "background"


def test_letterbox_bars_stay_out_of_the_statistics(photo: Photo) -> None:
    barred = photo.rgb.copy()
    barred[:90], barred[-90:] = 0, 0
    inner = np.ascontiguousarray(photo.rgb[90:-90])
    assert content_frame(barred) == (90, photo.height_px - 90, 0, photo.width_px)
    exposures = [
        measure_exposure(rgb, np.full(rgb.shape[:2], 255, np.uint8), content_frame(rgb)) for rgb in (barred, inner)
    ]
    assert exposures[0] == exposures[1]


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
    assert [removed.kind for removed in plate.removed] == ["region"]
    assert sanitize(photo, SanitizeOptions(enabled=False, regions=options.regions)).rgb is photo.rgb


def test_regions_that_cover_too_much_are_refused(photo: Photo) -> None:
    half = (0.0, 0.0, float(photo.source_width_px), photo.source_height_px / 2)
    with pytest.raises(SchemaError) as caught:
        sanitize(photo, SanitizeOptions(regions=(half,)))
    assert caught.value.field == "sanitize.regions"


@pytest.mark.parametrize("shape", [(16, 16), (16, 1024), (1024, 16), (64, 96)])
@pytest.mark.parametrize("inks", [2, 64])
def test_small_and_narrow_pictures_work_with_any_palette(shape: tuple[int, int], inks: int) -> None:
    rng = np.random.default_rng(5)
    palette = Palette(tuple(Ink(f"#{i:02X}{(i * 67) % 256:02X}{255 - i:02X}", str(i)) for i in range(inks)))
    index = illustrate(rng.integers(0, 256, (*shape, 3)).astype(np.uint8), palette).index
    assert index.max() < inks
    assert count_regions(index) == 1 or undersized(index, 9) == 0


def test_one_flat_colour_is_one_region() -> None:
    index = illustrate(np.full((100, 140, 3), 200, np.uint8)).index
    assert count_regions(index) == 1
