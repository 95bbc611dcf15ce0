"""What a studio worker does beside painting: loads, progress, what it keeps, a volume that changes, a GPU that goes.

Faults are raised where torch or the system raises them. A GPU is a CPU that says it is one.
"""

from __future__ import annotations

import gc
import hashlib
import json
import random
import shutil
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from models import units
from models.device import CPU, Device
from models.loader import Residents, Unit
from models.reading import BLOCK_BYTES, read_whole
from models.store import Store
from models.studio import StudioWorker
from models.weights import BadWeights
from pipeline.errors import Cancelled, DeadlineExceeded, DeviceLost, InternalError, OutOfMemory
from pipeline.request import parse_request
from pipeline.run import run
from pipeline.steps import DOING, STUDIO_PERCENT, Progress
from pipeline.worker import Worker
from tests.test_studio import FRAME_PX, PHOTO, STUDIO, at_each_forward, codes, illustrate, settings_of

torch = pytest.importorskip("torch", reason="the studio extra is not installed")

ENLARGED = {"png_widths": [64], "upscale": True}
LARGE_BYTES = 1 << 30


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def worker(tiny_volume: Path) -> Worker:
    return Worker(settings_of(tiny_volume))


@pytest.fixture
def volume(tiny_volume: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    target = tmp_path / "volume"
    shutil.copytree(tiny_volume, target)
    return target


def studio_of(worker: Worker) -> StudioWorker:
    assert worker.studio is not None
    return worker.studio


def loaded(worker: Worker) -> tuple[str, ...]:
    studio = studio_of(worker)
    return studio.do(lambda: studio.residents().loaded())


def told_of(worker: Worker, **request: Any) -> tuple[Any, list[Progress]]:
    """What a job makes, and all that is told of it on the way."""
    told: list[Progress] = []
    job = parse_request({**STUDIO, **request})
    return run(job, worker, data=PHOTO, frame_px=FRAME_PX, progress=told.append), told


class TestProgress:
    def test_each_step_of_each_attempt_moves_it_and_nothing_moves_it_back(self, worker: Worker) -> None:
        style = {**STUDIO["style"], "steps": 4, "iou_threshold": 1, "retries": 1}
        _, told = told_of(worker, mode="faithful", style=style)
        percents = [step.percent for step in told]
        assert percents == sorted(percents)
        assert percents[0] == 0
        steps = [step for step in told if " of 4" in step.message]
        assert [step.message for step in steps] == [
            *(f"step {k} of 4" for k in (1, 2, 3, 4)),
            *(f"attempt 2, step {k} of 4" for k in (1, 2, 3, 4)),
        ]
        assert len({step.percent for step in steps}) == 8
        assert {step.phase for step in steps} == {"steer"}
        assert all(STUDIO_PERCENT["steer"] <= step.percent < STUDIO_PERCENT["enforce"] for step in steps)

    def test_every_load_is_told_as_it_begins(self, tiny_volume: Path) -> None:
        result, told = told_of(Worker(settings_of(tiny_volume)), output=ENLARGED)
        messages = [step.message for step in told if step.message.startswith("loading")]
        assert messages == [f"loading {name}" for name in result.report.loads]
        assert {"loading segmenter", "loading fast painter", "loading upscaler"} <= set(messages)


def swollen(volume: Path) -> Callable[[], None]:
    """Makes the segmenter's weights a file of `LARGE_BYTES` with a wrong checksum; gives what undoes that."""
    weights = next(volume.glob("models/sam-vit-huge/*/model.safetensors"))
    manifest, whole = volume / "manifest.json", weights.with_suffix(".whole")
    document, text = json.loads(manifest.read_text()), manifest.read_text()
    (entry,) = (file for file in document["rows"]["sam-vit-huge"]["files"] if file["path"] == weights.name)
    entry["bytes"] = LARGE_BYTES
    manifest.write_text(json.dumps(document))
    weights.rename(whole)
    with weights.open("wb") as file:
        file.truncate(LARGE_BYTES)

    def undo() -> None:
        whole.replace(weights)
        manifest.write_text(text)

    return undo


class TestLoading:
    def test_a_cancel_ends_a_load_and_the_next_job_loads_as_ever(self, volume: Path, worker: Worker) -> None:
        undo = swollen(volume)
        fresh, began_s = Worker(settings_of(volume)), []

        def note(step: Progress) -> None:
            if step.message == "loading segmenter":
                began_s.append(time.monotonic())

        def cancelled() -> bool:
            return bool(began_s) and time.monotonic() > began_s[0] + 0.05

        with pytest.raises(Cancelled):
            run(parse_request(STUDIO), fresh, data=PHOTO, frame_px=FRAME_PX, progress=note, cancelled=cancelled)
        assert time.monotonic() - began_s[0] < 4
        assert loaded(fresh) == ()
        undo()
        assert illustrate(fresh).drawing.svg == illustrate(worker).drawing.svg

    def test_a_phase_s_time_runs_during_a_load_too(self, volume: Path) -> None:
        swollen(volume)
        began_s = time.monotonic()
        hasty = Worker(settings_of(volume, studio_deadline_sanitize_s=0.1))
        hasty.studio = studio_of(hasty)
        assert studio_of(hasty).device  # imports torch
        with pytest.raises(DeadlineExceeded) as caught:
            illustrate(hasty)
        assert caught.value.phase == "sanitize"
        assert time.monotonic() - began_s < 6

    @pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, 11 * BLOCK_BYTES + 3])
    def test_a_file_that_several_streams_read_is_whole_and_hashed_in_order(self, size: int, tmp_path: Path) -> None:
        data = random.Random(size).randbytes(size)
        (tmp_path / "file").write_bytes(data)
        read = read_whole(tmp_path / "file", hashing=True)
        assert read.data.tobytes() == data
        assert read.sha256 == hashlib.sha256(data).hexdigest()
        assert read_whole(tmp_path / "file", hashing=False).sha256 is None

    def test_a_file_that_becomes_shorter_is_found_out(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(bytes(64 * BLOCK_BYTES))

        def cut() -> None:
            with path.open("r+b") as file:
                file.truncate(BLOCK_BYTES + 1)

        with pytest.raises(BadWeights):
            read_whole(path, hashing=True, ask=cut)


class TestResidency:
    def test_retries_and_further_jobs_load_and_read_nothing(self, tiny_volume: Path) -> None:
        served = Worker(settings_of(tiny_volume))
        drifting = {**STUDIO["style"], "iou_threshold": 1, "retries": 2}
        first, told = told_of(served, style=drifting)
        messages = [step.message for step in told]
        assert any("attempt 3" in message for message in messages)
        loading = [message for message in messages if message.startswith("loading")]
        assert len(loading) == len(set(loading)) == len(first.report.loads)
        reads = studio_of(served).store.reads
        before = reads.files, reads.bytes
        assert before[0] > len(loading)
        for _ in range(2):
            assert illustrate(served, style=drifting).report.loads == {}
        assert (reads.files, reads.bytes) == before

    def test_what_leaves_for_another_is_out_of_memory_before_that_tries_again(self, tiny_volume: Path) -> None:
        served = Worker(settings_of(tiny_volume))
        illustrate(served)
        studio = studio_of(served)

        def weights(unit: Any) -> list[weakref.ref[Any]]:
            networks = studio.do(lambda: studio.residents().get(unit)).networks
            return [weakref.ref(weight) for network in networks for weight in network.parameters()]

        others = [weight for unit in (units.VAE, units.FAST, units.PROMPT, units.DEPTH) for weight in weights(unit)]
        alive: list[int] = []

        def fail(k: int, _: Any) -> None:
            alive.append(sum(weight() is not None for weight in others))
            if k <= 2:  # at first, and once what was cached is freed
                raise torch.OutOfMemoryError("CUDA out of memory")

        with at_each_forward(fail):
            result = illustrate(served)
        assert "memory_evicted" in codes(result)
        assert alive[:3] == [len(others), len(others), 0]


def test_what_a_load_left_that_broke_off_is_free_before_the_next(tmp_path: Path) -> None:
    held: list[weakref.ref[Any]] = []

    class Idle:
        networks = ()

    def load(_files: Any, _device: Device) -> Idle:
        if held:
            assert held[0]() is None
            return Idle()
        half: Any = torch.nn.Module()
        half.itself = [half]  # as networks with hooks are: only a collection frees it
        held.append(weakref.ref(half))
        raise LookupError

    unit = Unit("test", (), load)
    residents = Residents(Store(tmp_path), CPU)
    gc.disable()
    try:
        with suppress(LookupError):
            residents.get(unit)
        assert held[0]() is not None
        assert residents.loaded() == ()
        residents.get(unit)
    finally:
        gc.enable()


@contextmanager
def counted() -> Iterator[set[int]]:
    """The modules that computed anything, by id."""
    seen: set[int] = set()
    handle = torch.nn.modules.module.register_module_forward_pre_hook(lambda module, _: seen.add(id(module)))
    try:
        yield seen
    finally:
        handle.remove()


class TestKept:
    def test_enlarging_runs_the_upscaler_alone_and_once(self, worker: Worker) -> None:
        fresh = illustrate(worker, cache="off", seed=31, output=ENLARGED)
        studio = studio_of(worker)
        (upscaler,) = studio.do(lambda: studio.residents().get(units.UPSCALER)).networks
        plain = illustrate(worker, cache="use", seed=31)
        with counted() as seen:
            larger = illustrate(worker, cache="use", seed=31, output=ENLARGED)
        assert seen
        assert seen <= {id(module) for module in upscaler.modules()}
        assert larger.report.reinked
        assert larger.drawing.svg == fresh.drawing.svg
        assert larger.report.models == fresh.report.models
        assert set(larger.report.models) - set(plain.report.models) == {"realesrgan-x4plus-anime"}
        with counted() as seen:
            back = illustrate(worker, cache="use", seed=31)
            again = illustrate(worker, cache="use", seed=31, output=ENLARGED)
        assert not seen
        assert (back.drawing.svg, again.drawing.svg) == (plain.drawing.svg, fresh.drawing.svg)
        assert back.report.models == plain.report.models

    def test_what_was_painted_for_an_enlarged_picture_serves_a_plain_one(self, worker: Worker) -> None:
        illustrate(worker, cache="use", seed=32, output=ENLARGED)
        with counted() as seen:
            plain = illustrate(worker, cache="use", seed=32)
        assert not seen
        assert plain.drawing.svg == illustrate(worker, cache="off", seed=32).drawing.svg


def renew(volume: Path, row: str, revision: str) -> None:
    """What a builder does that warms another revision of a row: its files first, then the manifest."""
    manifest = volume / "manifest.json"
    document = json.loads(manifest.read_text())
    folder = volume / "models" / row
    shutil.copytree(folder / document["rows"][row]["revision"], folder / revision, dirs_exist_ok=True)
    document["rows"][row]["revision"] = revision
    manifest.write_text(json.dumps(document))


class TestChangedVolume:
    def test_what_is_there_in_another_revision_is_loaded_again_and_reported(self, volume: Path) -> None:
        served = Worker(settings_of(volume))
        first = illustrate(served, cache="use")
        renew(volume, "sam-vit-huge", "f" * 40)
        second = illustrate(served, cache="use")
        assert not second.report.reinked
        assert set(second.report.loads) == {"segmenter"}
        assert second.report.models == {**first.report.models, "sam-vit-huge": "f" * 40}

    def test_another_upscaler_enlarges_what_was_painted(self, volume: Path) -> None:
        served = Worker(settings_of(volume))
        illustrate(served, cache="use", output=ENLARGED)
        renew(volume, "realesrgan-x4plus-anime", "e" * 40)
        second = illustrate(served, cache="use", output=ENLARGED)
        assert second.report.reinked
        assert set(second.report.loads) == {"upscaler"}
        assert second.report.models["realesrgan-x4plus-anime"] == "e" * 40

    def test_what_two_revisions_of_the_volume_made_is_reported_so_and_not_kept(self, volume: Path) -> None:
        served = Worker(settings_of(volume))
        before = (volume / "manifest.json").read_text()

        def change(step: Progress) -> None:
            if step.message == DOING["steer"]:
                renew(volume, "sdxl-vae-fp16-fix", "d" * 40)

        job = parse_request({**STUDIO, "cache": "use"})
        mixed = run(job, served, data=PHOTO, frame_px=FRAME_PX, progress=change)
        assert mixed.report.models["sdxl-vae-fp16-fix"] == "d" * 40
        (volume / "manifest.json").write_text(before)
        assert not illustrate(served, cache="use").report.reinked


@dataclass(frozen=True, slots=True)
class Card(Device):
    """A GPU of which torch knows nothing: it computes on the CPU."""

    def place(self) -> Any:
        return torch.device("cpu")


class TestGpu:
    @pytest.fixture
    def peak_bytes(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        peak = [0]
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: peak.__setitem__(0, 3 << 20))
        monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: peak[0])
        return peak

    @pytest.fixture
    def on_card(self, tiny_volume: Path, peak_bytes: list[int]) -> Worker:
        del peak_bytes
        served = Worker(settings_of(tiny_volume))
        studio = studio_of(served)
        studio._residents = Residents(studio.store, Card("cuda", "a card", "float32", 8192))
        return served

    def test_what_phase_3_took_and_gave_up_is_in_the_report(
        self, on_card: Worker, peak_bytes: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        count, calls = torch.bincount, []

        def short(*given: Any, **named: Any) -> Any:
            calls.append(given)
            peak_bytes[0] = 5 << 20
            if len(calls) <= 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return count(*given, **named)

        with monkeypatch.context() as patch:
            patch.setattr(torch, "bincount", short)
            result = illustrate(on_card)
        assert len(calls) == 4
        assert (result.report.gpu, result.report.vram_peak_mb) == ("a card", 5.0)
        assert codes(result)[-2:] == ["memory_evicted", "memory_cpu"]
        assert result.drawing.svg == illustrate(on_card).drawing.svg

    @pytest.mark.parametrize(
        ("fault", "known"),
        [
            ("CUDA error: an illegal memory access was encountered", DeviceLost),
            ("CUDA error: out of memory", OutOfMemory),
        ],
    )
    def test_a_gpu_that_fails_as_it_is_looked_for_is_told_by_its_name(
        self, tiny_volume: Path, monkeypatch: pytest.MonkeyPatch, fault: str, known: type[Exception]
    ) -> None:
        def fail() -> bool:
            raise torch.AcceleratorError(fault)

        monkeypatch.setattr(torch.cuda, "is_available", fail)
        with pytest.raises(known):
            illustrate(Worker(settings_of(tiny_volume)))

    def test_a_gpu_that_fails_as_memory_is_given_back_is_lost(
        self, on_card: Worker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail_once(k: int, _: Any) -> None:
            if k == 1:
                raise torch.OutOfMemoryError("CUDA out of memory")

        def fail() -> None:
            raise torch.AcceleratorError("CUDA error: unspecified launch failure")

        monkeypatch.setattr(torch.cuda, "empty_cache", fail)
        with at_each_forward(fail_once), pytest.raises(DeviceLost):
            illustrate(on_card)


def test_latents_that_are_no_numbers_are_found_before_they_are_decoded(worker: Worker) -> None:
    studio = studio_of(worker)
    painter: Any = studio.do(lambda: studio.residents().get(units.FAST)).networks[0]
    vae: Any = studio.do(lambda: studio.residents().get(units.VAE)).networks[0]

    def spoil(_module: Any, _given: Any, output: Any) -> Any:
        output[..., 0, 0] = torch.nan
        return output

    decoded: list[Any] = []
    handles = (
        painter.conv_out.register_forward_hook(spoil),
        vae.decoder.register_forward_pre_hook(lambda *given: decoded.append(given)),
    )
    try:
        with pytest.raises(InternalError):
            illustrate(worker)
    finally:
        for handle in handles:
            handle.remove()
    assert decoded == []
