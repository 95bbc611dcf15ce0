"""The segmenter against transformers' own loading, processing and post-processing, on tiny random weights."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the studio extra is not installed")

import torch
from safetensors.torch import load_file, save_file
from transformers import SamModel, SamProcessor
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

from builder.synthetic import sam as synthetic
from models.device import CPU, Device
from models.sam import FILES, NEARLY_BEST, PROMPTS_AT_ONCE, Sam, load
from pipeline.errors import LiveryError, ModelCorrupt, ModelMissing
from pipeline.types import U8, Mask
from tests.images import scene
from tests.rows import files_of
from tests.traces import Traces, counts, recording

ROW = "sam-vit-huge"
SHAPES = [(192, 128), (96, 160), (144, 144)]
"""Width and height: landscape, portrait, square."""


@dataclass(frozen=True)
class Segmenter:
    ours: Sam
    network: Any
    processor: Any


@pytest.fixture(scope="module")
def segmenter(folder: Path) -> Segmenter:
    network: Any = SamModel
    pictures: Any = SamImageProcessorPil
    processor: Any = SamProcessor
    return Segmenter(
        load(files_of(ROW, folder), CPU),
        network.from_pretrained(folder).eval(),
        processor(pictures.from_pretrained(folder)),
    )


def picture(size: tuple[int, int], seed: int = 3) -> U8:
    return scene(*size, seed=seed)


def boxes_in(size: tuple[int, int]) -> list[tuple[float, float, float, float]]:
    width, height = size
    return [(0, 0, width, height), (width * 0.2, height * 0.4, width * 0.85, height * 0.8), (5.5, 3.25, 40.0, 60.75)]


def by_the_library(segmenter: Segmenter, rgb: U8, *, multimask: bool, **prompts: Any) -> tuple[Any, Any]:
    inputs = segmenter.processor(rgb, return_tensors="pt", **prompts)
    sizes = inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes")
    prompted = {name: value.float() if value.is_floating_point() else value for name, value in inputs.items()}
    with torch.no_grad():
        made = segmenter.network(**prompted, multimask_output=multimask)
    masks = segmenter.processor.post_process_masks(made.pred_masks, *sizes)[0]
    return masks.numpy(), made.iou_scores[0].numpy()


@pytest.mark.parametrize("size", SHAPES)
def test_boxes_give_what_the_library_gives(segmenter: Segmenter, size: tuple[int, int]) -> None:
    rgb, boxes = picture(size), boxes_in(size)
    expected, _ = by_the_library(segmenter, rgb, multimask=False, input_boxes=[[list(box) for box in boxes]])
    masks = segmenter.ours.segment(rgb, boxes)
    assert len(masks) == 3
    for ours, theirs in zip(masks, expected[:, 0], strict=True):
        assert ours.shape == rgb.shape[:2]
        assert ours.dtype == np.bool_
        assert np.array_equal(ours, theirs)
        assert 0 < ours.mean() < 1
    assert not np.array_equal(masks[0], masks[2])


@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize("at", [(0.5, 0.5), (0.1, 0.9), (0.8, 0.3)])
def test_a_point_gives_the_largest_of_the_library_s_best(
    segmenter: Segmenter, size: tuple[int, int], at: tuple[float, float]
) -> None:
    rgb, point = picture(size), (at[0] * size[0], at[1] * size[1])
    masks, scores = by_the_library(segmenter, rgb, multimask=True, input_points=[[list(point)]])
    good = [mask for mask, score in zip(masks[0], scores[0], strict=True) if score >= scores[0].max() - NEARLY_BEST]
    assert np.array_equal(segmenter.ours.segment_at(rgb, point), max(good, key=lambda mask: mask.sum()))


GOLDEN = Path(__file__).parent / "data" / "sam_masks.json"
STEP = 4
"""Every fourth pixel of every fourth row is held in the golden file."""


def frozen_weights() -> dict[str, torch.Tensor]:
    """Random numbers whose stream NumPy promises never to change, for the tiny network."""
    random = np.random.RandomState(20)
    tensors = {}
    for name, shape in sorted(synthetic._shapes(synthetic._config("tiny")).items()):
        numbers = random.standard_normal(shape)
        if len(shape) > 1:
            numbers *= np.prod(shape[1:]) ** -0.5
        else:
            numbers = 0.1 * numbers + name.endswith("weight")
        tensors[name] = torch.from_numpy(numbers).float()
    tensors["shared_image_embedding.positional_embedding"] *= 4.0
    return tensors


def golden_masks(folder: Path) -> dict[str, list[str]]:
    """For each size, each box's mask as hexadecimal bits."""
    save_file(frozen_weights(), folder / "model.safetensors")
    ours = load(files_of(ROW, folder), CPU)
    return {
        f"{size[0]}x{size[1]}": [
            np.packbits(mask[::STEP, ::STEP]).tobytes().hex() for mask in ours.segment(picture(size), boxes_in(size))
        ]
        for size in SHAPES
    }


