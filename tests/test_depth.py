"""Depth against the library's own processors and post-processing; its range is whole, near is light."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from builder.synthetic import depth as synthetic
from models.depth import FLAT, DepthEstimator, full_range, load
from models.device import CPU
from models.files import ModelFiles
from pipeline.errors import InternalError, ModelCorrupt
from pipeline.types import U8

torch: Any = pytest.importorskip("torch", reason="the studio extra is not installed")
transformers: Any = pytest.importorskip("transformers")

ROWS = ("depth-anything-v2-small", "zoedepth")
SIZES = [(96, 160), (160, 96), (128, 128), (75, 211)]
REVISION = "0" * 40


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("volume")
    for seed, row in enumerate(ROWS):
        synthetic.write(row, folder / row, "tiny", seed)
    return folder


@pytest.fixture(scope="module")
def estimators(volume: Path) -> dict[str, DepthEstimator]:
    return {row: load(ModelFiles(row, REVISION, volume / row), CPU) for row in ROWS}


def picture(height_px: int, width_px: int) -> U8:
    y, x = np.mgrid[:height_px, :width_px]
    waves = np.stack([np.sin(x / 9), np.cos(y / 7), np.sin((x + 2 * y) / 31)], axis=-1)
    return np.rint(127.5 + 127.5 * waves).astype(np.uint8)


def stretched(near: Any) -> Any:
    return np.rint((near - near.min()) / (near.max() - near.min()) * 255)


@pytest.mark.parametrize(("height_px", "width_px"), SIZES)
def test_depth_anything_equals_the_library(
    volume: Path, estimators: dict[str, DepthEstimator], height_px: int, width_px: int
) -> None:
    from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil  # noqa: PLC0415

    folder = volume / "depth-anything-v2-small"
    rgb = picture(height_px, width_px)
    processor: Any = DPTImageProcessorPil.from_pretrained(folder)
    network = transformers.DepthAnythingForDepthEstimation.from_pretrained(folder)
    with torch.no_grad():
        found = network(**processor(images=Image.fromarray(rgb), return_tensors="pt"))
    near = processor.post_process_depth_estimation(found, target_sizes=[(height_px, width_px)])[0]["predicted_depth"]
    ours = estimators["depth-anything-v2-small"].depth(rgb)
    assert ours.dtype == np.uint8
    assert ours.shape == (height_px, width_px)
    assert np.abs(ours - stretched(near.numpy())).max() <= 1


@pytest.mark.parametrize(("height_px", "width_px"), SIZES)
def test_zoedepth_equals_the_library_turned_round(
    volume: Path, estimators: dict[str, DepthEstimator], height_px: int, width_px: int
) -> None:
    from transformers.models.zoedepth.image_processing_pil_zoedepth import ZoeDepthImageProcessorPil  # noqa: PLC0415

    folder = volume / "zoedepth"
    rgb = picture(height_px, width_px)
    processor: Any = ZoeDepthImageProcessorPil.from_pretrained(folder)
    network = transformers.ZoeDepthForDepthEstimation.from_pretrained(folder)
    with torch.no_grad():
        metres = network(**processor(images=Image.fromarray(rgb), return_tensors="pt")).predicted_depth[None]
    # The library's own post-processing needs torchvision. What it does: to the padded size, then the rim off.
    top, left = int(np.sqrt(height_px / 2) * 3), int(np.sqrt(width_px / 2) * 3)
    padded = (height_px + 2 * top, width_px + 2 * left)
    whole = torch.nn.functional.interpolate(metres, padded, mode="bicubic", align_corners=False)
    near = 1 / whole[0, 0, top:-top, left:-left].clamp_min(1e-3)
    ours = estimators["zoedepth"].depth(rgb)
    assert ours.shape == (height_px, width_px)
    assert np.abs(ours - stretched(near.numpy())).max() <= 1


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize(("height_px", "width_px"), SIZES)
def test_the_range_is_whole(estimators: dict[str, DepthEstimator], row: str, height_px: int, width_px: int) -> None:
    depth = estimators[row].depth(picture(height_px, width_px))
    assert (int(depth.min()), int(depth.max())) == (0, 255)
    assert depth.std() > 10


def test_a_range_of_0_to_1_is_stretched_and_not_cast() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    assert np.array_equal(full_range(ramp).ravel(), np.arange(256))
    assert np.array_equal(full_range(ramp * 1e-6), full_range(ramp))
    assert np.array_equal(full_range(ramp - 7), full_range(ramp))


def test_a_scene_without_depth_is_neither_black_nor_white() -> None:
    assert (full_range(np.full((4, 5), 3.5, np.float32)) == FLAT).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_a_defect(bad: float) -> None:
    depth = np.ones((4, 4), np.float32)
    depth[1, 2] = bad
    with pytest.raises(InternalError):
        full_range(depth)


@pytest.mark.parametrize("row", ROWS)
def test_weights_that_do_not_fit_are_refused(volume: Path, tmp_path: Path, row: str) -> None:
    for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((volume / row / name).read_bytes())
    files = ModelFiles(row, REVISION, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["backbone_config"]["num_hidden_layers"] += 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelCorrupt, match=row) as caught:
        load(files, CPU)
    assert str(tmp_path) not in str(caught.value)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "glpn"}))
    with pytest.raises(ModelCorrupt, match=row):
        load(files, CPU)
