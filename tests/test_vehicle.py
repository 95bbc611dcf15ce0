"""The vehicle: which one, its silhouette, and how silhouettes are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.requests import BoxF
from pipeline.errors import NoSubject
from pipeline.quality import in_frame, silhouette_iou
from pipeline.subject import SubjectPrior
from pipeline.types import U8, Mask
from pipeline.vehicle import PHRASES, bounds, box_iou, cut_out, find_vehicle, matte
from tests.finder import CAR, HEIGHT_PX, THINGS, VAN, WIDTH_PX, StreetModels, street

CAR_BOX = tuple(float(v) for v in CAR.box)


def test_auto_takes_the_largest_and_not_the_surest() -> None:
    rgb = street()
    vehicle = find_vehicle(rgb, SubjectPrior(), StreetModels())
    assert np.array_equal(vehicle.mask, CAR.mask(rgb))
    assert vehicle.box == CAR_BOX
    assert (vehicle.score, vehicle.source) == (0.9, "auto")


def test_a_point_takes_the_vehicle_there_even_on_another_thing() -> None:
    rgb = street()
    van = find_vehicle(rgb, SubjectPrior("point", (20.0, 30.0)), StreetModels())
    assert np.array_equal(van.mask, VAN.mask(rgb))
    assert (van.score, van.source) == (0.95, "point")
    plate = THINGS[2]
    on_the_plate = SubjectPrior("point", (plate.box[0] + 2.0, plate.box[1] + 1.0))
    assert np.array_equal(find_vehicle(rgb, on_the_plate, StreetModels()).mask, CAR.mask(rgb))


def test_a_point_where_no_vehicle_is_known_takes_what_lies_there() -> None:
    rgb, sign = street(), THINGS[4]
    vehicle = find_vehicle(rgb, SubjectPrior("point", (sign.box[0] + 5.0, sign.box[1] + 5.0)), StreetModels())
    assert np.array_equal(vehicle.mask, sign.mask(rgb))
    assert vehicle.score is None


def test_a_box_is_cut_out_as_it_is() -> None:
    rgb, models = street(), StreetModels()
    vehicle = find_vehicle(rgb, SubjectPrior("box", VAN.box), models)
    assert np.array_equal(vehicle.mask, VAN.mask(rgb))
    assert (vehicle.score, vehicle.source) == (None, "box")
    assert models.asked == [("segment", 1)]


def test_the_whole_picture_asks_no_model() -> None:
    models = StreetModels()
    vehicle = find_vehicle(street(), SubjectPrior("whole"), models)
    assert vehicle.mask.all()
    assert vehicle.box == (0, 0, WIDTH_PX, HEIGHT_PX)
    assert models.asked == []


@pytest.mark.parametrize(
    "prior",
    [SubjectPrior(), SubjectPrior("point", (5.0, 5.0)), SubjectPrior("box", (1, 1, 9, 9))],
    ids=["auto", "point", "box"],
)
def test_no_vehicle_is_an_error_that_names_the_field(prior: SubjectPrior) -> None:
    class Blind(StreetModels):
        def segment_at(self, rgb: U8, point: tuple[float, float]) -> Mask:
            return np.zeros(rgb.shape[:2], bool)

    empty = street(())
    with pytest.raises(NoSubject) as raised:
        find_vehicle(empty, prior, Blind())
    assert raised.value.field == "subject"
    assert not raised.value.retryable


def test_masks_that_come_back_empty_are_no_vehicle() -> None:
    class Failing(StreetModels):
        def segment(self, rgb: U8, boxes: Sequence[BoxF]) -> tuple[Mask, ...]:
            return tuple(np.zeros(rgb.shape[:2], bool) for _ in boxes)

    with pytest.raises(NoSubject):
        find_vehicle(street(), SubjectPrior(), Failing())


def test_the_detector_is_asked_for_every_kind_of_vehicle() -> None:
    models = StreetModels()
    find_vehicle(street(), SubjectPrior(), models)
    assert models.asked[0][:2] == ("detect", PHRASES)


def test_a_silhouette_is_kept_to_its_box() -> None:
    class Spilling(StreetModels):
        def segment(self, rgb: U8, boxes: Sequence[BoxF]) -> tuple[Mask, ...]:
            return tuple(np.ones(rgb.shape[:2], bool) for _ in boxes)

    rgb = street()
    (mask,) = cut_out(rgb, [(100.0, 50.0, 200.0, 150.0)], Spilling(), spill=0.1)
    assert bounds(mask) == (90.0, 40.0, 210.0, 160.0)
    outside = [(-50.0, -50.0, -10.0, -10.0), (0.0, 0.0, WIDTH_PX + 90.0, HEIGHT_PX + 90.0)]
    none, everything = cut_out(rgb, outside, Spilling(), spill=0.0)
    assert bounds(none) is None
    assert everything.all()


def test_a_matte_follows_the_vehicle_where_it_went() -> None:
    rgb = street()
    assert np.array_equal(matte(rgb, CAR.box, StreetModels()), CAR.mask(rgb))
    moved = np.roll(rgb, 16, axis=1)
    x0, y0, x1, y1 = CAR.box
    found = matte(moved, CAR.box, StreetModels((replace(CAR, box=(x0 + 16, y0, x1 + 16, y1)), VAN)))
    assert np.array_equal(found, np.roll(CAR.mask(rgb), 16, axis=1))
    assert silhouette_iou(CAR.mask(rgb), found) == pytest.approx((200 - 16) / (200 + 16), abs=0.02)


def test_a_matte_does_not_jump_to_another_vehicle() -> None:
    # The detector takes what stands in the car's place for no vehicle, and the van is the only one it sees.
    unknown = replace(CAR, names={})
    models = StreetModels((unknown, VAN))
    rgb = street((unknown, VAN))
    assert np.array_equal(matte(rgb, CAR.box, models), CAR.mask(rgb))
    gone = matte(street((VAN,)), CAR.box, models)
    assert silhouette_iou(CAR.mask(rgb), gone) == 0.0


def test_boxes_overlap_by_area() -> None:
    assert box_iou((0, 0, 10, 10), (0, 0, 10, 10)) == 1.0
    assert box_iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert box_iou((0, 0, 10, 10), (20, 20, 30, 30)) == 0.0


SIZES = (17, 64, 333, 1024, 4097)


def car_shape(width_px: int, height_px: int) -> Mask:
    """A body, a cabin and two wheels, about a third of the picture."""
    y, x = np.mgrid[0:height_px, 0:width_px] / np.array([height_px, width_px]).reshape(2, 1, 1)
    body = (abs(x - 0.5) < 0.38) & (abs(y - 0.6) < 0.15)
    cabin = (abs(x - 0.5) < 0.2) & (abs(y - 0.4) < 0.12)
    wheels = np.hypot(abs(x - 0.5) - 0.24, (y - 0.75) * 0.66) < 0.07
    shape: Mask = body | cabin | wheels
    return shape


@pytest.mark.parametrize("size", SIZES)
def test_iou_with_itself_is_one(size: int) -> None:
    mask = car_shape(size, max(size * 2 // 3, 17))
    assert silhouette_iou(mask, mask) == 1.0
    assert silhouette_iou(mask, ~mask) == 0.0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("other", SIZES)
def test_iou_does_not_depend_on_sizes(size: int, other: int) -> None:
    first, second = car_shape(size, max(size * 2 // 3, 17)), car_shape(other, max(other * 2 // 3, 17))
    # A drawn edge lies half a pixel off at worst, which is the more the fewer pixels there are.
    assert silhouette_iou(first, second) > {17: 0.75, 64: 0.92, 333: 0.98}.get(min(size, other), 0.99)


@pytest.mark.parametrize("size", SIZES)
def test_iou_of_noise_is_low(size: int) -> None:
    rng = np.random.default_rng(size)
    mask = car_shape(1024, 683)
    noise = rng.random((size, size)) < 0.5
    assert 0.2 < mask.mean() < 0.4
    assert silhouette_iou(mask, noise) < 0.3
    assert silhouette_iou(mask, np.ones((size, size), bool)) < 0.4
    assert silhouette_iou(mask, np.zeros((size, size), bool)) == 0.0


SIDES = st.integers(17, 4097)


@given(SIDES, SIDES, SIDES, SIDES)
@settings(max_examples=60, deadline=None)
def test_any_two_sizes_are_compared(width_px: int, height_px: int, other_width_px: int, other_height_px: int) -> None:
    def block(width_px: int, height_px: int) -> Mask:
        mask = np.zeros((height_px, width_px), bool)
        mask[round(0.3 * height_px) : round(0.7 * height_px), round(0.15 * width_px) : round(0.9 * width_px)] = True
        return mask

    mask, other = block(width_px, height_px), block(other_width_px, other_height_px)
    assert silhouette_iou(mask, mask) == 1.0
    # Each edge is drawn half a pixel off at worst in either frame, and half a pixel of the first one's is rounded off.
    off = (2 / width_px + 1 / other_width_px) / 0.75 + (2 / height_px + 1 / other_height_px) / 0.4
    assert silhouette_iou(mask, other) >= 1 - off
    if min(width_px, other_width_px) * min(height_px, other_height_px) > 2000:  # else chance has its part
        noise = np.random.default_rng(width_px).random(other.shape) < 0.5
        assert silhouette_iou(mask, noise) < 0.3


def test_iou_is_intersection_over_union() -> None:
    first, second = np.zeros((2, 20, 30), bool)
    first[5:15, 0:20] = True
    second[5:15, 10:30] = True
    assert silhouette_iou(first, second) == 100 / 300
    assert silhouette_iou(np.zeros((9, 9), bool), np.zeros((4, 4), bool)) == 1.0


@dataclass(frozen=True)
class Disc:
    width_px: int
    height_px: int

    def mask(self) -> Mask:
        y, x = np.mgrid[0 : self.height_px, 0 : self.width_px] + 0.5
        inside: Mask = np.hypot(x / self.width_px - 0.5, y / self.height_px - 0.5) < 0.3
        return inside


@pytest.mark.parametrize(("width_px", "height_px"), [(100, 60), (33, 200), (640, 480), (200, 100)])
def test_a_mask_in_another_frame_keeps_its_place_and_share(width_px: int, height_px: int) -> None:
    held = in_frame(Disc(200, 100).mask(), width_px, height_px)
    assert held.shape == (height_px, width_px)
    assert held.mean() == pytest.approx(np.pi * 0.09, abs=0.02)
    assert silhouette_iou(Disc(width_px, height_px).mask(), held) > 0.9
    rows = cv2.moments(held.astype(np.uint8), binaryImage=True)
    assert rows["m10"] / rows["m00"] == pytest.approx((width_px - 1) / 2, abs=1)
    assert rows["m01"] / rows["m00"] == pytest.approx((height_px - 1) / 2, abs=1)