def test_masks_are_those_of_the_golden_file(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    expected, made = json.loads(GOLDEN.read_text()), golden_masks(tmp_path)
    assert made.keys() == expected.keys()
    for size, masks in expected.items():
        for ours, theirs in zip(made[size], masks, strict=True):
            bits = [np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8)) for text in (ours, theirs)]
            assert np.mean(bits[0] == bits[1]) > 0.995, size
            assert 0.02 < bits[1].mean() < 0.98


@pytest.mark.parametrize("predicted", [(0.9, 0.85, 0.3), (0.3, 0.9, 0.85), (0.85, 0.3, 0.9), (0.9, 0.9, 0.9)])
def test_of_masks_that_are_nearly_as_good_the_largest_is_taken(
    folder: Path, segmenter: Segmenter, tmp_path: Path, predicted: tuple[float, float, float]
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    tensors = load_file(folder / "model.safetensors")
    tensors["mask_decoder.iou_prediction_head.proj_out.weight"][:] = 0.0
    tensors["mask_decoder.iou_prediction_head.proj_out.bias"] = torch.tensor([0.0, *predicted])
    save_file(tensors, tmp_path / "model.safetensors")
    rgb, point = picture(SHAPES[0]), (60.0, 50.0)
    masks, _ = by_the_library(segmenter, rgb, multimask=True, input_points=[[list(point)]])
    good = [mask for mask, iou in zip(masks[0], predicted, strict=True) if iou > 0.8]
    assert len({int(mask.sum()) for mask in masks[0]}) == 3
    assert np.array_equal(
        load(files_of(ROW, tmp_path), CPU).segment_at(rgb, point), max(good, key=lambda mask: mask.sum())
    )


def test_a_picture_is_encoded_once(segmenter: Segmenter) -> None:
    runs: list[int] = []
    (network,) = segmenter.ours.networks
    encoder: Any = getattr(network, "vision_encoder")  # noqa: B009 - the module's type doesn't know its parts
    hook = encoder.register_forward_hook(lambda *_: runs.append(1))
    try:
        rgb, other = picture(SHAPES[0], seed=5), picture(SHAPES[0], seed=6)
        segmenter.ours.segment(rgb, boxes_in(SHAPES[0]))
        segmenter.ours.segment(rgb.copy(), boxes_in(SHAPES[0])[:1])
        segmenter.ours.segment_at(rgb, (9.0, 9.0))
        assert len(runs) == 1
        second = segmenter.ours.segment(other, boxes_in(SHAPES[0]))
        assert len(runs) == 2
        # The same bytes at another shape are another picture.
        segmenter.ours.segment(other.reshape(SHAPES[0][0], SHAPES[0][1], 3), [(0, 0, 50, 50)])
        assert len(runs) == 3
        segmenter.ours.forget()
        assert np.array_equal(segmenter.ours.segment(other, boxes_in(SHAPES[0])), second)
        assert len(runs) == 4
    finally:
        hook.remove()


def test_recorded_calls_cut_out_what_plain_ones_do(folder: Path, segmenter: Segmenter) -> None:
    recorded = recording(load(files_of(ROW, folder), CPU))
    runs: list[int] = []
    recorded.networks[0].vision_encoder.register_forward_hook(lambda *_: runs.append(1))
    for seed, size in enumerate((*SHAPES, SHAPES[0])):  # pictures of any shape are padded to one
        rgb = picture(size, seed)
        ours, plain = (model.segment(rgb, boxes_in(size)) for model in (recorded, segmenter.ours))
        assert np.array_equal(ours, plain)
        assert np.array_equal(recorded.segment_at(rgb, (30.0, 40.0)), segmenter.ours.segment_at(rgb, (30.0, 40.0)))
    assert counts(recorded.graphs) == (1, 3, 0)
    assert len(runs) == 2  # a plain call, and the one that was recorded


def test_pictures_reach_the_encoder_as_the_library_prepares_them(segmenter: Segmenter) -> None:
    network: Any = segmenter.ours.networks[0]
    seen: list[torch.Tensor] = []
    hook = network.vision_encoder.register_forward_pre_hook(lambda _encoder, given: seen.append(given[0]))
    for size in (*SHAPES, (7, 90)):
        segmenter.ours.segment(picture(size, seed=8), [(0, 0, 5, 5)])
        assert torch.equal(seen[-1], segmenter.processor(picture(size, seed=8), return_tensors="pt")["pixel_values"])
    hook.remove()


def test_relative_positions_are_the_library_s(segmenter: Segmenter) -> None:
    network: Any = segmenter.ours.networks[0]
    side = network.config.vision_config.image_size
    pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(4))
    assert {layer.window_size > 0 for layer in network.vision_encoder.layers} == {True, False}
    with torch.inference_mode():
        ours, theirs = (model.vision_encoder(pixels).last_hidden_state for model in (network, segmenter.network))
    assert torch.equal(ours, theirs)


