"""The project's own test photograph: its ground truth holds, and it is as hard as a real photograph."""

from __future__ import annotations

import base64
import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.colour import delta_e_matrix, palette_lab, srgb_to_lab
from pipeline.palette import DEFAULT_PALETTE
from pipeline.types import F32, U8, Mask
from tests.make_sample import HEIGHT_PX, JPEG_QUALITY, SAMPLE, WIDTH_PX
from tests.scene import Scene, encode_jpeg, render_scene

LONG_SIDE_PX = 1024
REGIONS_AT_LEAST = 15_000
FUSED_AT_LEAST = 0.15
SMALL = (384, 256)


def as_received(scene: Scene) -> U8:
    """The picture as phase 3 meets it: encoded at quality 92, decoded, reduced to 1024 px. uint8 [H, W, 3], sRGB."""
    with Image.open(io.BytesIO(encode_jpeg(scene, 92))) as picture:
        height = round(picture.height * LONG_SIDE_PX / picture.width)
        return np.asarray(picture.resize((LONG_SIDE_PX, height), Image.Resampling.BOX), dtype=np.uint8)


def nearest_inks(rgb: U8) -> U8:
    """uint8 [H, W]: of the fifteen default inks, the one with the least CIEDE2000 difference."""
    colours, where = np.unique(rgb.reshape(-1, 3), axis=0, return_inverse=True)
    nearest = delta_e_matrix(srgb_to_lab(colours), palette_lab(DEFAULT_PALETTE)).argmin(axis=1)
    return np.asarray(nearest[where].reshape(rgb.shape[:2]), dtype=np.uint8)


def count_regions(labels: U8) -> int:
    """Number of 4-connected regions of one label."""
    return sum(
        cv2.connectedComponents((labels == ink).astype(np.uint8), connectivity=4)[0] - 1 for ink in np.unique(labels)
    )


def majority(labels: U8, x: F32, y: F32, step_x: F32, step_y: F32) -> U8:
    """The commonest label (the lowest of equals) at 3, 3.5 and 4 px from each (x, y) along its unit step."""
    votes = np.zeros((len(x), len(DEFAULT_PALETTE)), dtype=np.int64)
    for away_px in (3.0, 3.5, 4.0):
        column = np.clip(np.rint(x + away_px * step_x).astype(int), 0, labels.shape[1] - 1)
        row = np.clip(np.rint(y + away_px * step_y).astype(int), 0, labels.shape[0] - 1)
        np.add.at(votes, (np.arange(len(x)), labels[row, column]), 1)
    return np.asarray(votes.argmax(axis=1), dtype=np.uint8)


def fused_share(rgb: U8, silhouette: Mask) -> float:
    """How much of the outline can't be found by colour.

    A border pixel lies in the silhouette and touches its outside. Its normal is the gradient of the silhouette under a
    Gaussian of 2 px. It is fused where the commonest label 3 to 4 px inside is also the commonest 3 to 4 px outside, in
    the labels of the picture under a Gaussian of 1 px.
    """
    labels = nearest_inks(cv2.GaussianBlur(rgb, (0, 0), 1.0))
    solid = silhouette.astype(np.uint8)
    border = solid.astype(bool) & (cv2.erode(solid, np.ones((3, 3), np.uint8)) == 0)
    soft = cv2.GaussianBlur(solid.astype(np.float32), (0, 0), 2.0)
    down, right = np.gradient(soft)
    y, x = np.nonzero(border)
    length = np.hypot(right[y, x], down[y, x]) + 1e-9
    in_x, in_y = right[y, x] / length, down[y, x] / length
    inside = majority(labels, x.astype(np.float32), y.astype(np.float32), in_x, in_y)
    outside = majority(labels, x.astype(np.float32), y.astype(np.float32), -in_x, -in_y)
    return float((inside == outside).mean())


def test_has_the_clutter_of_a_photograph(scene: Scene) -> None:
    assert count_regions(nearest_inks(as_received(scene))) >= REGIONS_AT_LEAST


def test_outline_fuses_with_the_ground_in_part(scene: Scene) -> None:
    rgb = as_received(scene)
    size = (rgb.shape[1], rgb.shape[0])
    silhouette = cv2.resize(scene.silhouette.astype(np.uint8), size, interpolation=cv2.INTER_AREA).astype(bool)
    assert fused_share(rgb, silhouette) >= FUSED_AT_LEAST


def test_silhouette_is_one_piece_of_a_vehicles_size(scene: Scene) -> None:
    assert scene.silhouette.shape == scene.rgb.shape[:2] == (HEIGHT_PX, WIDTH_PX)
    assert 0.15 <= scene.silhouette.mean() <= 0.45
    # One region inside and one outside: no island, no hole.
    assert count_regions(scene.silhouette.astype(np.uint8)) == 2


@pytest.mark.parametrize("part", ["plate", "logo"])
def test_parts_lie_in_the_silhouette(scene: Scene, part: str) -> None:
    mask = getattr(scene, part)
    assert mask.sum() > 600
    assert not (mask & ~scene.silhouette).any()


@pytest.mark.parametrize(("box", "part"), [("vehicle_box", "silhouette"), ("plate_box", "plate"), ("logo_box", "logo")])
def test_boxes_are_tight(scene: Scene, box: str, part: str) -> None:
    x0, y0, x1, y1 = getattr(scene, box)
    mask = getattr(scene, part)
    assert mask.sum() == mask[y0:y1, x0:x1].sum()
    assert mask[y0].any()
    assert mask[y1 - 1].any()
    assert mask[:, x0].any()
    assert mask[:, x1 - 1].any()


def test_plate_and_logo_are_apart(scene: Scene) -> None:
    assert not (scene.plate & scene.logo).any()


@pytest.fixture(scope="module")
def small() -> Scene:
    return render_scene(*SMALL)


def test_same_seed_same_bytes(small: Scene) -> None:
    first, second = small, render_scene(*SMALL)
    assert np.array_equal(first.rgb, second.rgb)
    assert encode_jpeg(first) == encode_jpeg(second)
    assert np.array_equal(first.silhouette, second.silhouette)


def test_other_seed_other_clutter_same_car(small: Scene) -> None:
    first, second = small, render_scene(*SMALL, seed=8)
    changed = (first.rgb != second.rgb).any(axis=2)
    assert changed[~first.silhouette].mean() > 0.5
    assert np.array_equal(first.silhouette, second.silhouette)
    noise = first.rgb[first.silhouette].astype(int) - second.rgb[first.silhouette]
    assert 0.2 < np.abs(noise).mean() < 12.0


def test_refuses_another_shape() -> None:
    with pytest.raises(ValueError, match="3:2"):
        render_scene(400, 400)


def test_sample_request_holds_the_scene(scene: Scene) -> None:
    job = json.loads(SAMPLE.read_text(encoding="ascii"))["input"]
    with Image.open(io.BytesIO(base64.b64decode(job["image"], validate=True))) as picture:
        held = np.asarray(picture).astype(int)
    assert held.shape == scene.rgb.shape
    with Image.open(io.BytesIO(encode_jpeg(scene, JPEG_QUALITY))) as picture:
        drawn = np.asarray(picture).astype(int)
    # Not equal: another JPEG library or processor may round another way.
    assert np.abs(held - drawn).mean() < 2.0
    assert [ink["hex"] for ink in job["palette"]] == list(DEFAULT_PALETTE.hexes)
    assert SAMPLE.stat().st_size < 500_000
