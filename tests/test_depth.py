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

from tests.traces import counts, recording  # noqa: E402

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
    low, high = float(near.min()), float(near.max())
    return np.rint((near - low) * (255.0 / (high - low)))


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


def test_recorded_calls_find_what_plain_ones_do(volume: Path, estimators: dict[str, DepthEstimator]) -> None:
    row = "depth-anything-v2-small"
    recorded = recording(load(ModelFiles(row, REVISION, volume / row), CPU))
    pictures = [picture(96, 160), picture(96, 160)[::-1].copy(), picture(96, 160)[:, ::-1].copy()]
    for rgb in pictures:
        assert np.array_equal(recorded.depth(rgb), estimators[row].depth(rgb))
    assert counts(recorded.graphs) == (1, 2, 0)


def test_pictures_reach_the_network_as_the_library_prepares_them(
    volume: Path, estimators: dict[str, DepthEstimator]
) -> None:
    from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil  # noqa: PLC0415

    row = "depth-anything-v2-small"
    processor: Any = DPTImageProcessorPil.from_pretrained(volume / row)
    seen: list[Any] = []
    hook = estimators[row].networks[0].register_forward_pre_hook(lambda _network, given: seen.append(given[0]))
    for height_px, width_px in SIZES:
        rgb = picture(height_px, width_px)
        estimators[row].depth(rgb)
        assert torch.equal(seen[-1], processor(images=Image.fromarray(rgb), return_tensors="pt")["pixel_values"])
    hook.remove()


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize(("height_px", "width_px"), SIZES)
def test_the_range_is_whole(estimators: dict[str, DepthEstimator], row: str, height_px: int, width_px: int) -> None:
    depth = estimators[row].depth(picture(height_px, width_px))
    assert (int(depth.min()), int(depth.max())) == (0, 255)
    assert depth.std() > 10


def test_a_range_of_0_to_1_is_stretched_and_not_cast() -> None:
    ramp = torch.linspace(0, 1, 256).reshape(16, 16)
    assert np.array_equal(full_range(ramp).ravel(), np.arange(256))
    assert np.array_equal(full_range(ramp * 1e-6), full_range(ramp))
    assert np.array_equal(full_range(ramp - 7), full_range(ramp))


def test_a_scene_without_depth_is_neither_black_nor_white() -> None:
    assert (full_range(torch.full((4, 5), 3.5)) == FLAT).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_a_defect(bad: float) -> None:
    depth = torch.ones(4, 4)
    depth[1, 2] = bad
    with pytest.raises(InternalError):
        full_range(depth)


@pytest.mark.parametrize("scale", [1e-3, 0.7, 19.0, 3e4])
def test_levels_are_those_that_the_host_would_round_to(scale: float) -> None:
    near = (np.random.default_rng(2).standard_normal((400, 500)) * scale).astype(np.float32)
    assert np.array_equal(full_range(torch.from_numpy(near)), stretched(near).astype(np.uint8))


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
