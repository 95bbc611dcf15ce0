"""LaMa against the published definition's names, shapes and numbers; holes filled, everything else untouched."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the studio extra is not installed")

import torch
from safetensors.torch import load_file, save_file

from builder.synthetic import lama as synthetic
from models.device import CPU
from models.files import ModelFiles
from models.lama import (
    BLOCKS,
    FEATURES,
    FILES,
    Lama,
    _batches,
    _Crop,
    _crops,
    _restored,
    _seen,
    build_generator,
    generate,
    load,
)
from models.requests import unchecked
from pipeline.errors import Cancelled, ModelCorrupt, ModelMissing
from pipeline.types import U8, Box, Mask
from tests.images import scene
from tests.published import plaid, published, wave
from tests.rows import files_of

ROW = "big-lama"
PREFIX = "generator."


@pytest.fixture(scope="module")
def lama(folder: Path) -> Lama:
    return load(files_of(ROW, folder), CPU)


def mask_of(shape: tuple[int, int], *boxes: tuple[int, int, int, int]) -> Mask:
    mask = np.zeros(shape, np.bool_)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask


# The published definition


def test_its_weights_have_the_published_names_and_shapes() -> None:
    with torch.device("meta"):
        network = build_generator(FEATURES, BLOCKS)
    ours = {PREFIX + name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert ours == published("lama").shapes
    assert sum(parameter.numel() for parameter in network.parameters()) == 50_975_875


def test_it_computes_what_the_published_definition_computes() -> None:
    reference = published("lama")
    network = build_generator(reference.sizes["features"], reference.sizes["blocks"]).eval()
    network.load_state_dict({name: wave(name, tensor) for name, tensor in network.state_dict().items()})
    rgb, hole = plaid(24, 40), mask_of((24, 40), (9, 6, 30, 15))
    seen = np.dstack([rgb * ~hole[..., None] / np.float32(255), hole]).astype(np.float32)
    with torch.inference_mode():
        made = generate(network, torch.from_numpy(seen).permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    assert np.abs(made.numpy().ravel() - reference.picture).max() < 2e-5
    assert reference.picture.std() > 0.02


def test_filling_is_the_published_network_on_the_masked_picture(lama: Lama, folder: Path) -> None:
    weights = {name.removeprefix(PREFIX): value for name, value in load_file(folder / FILES[0]).items()}
    network = build_generator(8, 2).eval()
    network.load_state_dict(weights)
    rgb, hole = scene(64, 40), mask_of((40, 64), (20, 10, 40, 30))
    seen = np.dstack([rgb * ~hole[..., None], hole * np.uint8(255)]).astype(np.float32) / 255
    with torch.inference_mode():
        made = generate(network, torch.from_numpy(seen).permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    expected = np.rint(made.numpy() * 255).astype(np.uint8)
    assert np.array_equal(lama.inpaint(rgb, hole, unchecked)[hole], expected[hole])


# Filling holes


@pytest.mark.parametrize("shape", [(64, 96), (37, 53), (300, 401), (16, 9), (5, 3), (1, 1)])
def test_only_the_holes_change(lama: Lama, shape: tuple[int, int]) -> None:
    height, width = shape
    rgb = scene(width, height)
    hole = mask_of(shape, (width // 3, height // 3, width // 2 + 1, height // 2 + 1))
    kept = rgb.copy(), hole.copy()
    filled = lama.inpaint(rgb, hole, unchecked)
    assert filled.shape == rgb.shape
    assert filled.dtype == np.uint8
    assert np.array_equal(filled[~hole], rgb[~hole])
    assert np.array_equal(rgb, kept[0])
    assert np.array_equal(hole, kept[1])


def test_what_was_in_a_hole_has_no_effect(lama: Lama) -> None:
    rgb, hole = scene(400, 300), mask_of((300, 400), (20, 20, 60, 50), (300, 200, 390, 290))
    other = rgb.copy()
    other[hole] = 255 - other[hole]
    assert np.array_equal(lama.inpaint(rgb, hole, unchecked), lama.inpaint(other, hole, unchecked))


def test_what_is_around_a_hole_has_an_effect(lama: Lama) -> None:
    rgb, hole = scene(128, 96), mask_of((96, 128), (50, 40, 70, 60))
    other = 255 - rgb
    assert not np.array_equal(lama.inpaint(rgb, hole, unchecked)[hole], lama.inpaint(other, hole, unchecked)[hole])


def test_without_holes_nothing_runs(lama: Lama) -> None:
    rgb = scene(50, 40)

    def check() -> None:
        raise AssertionError("a crop was made")

    assert np.array_equal(lama.inpaint(rgb, np.zeros((40, 50), np.bool_), check), rgb)


def test_a_picture_that_is_all_hole_is_filled(lama: Lama) -> None:
    rgb = scene(40, 24)
    filled = lama.inpaint(rgb, np.ones((24, 40), np.bool_), unchecked)
    assert np.array_equal(filled, lama.inpaint(np.zeros_like(rgb), np.ones((24, 40), np.bool_), unchecked))


def crops_seen(lama: Lama, rgb: U8, hole: Mask) -> list[tuple[int, ...]]:
    """Height and width of what the network was run on, crop by crop."""
    seen: list[tuple[int, ...]] = []
    run: Any = lama.networks[0]["model"]["1"]["ffc"]["convl2l"]  # type: ignore[index]
    handle = run.register_forward_hook(lambda _module, given, _made: seen.append(tuple(given[0].shape[-2:])))
    lama.inpaint(rgb, hole, unchecked)
    handle.remove()
    return [(height - 6, width - 6) for height, width in seen]


def test_a_small_hole_is_filled_from_a_small_crop(lama: Lama) -> None:
    rgb, hole = scene(900, 600), mask_of((600, 900), (400, 300, 430, 320))
    assert crops_seen(lama, rgb, hole) == [(256, 256)]


def test_a_large_crop_is_reduced(lama: Lama) -> None:
    rgb, hole = scene(1500, 700), mask_of((700, 1500), (400, 300, 1000, 420))
    ((height, width),) = crops_seen(lama, rgb, hole)
    assert width == 1024
    assert 200 < height < 400
    filled = lama.inpaint(rgb, hole, unchecked)
    assert np.array_equal(filled[~hole], rgb[~hole])


def test_many_holes_share_crops(lama: Lama) -> None:
    corners = [(x, y) for x in range(10, 390, 40) for y in range(10, 290, 40)]
    hole = mask_of((300, 400), *((x, y, x + 4, y + 4) for x, y in corners))
    assert len(corners) == 70
    assert 1 <= len(crops_seen(lama, scene(400, 300), hole)) <= 8


def test_far_holes_are_filled_one_by_one(lama: Lama) -> None:
    rgb = scene(1000, 300)
    near, far = (20, 20, 60, 60), (900, 200, 950, 250)
    both = lama.inpaint(rgb, mask_of((300, 1000), near, far), unchecked)
    for hole in (near, far):
        mask = mask_of((300, 1000), hole)
        assert np.array_equal(both[mask], lama.inpaint(rgb, mask, unchecked)[mask])


def test_what_was_filled_first_is_known_to_the_next_crop(lama: Lama) -> None:
    # The second hole, being larger, looks further than the first: as far as the first one's right half.
    rgb = scene(700, 300)
    first, second = (mask_of((300, 700), hole) for hole in ((186, 120, 218, 150), (330, 120, 450, 150)))
    one_by_one = lama.inpaint(lama.inpaint(rgb, first, unchecked), second, unchecked)
    both = lama.inpaint(rgb, first | second, unchecked)
    assert np.array_equal(both[second], one_by_one[second])
    assert not np.array_equal(both[second], lama.inpaint(rgb, second, unchecked)[second])


def test_the_same_bytes_each_time(lama: Lama, folder: Path) -> None:
    rgb, hole = scene(300, 200), mask_of((200, 300), (50, 60, 120, 100))
    once = lama.inpaint(rgb, hole, unchecked)
    assert np.array_equal(once, lama.inpaint(rgb, hole, unchecked))
    assert np.array_equal(once, load(files_of(ROW, folder), CPU).inpaint(rgb, hole, unchecked))


# Batches


def one_by_one(lama: Lama, rgb: U8, mask: Mask) -> U8:
    """As `inpaint`, without batches."""
    filled, unknown = rgb.copy(), mask.copy()
    for crop in _crops(mask):
        painted = lama._paint(_seen(crop, filled, unknown)[None])[0]
        filled[crop.part][crop.hole] = _restored(painted, crop)[crop.hole]
        unknown[crop.part][crop.hole] = False
    return filled


def batches_seen(lama: Lama, rgb: U8, hole: Mask) -> list[int]:
    """Crops in each call of the network."""
    seen: list[int] = []
    run: Any = lama.networks[0]["model"]["1"]["ffc"]["convl2l"]  # type: ignore[index]
    handle = run.register_forward_hook(lambda _module, given, _made: seen.append(len(given[0])))
    lama.inpaint(rgb, hole, unchecked)
    handle.remove()
    return seen


@pytest.mark.parametrize("seed", range(6))
def test_batches_fill_what_one_by_one_does(lama: Lama, seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width = (int(side) for side in random.integers(700, 1300, 2))
    mask = np.zeros((height, width), np.bool_)
    for _ in range(9):
        wide, high = (int(side) for side in random.choice([6, 12, 30, 60, 130], 2))
        x, y = int(random.integers(0, width - wide)), int(random.integers(0, height - high))
        mask[y : y + high, x : x + wide] = True
    rgb = scene(width, height, seed)
    filled = lama.inpaint(rgb, mask, unchecked).astype(int)
    # Where a batch is summed in another order than one crop, a value may move by one level.
    assert np.abs(filled - one_by_one(lama, rgb, mask)).max() <= 1
    assert len(batches_seen(lama, rgb, mask)) < len(list(_crops(mask)))


def test_crops_of_one_size_go_together_and_others_alone(lama: Lama) -> None:
    apart = ((20, 20, 60, 60), (700, 20, 740, 60), (1400, 200, 1450, 250))
    assert batches_seen(lama, scene(1500, 300), mask_of((300, 1500), *apart)) == [3]
    one_larger = (*apart[:2], (1300, 100, 1450, 250))
    assert sorted(batches_seen(lama, scene(1500, 400), mask_of((400, 1500), *one_larger))) == [1, 2]


def test_a_crop_that_sees_another_one_s_hole_waits_for_it(lama: Lama) -> None:
    # 200 px apart: each lies in the other's crop of 256 px, but has too little of it around to be filled from there.
    rgb, mask = scene(700, 256), mask_of((256, 700), (240, 100, 270, 130), (340, 100, 370, 130))
    crops = list(_crops(mask))
    assert [crop.hole.shape for crop in crops] == [(256, 256)] * 2
    assert crops[1].sees(crops[0])
    assert batches_seen(lama, rgb, mask) == [1, 1]
    assert np.array_equal(lama.inpaint(rgb, mask, unchecked), one_by_one(lama, rgb, mask))


def crop_at(left: int, hole_left: int) -> _Crop:
    """256 px a side, with a hole of 10 px; both from the left of the picture."""
    hole = np.zeros((256, 256), np.bool_)
    hole[100:110, hole_left - left : hole_left - left + 10] = True
    return _Crop(Box(left, 0, left + 256, 256), hole)


def test_of_two_crops_the_first_stays_the_first_where_one_sees_the_other() -> None:
    first, middle, last = crop_at(0, 230), crop_at(200, 330), crop_at(400, 420)
    assert (middle.sees(first), first.sees(middle)) == (True, False)
    assert (middle.sees(last), last.sees(middle)) == (True, False)
    assert list(_batches([last, middle])) == [[last], [middle]]
    assert list(_batches([first, middle, last])) == [[first], [middle], [last]]
    assert list(_batches([first, last, middle])) == [[first, last], [middle]]


def test_a_batch_is_no_larger_than_the_largest_crop(lama: Lama) -> None:
    corners = [(x, y) for y in (100, 400, 700, 1000, 1300) for x in range(100, 1500, 300)]
    mask = mask_of((1500, 1600), *((x, y, x + 8, y + 8) for x, y in corners))
    sizes = batches_seen(lama, scene(1600, 1500), mask)
    assert (max(sizes), sum(sizes)) == (16, 25)  # 1024² pixels are 16 crops of 256²


def test_it_stops_before_the_next_batch(lama: Lama) -> None:
    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise Cancelled("the job was cancelled")

    rgb, hole = scene(1500, 300), mask_of((300, 1500), (20, 20, 60, 60), (500, 20, 740, 60), (1000, 200, 1450, 250))
    with pytest.raises(Cancelled):
        lama.inpaint(rgb, hole, check)
    assert asked == 2


# Loading


def rewritten(folder: Path, tmp_path: Path, change: Any) -> ModelFiles:
    copy = tmp_path / ROW
    shutil.copytree(folder, copy)
    weights = load_file(copy / FILES[0])
    change(weights)
    save_file(weights, copy / FILES[0])
    return files_of(ROW, copy)


def refused(files: ModelFiles) -> str:
    with pytest.raises(ModelCorrupt) as fault:
        load(files, CPU)
    assert ROW in fault.value.message
    assert str(files.folder) not in fault.value.message
    return fault.value.message


def test_its_networks_can_be_counted(lama: Lama, folder: Path, tmp_path: Path) -> None:
    (network,) = lama.networks
    counted = sum(parameter.numel() for parameter in network.parameters())
    assert counted == synthetic.write(ROW, tmp_path, "tiny", 1)
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(part.training for part in network.modules())


def test_the_names_of_a_generator_alone_are_known_too(lama: Lama, folder: Path, tmp_path: Path) -> None:
    def change(weights: dict[str, torch.Tensor]) -> None:
        for name in list(weights):
            weights[name.removeprefix(PREFIX)] = weights.pop(name)

    rgb, hole = scene(64, 48), mask_of((48, 64), (20, 10, 40, 30))
    bare = load(rewritten(folder, tmp_path, change), CPU)
    assert np.array_equal(bare.inpaint(rgb, hole, unchecked), lama.inpaint(rgb, hole, unchecked))


def test_what_else_a_training_stores_is_left_out(folder: Path, tmp_path: Path) -> None:
    def change(weights: dict[str, torch.Tensor]) -> None:
        weights["discriminator.model0.0.weight"] = torch.zeros(4)
        weights["val_evaluator.scores.lpips.bias"] = torch.zeros(4)

    load(rewritten(folder, tmp_path, change), CPU)


@pytest.mark.parametrize("name", ["model.1.bn_l.weight", "model.5.conv1.ffc.convg2g.fu.conv_layer.weight"])
def test_a_missing_weight_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    assert "1 are missing" in refused(rewritten(folder, tmp_path, lambda weights: weights.pop(PREFIX + name)))


def test_an_unknown_weight_is_refused(folder: Path, tmp_path: Path) -> None:
    files = rewritten(folder, tmp_path, lambda weights: weights.update(stray=torch.zeros(3)))
    assert "1 are unknown" in refused(files)


def test_a_weight_of_another_shape_is_refused(folder: Path, tmp_path: Path) -> None:
    files = rewritten(folder, tmp_path, lambda weights: weights.update({f"{PREFIX}model.1.bn_l.bias": torch.zeros(9)}))
    assert "1 have the wrong shape" in refused(files)


def test_weights_that_are_no_numbers_are_found(folder: Path, tmp_path: Path) -> None:
    def change(weights: dict[str, torch.Tensor]) -> None:
        weights[f"{PREFIX}model.5.conv1.bn_l.weight"].fill_(torch.nan)

    lama = load(rewritten(folder, tmp_path, change), CPU)
    with pytest.raises(ModelCorrupt, match=ROW):
        lama.inpaint(scene(64, 48), mask_of((48, 64), (20, 10, 40, 30)), unchecked)


def test_a_file_cut_short_or_missing_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / FILES[0]).write_bytes((folder / FILES[0]).read_bytes()[:-100])
    with pytest.raises(ModelCorrupt):
        load(files_of(ROW, tmp_path), CPU)
    (tmp_path / FILES[0]).unlink()
    with pytest.raises(ModelMissing):
        load(files_of(ROW, tmp_path), CPU)


# Random weights


def test_random_weights_are_the_same_for_a_seed(folder: Path, tmp_path: Path) -> None:
    for seed, same in ((1, True), (2, False)):
        synthetic.write(ROW, tmp_path, "tiny", seed)
        assert sorted(path.name for path in tmp_path.iterdir()) == list(FILES)
        assert ((tmp_path / FILES[0]).read_bytes() == (folder / FILES[0]).read_bytes()) == same
    assert (folder / FILES[0]).stat().st_size < 1 << 20


def test_no_random_weight_is_without_effect(folder: Path) -> None:
    weights = load_file(folder / FILES[0])
    flat = [name for name, value in weights.items() if value.is_floating_point() and value.std() == 0]
    assert flat == []
