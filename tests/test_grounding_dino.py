"""The detector against transformers' own loading, processing and post-processing, on tiny random weights."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

pytest.importorskip("torch", reason="the studio extra is not installed")

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, GroundingDinoForObjectDetection, GroundingDinoProcessor
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil

from builder.synthetic import grounding_dino as synthetic
from models.device import CPU
from models.grounding_dino import FILES, GroundingDino, load
from models.requests import Detection
from pipeline.errors import LiveryError, ModelCorrupt, ModelMissing
from pipeline.schema import Target
from pipeline.things import PHRASES
from pipeline.types import U8
from pipeline.vehicle import PHRASES as VEHICLES
from tests.images import scene
from tests.rows import files_of
from tests.traces import Traces

ROW = "grounding-dino-base"
TARGETS = tuple(phrase for phrases in PHRASES.values() for phrase in phrases)
SHAPES = [(192, 128), (128, 192), (144, 144)]
"""Width and height: landscape, portrait, square."""


@dataclass(frozen=True)
class Detector:
    ours: GroundingDino
    network: Any
    processor: Any


@pytest.fixture(scope="module")
def detector(folder: Path) -> Detector:
    network: Any = GroundingDinoForObjectDetection
    pictures: Any = GroundingDinoImageProcessorPil
    processor: Any = GroundingDinoProcessor
    return Detector(
        load(files_of(ROW, folder), CPU),
        network.from_pretrained(folder).eval(),
        processor(pictures.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)),
    )


def picture(size: tuple[int, int]) -> U8:
    return scene(*size, seed=3)


def by_the_library(
    detector: Detector, rgb: U8, phrases: tuple[str, ...], box_threshold: float, text_threshold: float
) -> list[tuple[list[float], float, list[str]]]:
    """Boxes cut to the picture, scores and the words of each, best first; boxes without a word left out."""
    inputs = detector.processor(images=rgb, text=[list(phrases)], return_tensors="pt")
    with torch.no_grad():
        made = detector.network(**inputs)
    found = detector.processor.post_process_grounded_object_detection(
        made, threshold=box_threshold, text_threshold=text_threshold, target_sizes=[rgb.shape[:2]]
    )[0]
    limits = np.tile([rgb.shape[1], rgb.shape[0]], 2)
    boxes = np.clip(found["boxes"].numpy(), 0, limits)
    words = [re.findall(r"[a-z]+", label) for label in found["text_labels"]]  # full stops and [SEP] are no words
    rows = zip(boxes.tolist(), found["scores"].tolist(), words, strict=True)
    return sorted((row for row in rows if row[2]), key=lambda row: -row[1])


@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize("phrases", [TARGETS, VEHICLES])
@pytest.mark.parametrize("thresholds", [(0.35, 0.25), (0.6, 0.7), (0.0, 0.0)])
def test_it_finds_what_the_library_finds(
    detector: Detector, size: tuple[int, int], phrases: tuple[str, ...], thresholds: tuple[float, float]
) -> None:
    rgb = picture(size)
    expected = by_the_library(detector, rgb, phrases, *thresholds)
    found = detector.ours.detect(rgb, phrases, *thresholds)
    assert len(found) == len(expected) >= 3
    assert np.allclose([f.box for f in found], [box for box, _, _ in expected], atol=1e-3)
    assert np.allclose([f.score for f in found], [score for _, score, _ in expected], atol=1e-6)
    for ours, (_, _, words) in zip(found, expected, strict=True):
        assert ours.label in phrases
        assert set(ours.label.split()) & set(words), f"{ours.label} is not among {words}"


@pytest.mark.parametrize("size", [*SHAPES, (16, 400), (17, 17)])
def test_pictures_reach_the_network_as_the_library_prepares_them(detector: Detector, size: tuple[int, int]) -> None:
    given: list[tuple[torch.Tensor, torch.Tensor]] = []
    (network,) = detector.ours.networks
    backbone: Any = network.get_submodule("model.backbone")
    hook = backbone.register_forward_pre_hook(lambda _backbone, seen: given.append(seen))
    detector.ours.detect(picture(size), TARGETS, 0.3, 0.3)
    hook.remove()
    expected = detector.processor(images=picture(size), text=[["car"]], return_tensors="pt")
    pixels, mask = given[0]
    assert torch.equal(pixels, expected["pixel_values"])
    assert torch.equal(mask, expected["pixel_mask"])


def test_its_calls_wait_for_the_device(detector: Detector) -> None:
    (network,) = detector.ours.networks
    text = detector.ours._tokenizer("car.", return_tensors="pt")
    with pytest.raises((AssertionError, RuntimeError)), torch.inference_mode():
        Traces().record(lambda pixels: network(pixels, **text).logits, (torch.zeros(1, 3, 96, 96),))


def test_the_label_is_the_phrase_of_the_surest_word(detector: Detector) -> None:
    rgb, sure = picture(SHAPES[0]), 0.0
    for found in detector.ours.detect(rgb, TARGETS, 0.0, 0.0):
        # Just below the best word's probability, the library names that word alone.
        named = by_the_library(detector, rgb, TARGETS, found.score - 1e-6, found.score - 1e-6)
        words = [words for _, score, words in named if score == pytest.approx(found.score, abs=1e-7)]
        if words:
            sure += 1
            assert set(words[0]) <= set(found.label.split())
    assert sure >= 3


def test_thresholds_only_ever_take_away(detector: Detector) -> None:
    rgb = picture(SHAPES[0])

    def found(box_threshold: float, text_threshold: float) -> set[Detection]:
        return set(detector.ours.detect(rgb, TARGETS, box_threshold, text_threshold))

    steps = (0.0, 0.2, 0.35, 0.5, 0.7, 0.9, 1.0)
    by_box = [found(threshold, 0.0) for threshold in steps]
    assert all(fewer <= more for more, fewer in pairwise(by_box))
    assert len({len(step) for step in by_box}) >= 4
    assert not by_box[-1]
    assert all(f.score > 0.7 for f in by_box[5])
    by_text = [found(0.0, threshold) for threshold in steps]
    assert len({len(step) for step in by_text}) >= 4
    assert not by_text[-1]


def test_nothing_asked_is_nothing_found(detector: Detector) -> None:
    assert detector.ours.detect(picture(SHAPES[0]), (), 0.0, 0.0) == ()


@pytest.mark.parametrize("size", [(16, 400), (400, 16), (17, 17), (3, 40)])
def test_boxes_stay_inside_pictures_of_any_shape(detector: Detector, size: tuple[int, int]) -> None:
    found = detector.ours.detect(picture(size), TARGETS, 0.0, 0.0)
    assert found
    for box in (f.box for f in found):
        assert 0 <= box[0] < box[2] <= size[0]
        assert 0 <= box[1] < box[3] <= size[1]


def test_red_and_blue_are_not_swapped(detector: Detector) -> None:
    rgb = picture(SHAPES[0])
    swapped = np.ascontiguousarray(rgb[..., ::-1])
    right, wrong = ([f.score for f in detector.ours.detect(seen, TARGETS, 0.0, 0.0)] for seen in (rgb, swapped))
    assert not np.allclose(right, wrong, atol=1e-4)


def test_every_target_of_the_request_has_its_phrases() -> None:
    assert set(PHRASES) == set(get_args(Target))
    assert len(set(TARGETS)) == len(TARGETS)
    assert not [phrase for phrase in (*TARGETS, *VEHICLES) if "." in phrase]


def test_the_files_are_in_the_published_layout(folder: Path, detector: Detector, tmp_path: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    stored = load_file(folder / "model.safetensors")
    # As IDEA-Research/grounding-dino-base has them: names of transformers 4, the box head under its decoder alias.
    assert "model.backbone.conv_encoder.model.embeddings.patch_embeddings.projection.weight" in stored
    assert "model.backbone.conv_encoder.model.encoder.layers.0.blocks.0.attention.self.query.weight" in stored
    assert "model.decoder.bbox_embed.0.layers.0.weight" in stored
    assert not [name for name in stored if name.startswith("bbox_embed")]
    detector.network.save_pretrained(tmp_path)
    written = load_file(tmp_path / "model.safetensors")
    assert {name.removeprefix("model.decoder.") for name in stored} == {
        name.removeprefix("model.decoder.") for name in written
    }
    assert all(tensor.float().std() > 0 for tensor in stored.values() if tensor.numel() > 1)


def test_a_file_that_the_library_wrote_loads_as_well(folder: Path, detector: Detector, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    detector.network.save_pretrained(tmp_path)
    again = load(files_of(ROW, tmp_path), CPU)
    rgb = picture(SHAPES[1])
    assert again.detect(rgb, TARGETS, 0.3, 0.3) == detector.ours.detect(rgb, TARGETS, 0.3, 0.3)


def test_published_weights_have_the_published_size() -> None:
    config = synthetic._config("full")
    numbers = sum(int(np.prod(shape)) for shape in synthetic._shapes(config).values())
    assert abs(numbers / 1e6 - 232) < 2.32


def test_the_network_is_counted_and_in_float32(detector: Detector) -> None:
    (network,) = detector.ours.networks
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert sum(p.numel() for p in network.parameters()) > 400_000


Tensors = dict[str, torch.Tensor]


def without_one(tensors: Tensors) -> None:
    del tensors["model.text_projection.bias"]


def with_another(tensors: Tensors) -> None:
    tensors["model.more.weight"] = torch.zeros(2)


def of_other_shape(tensors: Tensors) -> None:
    tensors["model.level_embed"] = torch.zeros(4, 31)


def of_two_types(tensors: Tensors) -> None:
    tensors["model.level_embed"] = tensors["model.level_embed"].half()


@pytest.mark.parametrize("spoil", [without_one, with_another, of_other_shape, of_two_types])
def test_weights_that_do_not_fit_are_refused(folder: Path, tmp_path: Path, spoil: Callable[[Tensors], None]) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    tensors = load_file(folder / "model.safetensors")
    spoil(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelCorrupt) as refused:
        load(files_of(ROW, tmp_path), CPU)
    assert ROW in str(refused.value)
    assert "/" not in str(refused.value)


def test_numbers_that_are_none_are_a_fault_and_not_an_empty_result(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.text_projection.bias"][:] = float("nan")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelCorrupt, match=ROW):
        load(files_of(ROW, tmp_path), CPU).detect(picture(SHAPES[0]), TARGETS, 0.35, 0.25)


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_needed(folder: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).unlink()
    with pytest.raises(LiveryError) as refused:
        load(files_of(ROW, tmp_path), CPU)
    assert isinstance(refused.value, ModelMissing)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".json")])
def test_a_file_that_was_cut_short_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    content = (folder / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelCorrupt, match=ROW):
        load(files_of(ROW, tmp_path), CPU)
