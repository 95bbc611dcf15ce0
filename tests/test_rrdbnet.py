"""RRDBNet against the published definition's names, shapes and numbers; tiles that equal the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the studio extra is not installed")

import torch

from builder.synthetic import rrdbnet as synthetic
from models.device import CPU, Device
from models.files import ModelFiles
from models.requests import unchecked
from models.rrdbnet import BLOCKS, FEATURES, FILES, GROWTH, SCALE, Upscaler, build_rrdbnet, load, upscale
from pipeline.errors import Cancelled, ModelCorrupt, ModelMissing
from tests.images import scene
from tests.published import plaid, published, wave
from tests.rows import files_of
from tests.traces import counts, recording

ROW = "realesrgan-x4plus-anime"


@pytest.fixture(scope="module")
def upscaler(folder: Path) -> Upscaler:
    return load(files_of(ROW, folder), CPU)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Upscaler:
    """As deep as the published network, but narrow."""
    torch.set_num_threads(1)
    network = build_rrdbnet(8, 4, BLOCKS).eval()
    network.load_state_dict({name: wave(name, tensor) for name, tensor in network.state_dict().items()})
    return Upscaler(ROW, CPU, network, BLOCKS)


# The published definition


def test_its_weights_have_the_published_names_and_shapes() -> None:
    with torch.device("meta"):
        network = build_rrdbnet(FEATURES, GROWTH, BLOCKS)
    ours = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert ours == published("rrdbnet").shapes
    assert sum(parameter.numel() for parameter in network.parameters()) == 4_467_779


def test_it_computes_what_the_published_definition_computes() -> None:
    reference = published("rrdbnet")
    network = build_rrdbnet(*(reference.sizes[name] for name in ("features", "growth", "blocks")))
    network.load_state_dict({name: wave(name, tensor) for name, tensor in network.state_dict().items()})
    seen = torch.from_numpy(plaid(7, 9).astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.inference_mode():
        made = upscale(network, seen, unchecked)[0].permute(1, 2, 0)
    assert np.abs(made.numpy().ravel() - reference.picture).max() < 2e-5
    assert reference.picture.std() > 0.05


# Enlarging


@pytest.mark.parametrize("size", [(24, 16), (17, 31), (1, 1), (2, 40)])
def test_it_is_four_times_as_large(upscaler: Upscaler, size: tuple[int, int]) -> None:
    made = upscaler.enlarge(scene(*size), unchecked)
    assert made.shape == (SCALE * size[1], SCALE * size[0], 3)
    assert made.dtype == np.uint8


def test_it_is_the_network_s_picture_clipped_and_rounded(upscaler: Upscaler) -> None:
    rgb = scene(24, 16)
    with torch.inference_mode():
        seen = torch.from_numpy(rgb.astype(np.float32) / 255).permute(2, 0, 1)[None]
        made = upscale(upscaler.networks[0], seen, unchecked)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(upscaler.enlarge(rgb, unchecked), np.rint(np.clip(made, 0, 1) * 255).astype(np.uint8))


@pytest.mark.parametrize("tile_px", [16, 24, 33, 96, 500])
def test_tiles_equal_the_whole(upscaler: Upscaler, tile_px: int) -> None:
    rgb = scene(96, 70)
    whole = upscaler.enlarge(rgb, unchecked).astype(int)
    tiled = upscaler.enlarge(rgb, unchecked, tile_px).astype(int)
    assert np.abs(tiled - whole).max() <= 1
    assert whole.std() > 5


@pytest.mark.parametrize("tile_px", [64, 150])
def test_tiles_equal_the_whole_at_the_published_depth(deep: Upscaler, tile_px: int) -> None:
    rgb = plaid(40, 260)  # wider than a tile and what it sees on both sides
    whole = deep.enlarge(rgb, unchecked).astype(int)
    tiled = deep.enlarge(rgb, unchecked, tile_px).astype(int)
    assert np.abs(tiled - whole).max() <= 1


def test_each_tile_is_told_as_it_begins(upscaler: Upscaler) -> None:
    told: list[tuple[str, float]] = []
    upscaler.enlarge(scene(48, 30), unchecked, 16, lambda *tile: told.append(tile))
    assert told == [(f"enlarging, tile {k + 1} of 6", k / 6) for k in range(6)]


def test_no_pixel_depends_on_what_is_out_of_reach(upscaler: Upscaler) -> None:
    # Exact, whatever the weights: with kernels of ones and no residual damping nothing cancels out.
    network: Any = build_rrdbnet(2, 1, 1)
    network.load_state_dict({name: torch.ones_like(tensor) for name, tensor in network.state_dict().items()})
    reach_px = Upscaler(ROW, CPU, network, 1).reach_px
    line = torch.zeros(1, 3, 5, 2 * reach_px + 9, dtype=torch.float64)
    network.double()
    at = reach_px + 4
    touched = line.clone()
    touched[..., at] = 1
    with torch.inference_mode():
        changed = upscale(network, touched, unchecked) != upscale(network, line, unchecked)
    columns = np.flatnonzero(changed.any(dim=1).any(dim=1)[0].numpy()) // SCALE
    assert (columns.min(), columns.max()) == (at - reach_px, at + reach_px)


def test_recorded_calls_make_what_plain_ones_do(upscaler: Upscaler, folder: Path) -> None:
    recorded = recording(load(files_of(ROW, folder), CPU))
    for seed in range(3):
        rgb = scene(40, 30, seed=seed)
        assert np.array_equal(recorded.enlarge(rgb, unchecked), upscaler.enlarge(rgb, unchecked))
    assert counts(recorded.graphs) == (1, 2, 0)


def test_nothing_is_recorded_where_memory_is_short(folder: Path) -> None:
    recorded = recording(load(files_of(ROW, folder), CPU))
    for _ in range(3):
        recorded.enlarge(scene(40, 30), unchecked, 16)
    assert counts(recorded.graphs) == (0, 0, 0)


def test_what_is_made_at_four_times_the_size_is_no_part_of_a_recording(folder: Path) -> None:
    recorded = recording(load(files_of(ROW, folder), CPU))
    (network,) = recorded.networks
    seen: list[str] = []
    for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"):
        network[name].register_forward_hook(lambda *_, name=name: seen.append(name))
    for _ in range(3):
        seen.clear()
        recorded.enlarge(scene(24, 16), unchecked)
    assert seen == ["conv_up1", "conv_up2", "conv_hr", "conv_last"]


def test_half_precision_is_near(upscaler: Upscaler, folder: Path) -> None:
    half = load(files_of(ROW, folder), Device("cpu", "cpu", "bfloat16"))
    assert next(half.networks[0].parameters()).dtype == torch.bfloat16
    rgb = scene(40, 30)
    assert np.abs(half.enlarge(rgb, unchecked).astype(int) - upscaler.enlarge(rgb, unchecked)).mean() < 3


@pytest.mark.parametrize("tile_px", [None, 16])
def test_it_stops_at_the_next_block(upscaler: Upscaler, tile_px: int | None) -> None:
    for last in (1, 2, 3):
        asked = 0

        def check(last: int = last) -> None:
            nonlocal asked
            asked += 1
            if asked == last:
                raise Cancelled("the job was cancelled")

        with pytest.raises(Cancelled):
            upscaler.enlarge(scene(40, 30), check, tile_px)
        assert asked == last


def test_the_same_bytes_each_time(upscaler: Upscaler, folder: Path) -> None:
    rgb = scene(40, 30)
    once = upscaler.enlarge(rgb, unchecked)
    assert np.array_equal(once, load(files_of(ROW, folder), CPU).enlarge(rgb, unchecked))


# Loading


def stored(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = torch.load(folder / FILES[0], weights_only=True)
    return value


def rewritten(tmp_path: Path, value: object) -> ModelFiles:
    torch.save(value, tmp_path / FILES[0])
    return files_of(ROW, tmp_path)


def refused(files: ModelFiles) -> str:
    with pytest.raises(ModelCorrupt) as fault:
        load(files, CPU)
    assert ROW in fault.value.message
    assert str(files.folder) not in fault.value.message
    return fault.value.message


def test_its_networks_can_be_counted(upscaler: Upscaler, tmp_path: Path) -> None:
    (network,) = upscaler.networks
    counted = sum(parameter.numel() for parameter in network.parameters())
    assert counted == synthetic.write(ROW, tmp_path, "tiny", 1)
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_averaged_weights_come_before_plain_ones(upscaler: Upscaler, folder: Path, tmp_path: Path) -> None:
    averaged = stored(folder)["params_ema"]
    other = {name: -value for name, value in averaged.items()}
    rgb = scene(24, 16)
    expected = upscaler.enlarge(rgb, unchecked)
    forms = ({"params_ema": averaged, "params": other}, {"params": averaged}, averaged)
    for form in forms:
        assert np.array_equal(load(rewritten(tmp_path, form), CPU).enlarge(rgb, unchecked), expected)
    assert not np.array_equal(load(rewritten(tmp_path, {"params": other}), CPU).enlarge(rgb, unchecked), expected)


def test_weights_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    def changed(**change: torch.Tensor) -> ModelFiles:
        return rewritten(tmp_path, {"params_ema": stored(folder)["params_ema"] | change})

    fewer = stored(folder)["params_ema"]
    del fewer["body.0.rdb2.conv3.bias"]
    assert "1 are missing" in refused(rewritten(tmp_path, {"params_ema": fewer}))
    assert "1 are unknown" in refused(changed(stray=torch.zeros(3)))
    assert "1 have the wrong shape" in refused(changed(**{"conv_hr.bias": torch.zeros(3)}))


@pytest.mark.parametrize("value", [{"params_ema": 5}, {"params": {"conv_first.weight": "text"}}, {}, {"epoch": 3}])
def test_a_file_of_something_else_is_refused(tmp_path: Path, value: object) -> None:
    refused(rewritten(tmp_path, value))


def test_weights_that_are_no_numbers_are_found(folder: Path, tmp_path: Path) -> None:
    weights = stored(folder)["params_ema"]
    weights["conv_body.bias"].fill_(torch.inf)
    upscaler = load(rewritten(tmp_path, {"params_ema": weights}), CPU)
    with pytest.raises(ModelCorrupt, match=ROW):
        upscaler.enlarge(scene(24, 16), unchecked)


def test_a_file_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "sprung",)

    refused(rewritten(tmp_path, {"params_ema": Trap()}))
    assert not (tmp_path / "sprung").exists()


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing):
        load(files_of(ROW, tmp_path), CPU)


# Random weights


def test_random_weights_are_the_same_for_a_seed(folder: Path, tmp_path: Path) -> None:
    for seed, same in ((1, True), (2, False)):
        synthetic.write(ROW, tmp_path, "tiny", seed)
        assert sorted(path.name for path in tmp_path.iterdir()) == list(FILES)
        assert ((tmp_path / FILES[0]).read_bytes() == (folder / FILES[0]).read_bytes()) == same


def test_no_random_weight_is_without_effect(folder: Path) -> None:
    assert [name for name, value in stored(folder)["params_ema"].items() if value.std() == 0] == []


def test_random_weights_of_full_size_have_the_published_shapes(tmp_path: Path) -> None:
    assert synthetic.write(ROW, tmp_path, "full", 3) == 4_467_779
    weights = stored(tmp_path)["params_ema"]
    assert {name: tuple(value.shape) for name, value in weights.items()} == published("rrdbnet").shapes