def test_the_library_s_own_encoder_takes_its_positions_from_the_host(segmenter: Segmenter) -> None:
    side = segmenter.network.config.vision_config.image_size
    encoder: Any = segmenter.network.vision_encoder
    with pytest.raises(AssertionError, match="from the host"), torch.inference_mode():
        Traces().record(lambda pixels: encoder(pixels).last_hidden_state, (torch.zeros(1, 3, side, side),))


def test_many_boxes_are_worked_off_in_parts(segmenter: Segmenter) -> None:
    rgb = picture(SHAPES[0])
    boxes = [(float(i), float(i), i + 40.0, i + 30.0) for i in range(2 * PROMPTS_AT_ONCE + 3)]
    together = segmenter.ours.segment(rgb, boxes)
    alone = [segmenter.ours.segment(rgb, [box])[0] for box in boxes]
    assert len(together) == len(boxes)
    agree = np.mean(np.array(together) == np.array(alone))
    assert agree > 0.9999  # sums of a batch may be taken in another order
    assert segmenter.ours.segment(rgb, []) == ()


def test_red_and_blue_are_not_swapped(segmenter: Segmenter) -> None:
    rgb = picture(SHAPES[0])
    swapped = np.ascontiguousarray(rgb[..., ::-1])
    right, wrong = (segmenter.ours.segment(seen, boxes_in(SHAPES[0])) for seen in (rgb, swapped))
    assert not np.array_equal(right, wrong)


def agreement(first: tuple[Mask, ...], second: tuple[Mask, ...]) -> float:
    return float(np.mean(np.array(first) == np.array(second)))


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_in_half_precision_the_encoder_alone_is_half(folder: Path, segmenter: Segmenter, half: Any) -> None:
    lighter = load(files_of(ROW, folder), Device("cpu", "cpu", half))
    (network,) = lighter.networks
    kinds = {name.split(".")[0]: p.dtype for name, p in network.named_parameters()}
    assert kinds.pop("vision_encoder") == getattr(torch, half)
    assert set(kinds.values()) == {torch.float32}
    rgb = picture(SHAPES[0])
    assert agreement(lighter.segment(rgb, boxes_in(SHAPES[0])), segmenter.ours.segment(rgb, boxes_in(SHAPES[0]))) > 0.97


def test_the_files_are_in_the_published_layout(folder: Path, segmenter: Segmenter, tmp_path: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    stored = load_file(folder / "model.safetensors")
    segmenter.network.save_pretrained(tmp_path)
    assert stored.keys() == load_file(tmp_path / "model.safetensors").keys()
    assert {"shared_image_embedding.positional_embedding", "vision_encoder.neck.conv1.weight"} <= stored.keys()
    assert all(tensor.float().std() > 0 for tensor in stored.values() if tensor.numel() > 1)


def test_published_weights_have_the_published_size() -> None:
    numbers = sum(int(np.prod(shape)) for shape in synthetic._shapes(synthetic._config("full")).values())
    assert abs(numbers / 1e6 - 641) < 6.41


@pytest.mark.parametrize("fault", ["missing", "more", "shape"])
def test_weights_that_do_not_fit_are_refused(folder: Path, tmp_path: Path, fault: str) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    tensors = load_file(folder / "model.safetensors")
    if fault == "missing":
        del tensors["mask_decoder.iou_token.weight"]
    elif fault == "more":
        tensors["mask_decoder.more"] = torch.zeros(3)
    else:
        tensors["vision_encoder.pos_embed"] = torch.zeros(1, 2, 2, 32)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelCorrupt, match=ROW):
        load(files_of(ROW, tmp_path), CPU)


@pytest.mark.parametrize("name", ["vision_encoder.neck.conv1.weight", "mask_decoder.mask_tokens.weight"])
def test_numbers_that_are_none_are_a_fault_and_not_an_empty_mask(folder: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    tensors = load_file(folder / "model.safetensors")
    tensors[name][:] = float("nan")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelCorrupt, match=ROW):
        load(files_of(ROW, tmp_path), CPU).segment(picture(SHAPES[0]), boxes_in(SHAPES[0]))


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_needed(folder: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).unlink()
    with pytest.raises(LiveryError) as refused:
        load(files_of(ROW, tmp_path), CPU)
    assert isinstance(refused.value, ModelMissing)
