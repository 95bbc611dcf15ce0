"""Which device serves, and what is said where it can't."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.device import CPU, Device, find_device, free_memory_mb, try_device, unfit_or
from pipeline.errors import ModelMissing
from pipeline.settings import Settings
from pipeline.worker import Worker

torch = pytest.importorskip("torch", reason="the studio extra is not installed")

CARD = Device("cuda", "NVIDIA GeForce RTX 5090", "float16", 32_607)

CU128 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
"""What torch 2.11 for CUDA 12.8 is built for."""

CU118 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_37", "sm_90"]


@pytest.mark.parametrize("capability", [(7, 5), (8, 6), (8, 9), (9, 0), (12, 0), (12, 1)])
def test_a_build_serves_its_own_devices_and_their_later_minor_versions(capability: tuple[int, int]) -> None:
    assert unfit_or(CARD, capability, CU128) is CARD


@pytest.mark.parametrize(("capability", "built_for"), [((12, 0), CU118), ((7, 0), CU128), ((10, 3), CU118)])
def test_a_build_without_code_for_the_device_is_refused(capability: tuple[int, int], built_for: list[str]) -> None:
    with pytest.raises(ModelMissing, match=rf"RTX 5090, sm_{capability[0]}{capability[1]}\) is not among"):
        unfit_or(CARD, capability, built_for)


def test_intermediate_code_serves_newer_devices_only() -> None:
    assert unfit_or(CARD, (12, 0), ["sm_80", "compute_90"]) is CARD
    with pytest.raises(ModelMissing):
        unfit_or(CARD, (8, 6), ["compute_90"])


def test_names_with_a_suffix_are_read() -> None:
    assert unfit_or(CARD, (9, 0), ["sm_90a"]) is CARD


def test_the_device_here_is_one_that_torch_can_compute_on() -> None:
    device = find_device()
    assert (device.kind == "cuda") == torch.cuda.is_available()
    ones = torch.ones(4, dtype=device.dtype(), device=device.place())
    assert float((ones + ones).sum()) == 8.0
    assert device.channels_last == (device.kind == "cuda")
    if device.kind == "cpu":
        assert device == CPU


def test_the_device_here_is_tried_by_having_it_compute() -> None:
    try_device(find_device())


def test_a_device_that_cannot_compute_is_found_out() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU, which can")
    # What a build without CUDA, or without a GPU, raises by itself.
    with pytest.raises((RuntimeError, AssertionError)):
        try_device(CARD)


def test_the_memory_that_is_free_is_part_of_the_gpu_s() -> None:
    device = find_device()
    if device.memory_mb is None:
        pytest.skip("there is no GPU")
    assert 0 < free_memory_mb() <= device.memory_mb


@pytest.mark.parametrize("wanted", [True, False])
def test_how_half_precision_is_summed_up_is_the_worker_s_setting(tiny_volume: Path, *, wanted: bool) -> None:
    studio = Worker(Settings(volume=tiny_volume, fp16_accumulation=wanted)).studio
    assert studio is not None
    assert studio.device == CPU
    assert torch.backends.cuda.matmul.allow_fp16_accumulation is wanted
