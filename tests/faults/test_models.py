"""The studio engine where its surroundings fail: no network, no memory, a GPU that is lost. Tiny random models.

Every fault is raised where torch raises it, inside a network's forward pass, or by the interpreter's own audit.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import handler
import pipeline.run
from pipeline.errors import DeadlineExceeded, InternalError, OutOfMemory
from pipeline.export.audit import audit_svg
from pipeline.types import Drawing, Ink, Palette
from pipeline.vectorize import vectorize
from pipeline.worker import Worker
from tests.faults.conftest import Figure
from tests.test_studio import (
    FRAME_PX,
    INKS,
    STUDIO,
    at_each_forward,
    codes,
    illustrate,
    picture,
    request_json,
    settings_of,
)

torch = pytest.importorskip("torch", reason="the studio extra is not installed")

FAILURES = 20
APART = 37
"""Forward passes from one injected failure to the next, so that the twenty fall into every model."""

BUDGET_S = 0.5

Serve = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def worker(tiny_volume: Path) -> Worker:
    """With everything loaded, as after a first job."""
    warm = Worker(settings_of(tiny_volume))
    illustrate(warm)
    return warm


@pytest.fixture(scope="module")
def expected(worker: Worker) -> Any:
    """What a job gives where nothing fails."""
    return illustrate(worker)


@pytest.fixture
def serve(tiny_volume: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """The handler as the platform calls it, with its settings in the environment."""
    monkeypatch.setenv("LIVERY_VOLUME", str(tiny_volume))
    monkeypatch.setenv("LIVERY_ALLOW_SYNTHETIC", "true")
    monkeypatch.setenv("LIVERY_THREADS", "1")
    monkeypatch.setattr("pipeline.run.FRAME_PX", FRAME_PX)
    handler.worker_for.cache_clear()
    yield lambda **more: handler.handler(request_json(**more))
    handler.worker_for.cache_clear()


# ---- no network


class Cable:
    """The way out of this process; cut, it ends every attempt and notes it."""

    def __init__(self) -> None:
        self.cut = False
        self.tried: list[str] = []
        sys.addaudithook(self._see)

    def _see(self, event: str, _: tuple[Any, ...]) -> None:
        if self.cut and event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
            self.tried.append(event)
            raise OSError(101, "Network is unreachable")

    @contextmanager
    def without(self) -> Iterator[list[str]]:
        self.cut, self.tried = True, []
        try:
            yield self.tried
        finally:
            self.cut = False


@pytest.fixture(scope="module")
def cable() -> Cable:
    return Cable()


def test_whole_jobs_run_from_a_warm_volume_without_the_network(serve: Serve, cable: Cable, figure: Figure) -> None:
    with cable.without() as tried:
        for mode in ("fast", "faithful"):
            reply = serve(mode=mode)
            assert reply.get("error") is None, reply
            audit_svg(reply["svg"], Palette(tuple(Ink(ink["hex"], ink["name"]) for ink in reply["report"]["palette"])))
            assert [ink["hex"] for ink in reply["report"]["palette"]] == INKS
            assert (reply["report"]["engine"], reply["report"]["mode"]) == ("studio", mode)
            assert len(reply["report"]["loads"]) >= 1
            assert len(reply["png"]) == 1
    figure(
        "no network",
        f"2 modes with their loads, whole; {len(tried)} attempts to connect",
        "whole run from a warm volume",
    )
    assert tried == []


def test_the_cable_is_what_is_cut(cable: Cable) -> None:
    with cable.without() as tried, pytest.raises(OSError, match="unreachable"):
        socket.create_connection(("127.0.0.1", 9), timeout=1)
    assert tried


# ---- memory


def fail_at(number: int) -> Callable[[int, Any], None]:
    def fail(count: int, _: Any) -> None:
        if count == number:
            raise torch.OutOfMemoryError("CUDA out of memory")

    return fail


def test_memory_that_runs_out_at_any_of_twenty_calls_is_survived(worker: Worker, expected: Any, figure: Figure) -> None:
    recovered = 0
    for k in range(FAILURES):
        at = 1 + APART * k
        with at_each_forward(fail_at(at)) as calls:
            try:
                result = illustrate(worker)
            except OutOfMemory:
                continue
        assert calls[0] > at, "the fault was never raised"
        assert sorted(codes(result)) == sorted(["memory_freed", *codes(expected)])
        audit_svg(result.drawing.svg, result.index.palette)
        assert result.drawing.svg == expected.drawing.svg
        recovered += 1
    figure("GPU out of memory", f"{recovered} of {FAILURES} recover, the rest are OutOfMemory", "≥ 95 % of k = 1 … 20")
    assert recovered >= 0.95 * FAILURES
    again = illustrate(worker)
    assert (codes(again), again.drawing.svg) == (codes(expected), expected.drawing.svg)


def test_what_was_drawn_with_less_memory_is_audited_too(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    def stray(*given: Any, **named: Any) -> Drawing:
        drawing = vectorize(*given, **named)
        return replace(drawing, svg=drawing.svg.replace(INKS[0], "#14161B"))

    monkeypatch.setattr(pipeline.run, "vectorize", stray)
    with at_each_forward(fail_at(1)) as calls, pytest.raises(InternalError):
        illustrate(worker)
    assert calls[0] > 1


def test_memory_that_stays_short_is_typed_and_the_next_job_is_whole(
    worker: Worker, expected: Any, figure: Figure
) -> None:
    typed = 0
    for k in (0, FAILURES // 2):

        def fail(count: int, _: Any, at: int = 1 + APART * k) -> None:
            if count >= at:
                raise torch.OutOfMemoryError("CUDA out of memory")

        with at_each_forward(fail), pytest.raises(OutOfMemory):
            illustrate(worker)
        typed += 1
        assert illustrate(worker).drawing.svg == expected.drawing.svg
    figure(
        "GPU out of memory",
        f"short from the k-th call on: {typed} of {typed} typed, next job whole",
        "typed; next job fine",
    )


def test_a_real_cap_on_the_gpu_s_memory_is_survived_or_typed(worker: Worker, expected: Any, figure: Figure) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU whose memory could be capped")
    total_bytes, peak_bytes = torch.cuda.get_device_properties(0).total_memory, torch.cuda.max_memory_reserved()
    outcomes: list[str] = []
    for share in (0.9, 0.75, 0.5, 0.25):
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(share * peak_bytes / total_bytes)
        try:
            result = illustrate(worker)
            audit_svg(result.drawing.svg, result.index.palette)
            outcomes.append("recovered")
        except OutOfMemory:
            outcomes.append("typed")
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        assert illustrate(worker).drawing.svg == expected.drawing.svg
    figure("GPU out of memory", f"capped at 90 to 25 % of its peak: {', '.join(outcomes)}", "recovered or typed")


# ---- a phase hangs


def test_a_studio_phase_that_sleeps_past_its_time_fails_the_job_by_its_name(
    worker: Worker, tiny_volume: Path, figure: Figure
) -> None:
    from diffusers import UNet2DConditionModel  # noqa: PLC0415
    from transformers.models.sam.modeling_sam import SamVisionEncoder  # noqa: PLC0415

    late_s: list[float] = []
    for phase, kind in (("sanitize", SamVisionEncoder), ("steer", UNet2DConditionModel)):
        began_s: list[float] = []

        def sleep(_: int, __: Any, began_s: list[float] = began_s) -> None:
            began_s.append(time.monotonic())
            time.sleep(BUDGET_S + 1.0)

        hasty = Worker(settings_of(tiny_volume, **{f"studio_deadline_{phase}_s": BUDGET_S}))
        hasty.studio = worker.studio
        with at_each_forward(sleep, kind), pytest.raises(DeadlineExceeded) as caught:
            illustrate(hasty)
        late_s.append(time.monotonic() - began_s[0] - BUDGET_S)
        assert caught.value.phase == phase
        assert len(began_s) == 1
    figure("a phase hangs", f"studio, each step sleeps 1 s too long: at most {max(late_s):.1f} s late", "budget + 2 s")
    assert max(late_s) < 2


# ---- a GPU that is lost


def test_a_sticky_cuda_error_ends_the_worker(serve: Serve, figure: Figure) -> None:
    serve()
    texts = ("an illegal memory access was encountered", "unspecified launch failure", "device-side assert triggered")
    for k, text in enumerate(texts):

        def fail(count: int, _: Any, at: int = 5 + 400 * k, text: str = text) -> None:
            if count == at:
                raise torch.AcceleratorError(f"CUDA error: {text}")

        with at_each_forward(fail):
            reply = serve()
        assert (reply["code"], reply["refresh_worker"], reply["retryable"]) == ("DeviceLost", True, True)
    figure(
        "sticky CUDA error",
        f"{len(texts)} of {len(texts)} are DeviceLost with refresh_worker",
        "DeviceLost, refresh_worker",
    )


# ---- jobs apart


def test_a_studio_job_gives_the_same_bytes_whatever_ran_before_it(
    worker: Worker, tiny_volume: Path, figure: Figure
) -> None:
    alone = illustrate(Worker(settings_of(tiny_volume)))
    first = illustrate(worker)
    illustrate(worker, picture(90), seed=5, mode="faithful", style={**STUDIO["style"], "prompt": "a woodcut"})
    third = illustrate(worker)
    assert alone.drawing.svg == first.drawing.svg == third.drawing.svg
    assert alone.pngs == first.pngs == third.pngs
    figure("state between jobs", "studio: A, B, A are A alone, byte for byte", "byte-identical")
