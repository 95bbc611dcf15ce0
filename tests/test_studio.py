"""The studio engine whole, through the handler and on tiny random models: what its pictures show means nothing here.

Every fault is raised where torch raises it, inside a network's forward pass or by an allocation, never by a stand-in of
ours.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import socket
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import handler
from models import units
from models.faults import fault_of
from models.studio import TILES_PX
from pipeline.errors import (
    Cancelled,
    DeadlineExceeded,
    ModelMissing,
    NoSubject,
    OutOfMemory,
    ShapeDrift,
)
from pipeline.request import parse_request
from pipeline.run import run
from pipeline.settings import Settings
from pipeline.worker import Worker

torch = pytest.importorskip("torch", reason="the studio extra is not installed")

FRAME_PX = 96
INKS = ["#14161A", "#F2F4F5", "#C8262B", "#5B6770"]

STUDIO: dict[str, Any] = {
    "engine": "studio",
    "palette": INKS,
    "subject": {"box": [20, 24, 124, 78]},
    "sanitize": {"max_subject_share": 1},
    "style": {"allow_drift": True, "retries": 0, "steps": 2},
    "cache": "off",
    "output": {"png_widths": [64], "upscale": False},
}
"""Allowed to drift and to take off anything: random networks find and draw noise."""


def picture(red: int = 200) -> bytes:
    """A red block with windows and wheels on a road, 144 × 96 px, as PNG."""
    rgb = np.zeros((96, 144, 3), np.uint8)
    rgb[:] = np.linspace(210, 150, 96).astype(np.uint8)[:, None, None]
    rgb[66:] = (96, 98, 102)
    rgb[34:70, 24:120] = (red, 38, 43)
    rgb[38:50, 40:100] = (60, 90, 110)
    for x in (44, 98):
        yy, xx = np.mgrid[:96, :144]
        rgb[(yy - 70) ** 2 + (xx - x) ** 2 < 100] = (22, 23, 26)
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG")
    return file.getvalue()


PHOTO = picture()


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def settings_of(volume: Path, **more: Any) -> Settings:
    return Settings(volume=volume, allow_synthetic=True, threads=1, **more)


@pytest.fixture(scope="module")
def worker(tiny_volume: Path) -> Worker:
    """With everything loaded, as after a first job."""
    warm = Worker(settings_of(tiny_volume))
    for mode in ("fast", "faithful"):
        illustrate(warm, mode=mode)
    return warm


def illustrate(worker: Worker, data: bytes = PHOTO, **request: Any) -> Any:
    job = parse_request({**STUDIO, **request})
    return run(job, worker, data=data, frame_px=FRAME_PX)


def codes(result: Any) -> list[str]:
    return [warning.code for warning in result.report.warnings]


@contextmanager
def at_each_forward(act: Callable[[int, Any], None], kind: type[Any] | None = None) -> Iterator[list[int]]:
    """Calls `act(k, module)` before the k-th forward pass (from 1) of any convolution or linear layer, or of `kind`."""
    count = [0]
    kinds = (torch.nn.Conv2d, torch.nn.Linear) if kind is None else (kind,)

    def hook(module: Any, _: Any) -> None:
        if isinstance(module, kinds):
            count[0] += 1
            act(count[0], module)

    handle = torch.nn.modules.module.register_module_forward_pre_hook(hook)
    try:
        yield count
    finally:
        handle.remove()


def nothing(_: int, __: Any) -> None:
    """Only counts."""


def request_json(**more: Any) -> dict[str, Any]:
    return {"id": "studio-1", "input": {**STUDIO, "image": base64.b64encode(PHOTO).decode("ascii"), **more}}


@pytest.fixture
def through_handler(tiny_volume: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., dict[str, Any]]]:
    """The handler as the platform calls it, with its settings in the environment and no network."""
    monkeypatch.setenv("LIVERY_VOLUME", str(tiny_volume))
    monkeypatch.setenv("LIVERY_ALLOW_SYNTHETIC", "true")
    monkeypatch.setenv("LIVERY_THREADS", "1")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("pipeline.run.FRAME_PX", FRAME_PX)
    yield lambda **more: handler.handler(request_json(**more))
    handler.worker_for.cache_clear()


class TestThroughTheHandler:
    def test_the_report_names_what_was_used_and_loaded(self, through_handler: Any) -> None:
        output = {"png_widths": [64]}
        first, second = (through_handler(output=output)["report"] for _ in range(2))
        used = {
            "grounding-dino-base", "sam-vit-huge", "big-lama", "depth-anything-v2-small", "sdxl-base",
            "sdxl-vae-fp16-fix", "controlnet-union-promax", "sdxl-lightning-4step", "realesrgan-x4plus-anime",
        }  # fmt: skip
        assert used - {"big-lama"} <= set(first["models"]) <= used | {"style-lora"}
        assert set(second["models"]) == set(first["models"])
        assert len(first["loads"]) >= 7
        assert all(spent_ms > 0 for spent_ms in first["loads"].values())
        assert second["loads"] == {}

    def test_the_second_job_reads_nothing_of_the_volume(self, through_handler: Any, tiny_volume: Path) -> None:
        through_handler()
        opened: list[str] = []
        inside = str(tiny_volume / "models")

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "open" and isinstance(arguments[0], str | bytes) and inside in str(arguments[0]):
                opened.append(str(arguments[0]))

        sys.addaudithook(watch)
        assert through_handler().get("error") is None
        assert opened == []

    def test_no_weight_file_is_mapped(self, through_handler: Any, tiny_volume: Path) -> None:
        maps = Path("/proc/self/maps")
        if not maps.exists():
            pytest.skip("this system has no /proc")
        through_handler()
        assert str(tiny_volume) not in maps.read_text()

    def test_the_same_job_gives_the_same_bytes_also_from_a_worker_of_its_own(self, through_handler: Any) -> None:
        first = through_handler()
        handler.worker_for.cache_clear()
        again = through_handler()
        assert first["svg"] == again["svg"]
        assert first["png"][0]["sha256"] == again["png"][0]["sha256"]

    def test_a_worker_that_is_not_told_so_serves_no_random_weights(
        self, through_handler: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LIVERY_ALLOW_SYNTHETIC", "false")
        reply = through_handler()
        assert (reply["code"], reply["field"]) == ("ModelMissing", "engine")
        assert "random weights" in reply["error"]

    def test_auto_is_a_draft_where_there_is_no_gpu_and_says_so(self, through_handler: Any) -> None:
        if torch.cuda.is_available():
            pytest.skip("there is a GPU")
        reply = through_handler(engine="auto", style={}, sanitize={})
        assert reply["report"]["engine"] == "draft"
        assert {"code": "engine_auto", "message": "auto took the draft engine: this worker has no GPU"} in reply[
            "report"
        ]["warnings"]


class TestReinking:
    def test_another_palette_detail_or_output_runs_no_model(self, worker: Worker) -> None:
        changes: list[dict[str, Any]] = [
            {"palette": ["#000000", "#FFFFFF", "#00A0E0"]},
            {"detail": 0.9},
            {"tone": 0.0},
            {"output": {"formats": ["svg", "pdf"], "width_mm": 80, "upscale": False}},
            {"background": "remove"},
        ]
        first = illustrate(worker, cache="use", seed=11)
        assert not first.report.reinked
        with at_each_forward(nothing, torch.nn.Module) as calls:
            for change in changes:
                again = illustrate(worker, **{"cache": "use", "seed": 11, **change})
                assert again.report.reinked
                assert again.report.loads == {}
                assert again.report.models == first.report.models
                assert again.report.subject == first.report.subject
                assert (again.report.timings_ms.sanitize, again.report.timings_ms.steer) == (None, None)
        assert calls == [0]

    def test_the_picture_is_what_it_would_be_without(self, worker: Worker) -> None:
        other = ["#000000", "#FFFFFF", "#00A0E0"]
        fresh = illustrate(worker, cache="off", palette=other, seed=12)
        illustrate(worker, cache="use", seed=12)
        kept = illustrate(worker, cache="use", palette=other, seed=12)
        assert kept.report.reinked
        assert kept.drawing.svg == fresh.drawing.svg

    @pytest.mark.parametrize(
        "change",
        [
            {"seed": 14},
            {"mode": "faithful"},
            {"style": {**STUDIO["style"], "prompt": "a woodcut"}},
            {"subject": "whole"},
            {"sanitize": {**STUDIO["sanitize"], "regions": [[30, 40, 60, 60]]}},
        ],
    )
    def test_what_phases_1_and_2_answer_to_runs_them_again(self, worker: Worker, change: dict[str, Any]) -> None:
        illustrate(worker, cache="use", seed=13)
        assert not illustrate(worker, **{"cache": "use", "seed": 13, **change}).report.reinked

    def test_another_photo_is_another_picture(self, worker: Worker) -> None:
        illustrate(worker, cache="use", seed=15)
        assert not illustrate(worker, picture(120), cache="use", seed=15).report.reinked

    def test_off_keeps_and_takes_nothing(self, worker: Worker) -> None:
        illustrate(worker, cache="off", seed=16)
        assert not illustrate(worker, cache="use", seed=16).report.reinked
        assert not illustrate(worker, cache="off", seed=16).report.reinked


class TestMemory:
    def test_memory_that_stays_short_lets_the_others_go_and_then_is_an_error(self, worker: Worker) -> None:
        def fail(_: int, __: Any) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

        with at_each_forward(fail), pytest.raises(OutOfMemory, match="the segmenter does not fit"):
            illustrate(worker)
        assert worker.studio is not None
        assert worker.studio.thread.run(worker.studio.residents().loaded) == ("segmenter",)
        assert illustrate(worker).report.loads, "the others come back with the next job"

    def test_what_a_failed_attempt_held_is_free_before_the_next(self, worker: Worker) -> None:
        held: list[weakref.ref[Any]] = []
        alive: list[int] = []

        def fail(count: int, module: Any) -> None:
            del module
            if count == 1:
                tensor = torch.zeros(8)
                held.append(weakref.ref(tensor))
                raise torch.OutOfMemoryError("CUDA out of memory")
            alive.append(sum(ref() is not None for ref in held))

        with at_each_forward(fail):
            illustrate(worker)
        assert held
        assert alive[0] == 0

    def test_the_upscaler_steps_down_to_tiles(self, worker: Worker) -> None:
        whole = illustrate(worker, output={"png_widths": [64]})
        with no_room_for(worker, units.UPSCALER, lambda seen: seen.shape[-1] > 240):
            tiled = illustrate(worker, output={"png_widths": [64]})
        assert sorted(codes(tiled)) == sorted([*codes(whole), "memory_evicted", "memory_tiled"])
        (left,) = (warning.message for warning in tiled.report.warnings if warning.code == "memory_evicted")
        assert left.startswith("memory ran out in the upscaler: ")
        assert "fast painter" in left
        (how,) = (warning.message for warning in tiled.report.warnings if warning.code == "memory_tiled")
        assert how == f"memory ran out in the upscaler: the picture was enlarged in tiles of {TILES_PX[-1]} px"
        assert tiled.drawing.svg == whole.drawing.svg
        assert (tiled.report.size.width, tiled.report.size.height) == (1152, 768)

    @pytest.mark.parametrize("mode", ["fast", "faithful"])
    def test_the_painter_steps_down_to_a_smaller_picture(self, worker: Worker, mode: str) -> None:
        whole = illustrate(worker, mode=mode)
        unit = units.FAST if mode == "fast" else units.FAITHFUL
        with no_room_for(worker, unit, lambda noisy: noisy.shape[-1] > 30):
            smaller = illustrate(worker, mode=mode)
        assert sorted(codes(smaller)) == sorted([*codes(whole), "memory_evicted", "memory_smaller"])
        assert smaller.report.size == whole.report.size

    def test_the_least_recently_used_leaves_at_pressure(self, tiny_volume: Path) -> None:
        small = Worker(settings_of(tiny_volume, weights_mb=1))
        first, second = illustrate(small), illustrate(small)
        assert first.drawing.svg == second.drawing.svg
        assert second.report.loads, "something had to be loaded again"


@contextmanager
def no_room_for(worker: Worker, unit: Any, too_large: Callable[[Any], bool]) -> Iterator[None]:
    """Memory runs out in a unit's first network where its input is too large."""
    studio = worker.studio
    assert studio is not None
    model = studio.thread.run(lambda: studio.residents().get(unit))

    def fail(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen = given[0] if given else named["sample"]
        if too_large(seen):
            raise torch.OutOfMemoryError("CUDA out of memory")

    first = next(model.networks[0].children()) if unit is units.UPSCALER else model.networks[0]
    handle = first.register_forward_pre_hook(fail, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


class TestStopping:
    def test_a_cancel_at_any_forward_pass_ends_the_job_before_the_next_step(self, worker: Worker) -> None:
        from diffusers import UNet2DConditionModel  # noqa: PLC0415

        job = parse_request({**STUDIO, "style": {**STUDIO["style"], "steps": 4}})
        for at in (1, 2, 3):
            steps: list[int] = []

            def note(k: int, _: Any, steps: list[int] = steps) -> None:
                steps.append(k)

            def cancelled(at: int = at, steps: list[int] = steps) -> bool:
                return len(steps) >= at

            with at_each_forward(note, UNet2DConditionModel), pytest.raises(Cancelled):
                run(job, worker, data=PHOTO, frame_px=FRAME_PX, cancelled=cancelled)
            assert steps == list(range(1, at + 1))

    def test_a_phase_that_runs_past_its_time_ends_within_a_step(self, tiny_volume: Path, worker: Worker) -> None:
        hasty = Worker(settings_of(tiny_volume, studio_deadline_steer_s=0.001))
        hasty.studio = worker.studio
        with pytest.raises(DeadlineExceeded) as caught:
            illustrate(hasty)
        assert caught.value.phase == "steer"
        illustrate(worker)


class TestJobsApart:
    def test_seed_0_is_a_seed(self, worker: Worker) -> None:
        nought, one, again = illustrate(worker, seed=0), illustrate(worker, seed=1), illustrate(worker, seed=0)
        assert nought.report.seed == 0
        assert nought.drawing.svg == again.drawing.svg != one.drawing.svg

    def test_numbers_of_nought_are_taken_at_their_word(self, worker: Worker) -> None:
        for field in ("depth_weight", "canny_weight", "canny_until", "guidance_scale", "guidance_until"):
            used = {**STUDIO["style"], field: 0}
            report = illustrate(worker, mode="faithful", style=used).report
            assert getattr(report.options.style, field) == 0


class TestQuality:
    def test_a_shape_that_drifts_is_an_error_with_its_figure(self, worker: Worker) -> None:
        with pytest.raises(ShapeDrift) as caught:
            illustrate(worker, style={"iou_threshold": 1, "retries": 1})
        assert 0 <= caught.value.iou < 1

    def test_and_a_warning_where_that_is_allowed(self, worker: Worker) -> None:
        result = illustrate(worker, style={"iou_threshold": 1, "retries": 0, "allow_drift": True})
        assert "shape_drift" in codes(result)

    def test_no_vehicle_is_an_error(self, worker: Worker) -> None:
        flat = io.BytesIO()
        Image.fromarray(np.full((96, 144, 3), 128, np.uint8)).save(flat, "PNG")
        found = []
        try:
            illustrate(worker, flat.getvalue(), subject="auto")
        except NoSubject as fault:
            found.append(fault.field)
        assert found in ([], ["subject"])


class TestVolumes:
    @pytest.fixture
    def copy(self, tiny_volume: Path, tmp_path: Path) -> Path:
        target = tmp_path / "volume"
        shutil.copytree(tiny_volume, target)
        return target

    def test_a_row_without_a_pin_is_refused(self, copy: Path) -> None:
        manifest = json.loads((copy / "manifest.json").read_text())
        (copy / "manifest.json").write_text(json.dumps({**manifest, "kind": "hub"}))
        with pytest.raises(ModelMissing, match="lacks what the mode fast needs"):
            illustrate(Worker(settings_of(copy)))

    def test_a_volume_without_the_models_is_no_draft(self, tmp_path: Path) -> None:
        with pytest.raises(ModelMissing) as caught:
            illustrate(Worker(settings_of(tmp_path)))
        assert caught.value.field == "engine"

    def test_the_fault_of_a_missing_file_names_no_path(self, copy: Path) -> None:
        next(copy.glob("models/big-lama/*/*.safetensors")).unlink()
        with pytest.raises(ModelMissing) as caught:
            illustrate(Worker(settings_of(copy)))
        assert str(copy) not in str(caught.value)


ENDS = """
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1
"""


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (torch.AcceleratorError, "CUDA error: an illegal memory access was encountered"),
        (torch.AcceleratorError, "CUDA error: unspecified launch failure"),
        (torch.AcceleratorError, "CUDA error: device-side assert triggered"),
        (torch.AcceleratorError, "CUDA error: uncorrectable ECC error encountered"),
        (torch.AcceleratorError, "CUDA error: an illegal instruction was encountered"),
        (torch.AcceleratorError, "CUDA error: misaligned address"),
        (torch.AcceleratorError, "CUDA error: the launch timed out and was terminated"),
        (torch.AcceleratorError, "CUDA error: unknown error"),
        (RuntimeError, "CUDA driver error: an illegal memory access was encountered"),
        (RuntimeError, "Triton Error [CUDA]: device-side assert triggered"),
        (RuntimeError, "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        (RuntimeError, "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx( handle, opa, opb)`"),
        (RuntimeError, "cuFFT error: CUFFT_EXEC_FAILED"),
    ],
)
def test_lost_devices_are_told_from_other_faults(kind: type[RuntimeError], text: str) -> None:
    assert fault_of(kind(text + ENDS)) == "lost"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (torch.AcceleratorError, "CUDA error: invalid argument"),
        (torch.AcceleratorError, "CUDA error: invalid configuration argument"),
        (torch.AcceleratorError, "CUDA error: no kernel image is available for execution on the device"),
        (torch.AcceleratorError, "CUDA error: too many resources requested for launch"),
        (RuntimeError, "CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasSgemm( handle, opa, opb, m, n)`"),
        (RuntimeError, "CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx( handle, opa, opb)`"),
        (RuntimeError, "cuDNN error: CUDNN_STATUS_BAD_PARAM"),
        (RuntimeError, "expected scalar type Half but found Float"),
        (RuntimeError, "mat1 and mat2 shapes cannot be multiplied (1x2 and 3x4)"),
        (RuntimeError, "Expected all tensors to be on the same device, but found at least two devices"),
    ],
)
def test_a_call_that_was_refused_loses_no_device(kind: type[RuntimeError], text: str) -> None:
    assert fault_of(kind(text + ENDS)) is None


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: out of memory",
        "CUDA driver error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "GET was unable to find an engine to execute this computation",
    ],
)
def test_a_lack_of_memory_in_a_library_loses_no_device(text: str) -> None:
    assert fault_of(RuntimeError(text + ENDS)) == "memory"


def test_a_lack_of_memory_is_known_by_whoever_found_it() -> None:
    assert fault_of(torch.OutOfMemoryError("x")) == fault_of(MemoryError()) == "memory"
    assert fault_of(torch.AcceleratorError("CUDA error: out of memory" + ENDS)) == "memory"
    with pytest.raises(RuntimeError) as refused:
        torch.empty(10**15)
    assert fault_of(refused.value) == "memory"
    dot = np.zeros((1, 1), np.uint8)
    with pytest.raises(cv2.error) as no_room:
        cv2.resize(dot, (1_000_000, 1_000_000))
    assert fault_of(no_room.value) == "memory"
    with pytest.raises(cv2.error) as no_size:
        cv2.resize(dot, (0, 0))
    assert fault_of(no_size.value) is None
    assert fault_of(LookupError("out of memory")) is None
