"""Several jobs at once on one worker: whose turn it is at the models, who hears what, and that no byte shows it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from benchmarks.pictures import Picture
from benchmarks.throughput import AT_ONCE, throughput_rows
from pipeline.errors import Cancelled, LiveryError, OutOfMemory, ShapeDrift
from pipeline.loop import WorkerLoop
from pipeline.measured import Measured
from pipeline.picture import WAITING
from pipeline.request import parse_request
from pipeline.run import JobResult, run
from pipeline.schema import Report
from pipeline.settings import Settings
from pipeline.steps import STUDIO_PERCENT, Progress, Steps
from pipeline.turn import Turn
from pipeline.updates import Job
from pipeline.worker import Worker
from tests.faults.test_jobs import A, B
from tests.faulty_worker import BUSY, DEAF, HANGS
from tests.serving import HANG_S, ROOT, Server, server, until
from tests.test_run import PICTURE as PHOTO
from tests.test_run import illustrate as illustrate_draft
from tests.test_worker_loop import FAULTY, SMALL, ends, serve_here, svg_of

SOON_S = 20.0
"""Far more than anything here takes that is not to wait."""

LATEST_S = 3.0
"""In which a job that waits has heard of its cancelling; it asks ten times a second, but the machine may be busy."""


def nobody_waits() -> None:
    pytest.fail("nobody has the turn")


def goes_on() -> None:
    """A job that nobody stops."""


def in_thread(work: Callable[[], Any]) -> Future[Any]:
    """What `work` gives, on a thread of its own."""
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(work)
    finally:
        pool.shutdown(wait=False)


# ---- the turn


def test_the_turn_goes_round_in_the_order_in_which_jobs_came_and_is_one_s_alone() -> None:
    turn, held, order, waiting = Turn(), threading.Lock(), list[int](), threading.Semaphore(0)

    def take(number: int) -> None:
        with turn(goes_on, waiting.release):
            assert held.acquire(blocking=False), "two have the turn"
            time.sleep(0.002)
            held.release()
            order.append(number)

    with turn(goes_on, nobody_waits) as waited_s:
        assert waited_s == 0
        jobs = []
        for number in range(12):
            jobs.append(in_thread(partial(take, number)))
            assert waiting.acquire(timeout=SOON_S)
    for job in jobs:
        job.result(SOON_S)
    assert order == list(range(12))
    with turn(goes_on, nobody_waits):
        pass


def test_a_job_within_another_on_its_thread_does_not_wait_for_it() -> None:
    turn, told, begun = Turn(), list[str](), threading.Event()

    def within() -> None:
        begun.set()
        with turn(goes_on, lambda: told.append("waits")):
            told.append("within")

    def take() -> None:
        with turn(goes_on, within):  # while it waits
            within()
            told.append("done")

    with turn(goes_on, nobody_waits):
        with turn(goes_on, nobody_waits) as waited_s:
            assert waited_s == 0
        waiting = in_thread(take)
        assert begun.wait(SOON_S)
        assert told == ["waits"] or not told
    waiting.result(SOON_S)
    assert told == ["waits", "within", "within", "done"]


def test_who_stops_waiting_or_fails_leaves_the_line() -> None:
    turn, begun, stop = Turn(), threading.Event(), threading.Event()
    patients: list[Future[float]] = []

    def ask() -> None:
        begun.set()
        if stop.is_set():
            raise Cancelled("the job was cancelled")

    def take() -> float:
        with turn(ask, goes_on) as waited_s:
            return waited_s

    def fail() -> None:
        with turn(goes_on, nobody_waits):
            stopped = in_thread(take)
            assert begun.wait(SOON_S)
            patients.append(in_thread(lambda: turn(goes_on, goes_on).__enter__()))
            stop.set()
            with pytest.raises(Cancelled):
                stopped.result(SOON_S)
            time.sleep(0.2)
            assert not patients[0].done()
            raise OutOfMemory("too much")

    with pytest.raises(OutOfMemory):
        fail()
    assert 0.2 <= patients[0].result(SOON_S) < SOON_S


# ---- the loop alone


def test_so_many_jobs_run_at_once_and_no_more() -> None:
    most, now, lock = 0, 0, threading.Lock()

    def handle(job: Job, cancelled: Callable[[], bool]) -> dict[str, Any]:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.1)
        with lock:
            now -= 1
        return {"id": job["id"]}

    async def jobs(loop: WorkerLoop) -> Any:
        return await asyncio.gather(*(loop.serve({"id": str(n), "input": {}}) for n in range(6)))

    for jobs_at_once in (1, 2, 4):
        most = 0
        replies = serve_here(handle, jobs, jobs_at_once)
        assert [reply["id"] for reply in replies] == list("012345")
        assert most == jobs_at_once


def test_a_cancel_is_heard_by_its_own_job_alone() -> None:
    running, heard = threading.Barrier(3), list[str]()

    def handle(job: Job, cancelled: Callable[[], bool]) -> dict[str, Any]:
        running.wait(SOON_S)
        for _ in range(100):
            if cancelled():
                heard.append(job["id"])
                return {"error": "Cancelled: x"}
            time.sleep(0.005)
        return {"id": job["id"]}

    async def jobs(loop: WorkerLoop) -> Any:
        stays, goes = (asyncio.create_task(loop.serve({"id": name, "input": {}})) for name in ("stays", "goes"))
        await asyncio.to_thread(running.wait, SOON_S)
        goes.cancel()
        return await asyncio.gather(stays, goes, return_exceptions=True)

    stays, goes = serve_here(handle, jobs, 2)
    assert heard == ["goes"]
    assert stays == {"id": "stays"}
    assert isinstance(goes, asyncio.CancelledError)


def test_a_job_that_comes_again_while_it_runs_waits_for_the_first_and_gets_its_bytes() -> None:
    served, first_runs, go_on = list[int](), threading.Event(), threading.Event()

    def handle(job: Job, cancelled: Callable[[], bool]) -> dict[str, Any]:
        served.append(len(served))
        first_runs.set()
        while not go_on.is_set() and not cancelled():
            time.sleep(0.005)
        return {"error": "Cancelled: x"} if cancelled() else {"n": served[-1]}

    async def jobs(loop: WorkerLoop, cancel: bool) -> Any:
        job = {"id": "a", "input": {"detail": 1}}
        first, again = (asyncio.create_task(loop.serve(job)) for _ in range(2))
        await asyncio.to_thread(first_runs.wait, SOON_S)
        await asyncio.sleep(0.1)
        assert served == [0]
        if cancel:
            first.cancel()
            await asyncio.wait({first})
        go_on.set()
        return await asyncio.gather(first, again, return_exceptions=True)

    assert serve_here(handle, lambda loop: jobs(loop, False), 2) == [{"n": 0}, {"n": 0}]
    assert served == [0]
    served.clear()
    first_runs.clear()
    go_on.clear()
    _, again = serve_here(handle, lambda loop: jobs(loop, True), 2)
    assert again == {"n": 1}


LEAVING = """
import asyncio, sys, threading, time
import pipeline.loop
pipeline.loop.GRACE_S, pipeline.loop.HUNG_S, pipeline.loop.LEAVE_S, pipeline.loop.STOP_S = {times}
from pipeline.errors import DeviceLost
from pipeline.watch import WATCH
LOST = {{**DeviceLost("gone").as_reply(), "refresh_worker": True}}
def handle(job, cancelled):
    name, began_s = job["id"], time.monotonic()
    if name == "hangs":
        WATCH.get().follow(lambda: ("steer", time.monotonic() - began_s))
    if name in ("hangs", "stuck"):
        time.sleep(60)
    if name == "lost":
        return dict(LOST)
    if name == "lost, too":
        time.sleep(0.5)
        return dict(LOST)
    while not cancelled() and (name != "short" or time.monotonic() < began_s + 1):
        time.sleep(0.01)
    return {{"error": "Cancelled: x"}} if cancelled() else {{"done": True}}
async def one(loop, name):
    try:
        reply = await loop.serve({{"id": name, "input": {{}}}})
        print(name, reply.get("code", "done"), flush=True)
    except asyncio.CancelledError:
        print(name, "no result", flush=True)
        raise
async def main():
    loop = pipeline.loop.WorkerLoop(handle, 4)
    assert loop.concurrency(1) == 4
    tasks = {{name: asyncio.create_task(one(loop, name)) for name in sys.argv[2:]}}
    await asyncio.sleep(0.2)
    if sys.argv[1] == "SIGTERM":
        loop.leave()
    elif sys.argv[1] in tasks:
        tasks[sys.argv[1]].cancel()
    await asyncio.sleep(30)
asyncio.run(main())
"""
"""A worker that leaves. `times`: the loop's `GRACE_S`, `HUNG_S`, `LEAVE_S` and `STOP_S`."""


def left(*arguments: str, times: tuple[float, ...] = (3.0, 0.2, 6.0, 0.5)) -> tuple[int, set[str], str]:
    """The exit code of `LEAVING`, what became of its jobs, and its log."""
    done = subprocess.run(
        [sys.executable, "-c", LEAVING.format(times=times), *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=HANG_S, check=False,
    )  # fmt: skip
    return done.returncode, set(done.stdout.splitlines()), done.stderr


def test_on_sigterm_every_running_job_has_the_grace() -> None:
    code, ended, _ = left("SIGTERM", "short", "long", "longer")
    assert (code, ended) == (0, {"short done", "long no result", "longer no result"})


def test_where_a_phase_hangs_its_job_is_answered_and_the_others_have_the_grace() -> None:
    code, ended, log = left("none", "hangs", "short", "long")
    assert (code, ended) == (0, {"hangs DeadlineExceeded", "short done", "long no result"})
    assert "job 'hangs' hangs in steer: the process leaves" in log


def test_a_lost_gpu_is_told_once_and_the_other_jobs_run_again_elsewhere() -> None:
    code, ended, _ = left("none", "lost", "lost, too", "short")
    assert (code, ended) == (0, {"lost DeviceLost", "lost, too no result", "short done"})


def test_a_cancelled_job_that_does_not_end_leaves_the_others_the_grace() -> None:
    code, ended, log = left("stuck", "stuck", "short")
    assert (code, ended) == (1, {"short done"})
    assert log.count("job 'stuck' was cancelled and does not end: the process leaves\n") == 1


# ---- a worker behind the control plane


def took_both(running: Server, jobs: tuple[str, str]) -> float:
    """When the second of two jobs was begun; the first had not ended."""
    began_s = [running.started(job) for job in jobs]
    assert not any(f"| {jobs[0]} | Finished" in line.text for line in running.lines if line.at_s < began_s[1])
    return max(began_s)


def test_a_worker_takes_as_many_jobs_as_it_is_set_to_and_each_has_its_own_course() -> None:
    settings = {"LIVERY_JOBS_AT_ONCE": "2", "LIVERY_DEADLINE_SANITIZE_S": "60"}
    with server("--rate", "1000", *FAULTY, ready=True, PYTHONPATH=str(ROOT), **settings) as running:
        expected = svg_of(running.outcome(running.submit(SMALL)))
        endless, short = running.submit({**SMALL, "seed": HANGS}), running.submit({**SMALL, "seed": BUSY})
        took_both(running, (endless, short))
        assert running.outcome(short)["error"] == "NoSubject: nothing to see"
        assert svg_of(running.outcome(running.submit(SMALL))) == expected
        until(lambda: running.status(endless).get("output", {}).get("phase") == "sanitize" or None)
        assert running.cancel(endless)["status"] == "CANCELLED"
        running.line(rf"job '{endless}': Cancelled in")
        assert svg_of(running.outcome(running.submit(SMALL))) == expected
        pair = [running.submit({**SMALL, "seed": BUSY}) for _ in range(2)]
        told_s = took_both(running, (pair[0], pair[1]))
        os.kill(running.worker(1), signal.SIGTERM)
        assert [running.outcome(job)["error"] for job in pair] == ["NoSubject: nothing to see"] * 2
        ended_s, code = ends(running, 1)
        assert (code, [running.status(job)["workerId"] for job in pair]) == (0, ["worker-1"] * 2)
    assert ended_s - told_s < 12


def test_a_job_beside_one_that_hangs_is_finished_or_runs_again_elsewhere() -> None:
    settings = {"LIVERY_JOBS_AT_ONCE": "2", "LIVERY_DEADLINE_SANITIZE_S": "0.3"}
    with server("--rate", "1000", *FAULTY, ready=True, PYTHONPATH=str(ROOT), **settings) as running:
        svg_of(running.outcome(running.submit(SMALL)))
        deaf, busy = running.submit({**SMALL, "seed": DEAF}), running.submit({**SMALL, "seed": BUSY})
        waiting = running.submit(SMALL)
        assert running.outcome(deaf)["error"] == "DeadlineExceeded: sanitize ran past its time"
        assert running.outcome(busy)["error"] == "NoSubject: nothing to see"
        assert ends(running, 1)[1] == 0
        svg_of(running.outcome(waiting))
        assert running.status(busy)["workerId"] == "worker-1"


# ---- the same bytes


def sums(result: JobResult) -> str:
    parts = (result.index.index.tobytes(), result.drawing.svg.encode(), *(png.data for png in result.pngs))
    return "-".join(hashlib.sha256(part).hexdigest() for part in parts)


def outcomes(jobs: list[Callable[[], JobResult]]) -> list[str]:
    """What becomes of jobs that begin together: the SHA-256 of what they made, or their error's code."""
    begin = threading.Barrier(len(jobs))

    def one(job: Callable[[], JobResult]) -> str:
        begin.wait(SOON_S)
        try:
            return sums(job())
        except LiveryError as fault:
            return fault.code

    with ThreadPoolExecutor(len(jobs)) as threads:
        return list(threads.map(one, jobs))


def stopped_at(phase: str) -> tuple[Callable[[Progress], None], Callable[[], bool]]:
    """What a job is told and asked that is cancelled as it reaches a phase."""
    reached = threading.Event()
    return lambda step: reached.set() if step.phase == phase else None, reached.is_set


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the kernels, from one pool for all jobs: work that waited there for other such work could wait for ever."""
    submit = ThreadPoolExecutor.submit

    def watched_submit(pool: ThreadPoolExecutor, *given: Any, **named: Any) -> Any:
        assert not threading.current_thread().name.startswith("livery-rows")
        return submit(pool, *given, **named)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", watched_submit)
    monkeypatch.setenv("LIVERY_THREADS", "2")


@pytest.mark.usefixtures("two_threads")
def test_draft_jobs_side_by_side_give_what_they_give_alone() -> None:
    worker = Worker(Settings())

    def job(request: dict[str, Any], **given: Any) -> Callable[[], JobResult]:
        return lambda: run(parse_request(request), worker, data=PHOTO, **given)

    told, cancelled = stopped_at("enforce")
    poisoned = {**A, "subject": {"box": [5000, 5000, 5001, 5001]}}
    good = [job(A), job(B)]
    alone = [outcomes([one])[0] for one in good]
    assert alone[0] != alone[1]
    assert outcomes(good) == alone
    assert outcomes(good[::-1]) == alone[::-1]
    mixed = outcomes([good[0], job(B, progress=told, cancelled=cancelled), job(poisoned), good[1]])
    assert mixed == [alone[0], "Cancelled", "SchemaError", alone[1]]


TWO_FIRST = """
import json, threading
import handler
from tests.test_worker_loop import SMALL
replies = {}
def serve(name, request):
    replies[name] = handler.handler({"id": name, "input": request})
requests = {"a": SMALL, "b": {**SMALL, "detail": 0.9}, "c": {"action": "ping"}}
threads = [threading.Thread(target=serve, args=item) for item in requests.items()]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps([replies["a"].get("svg"), replies["b"].get("svg"), replies["c"].get("status")]))
"""


def test_a_process_may_begin_with_several_jobs_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TWO_FIRST], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=HANG_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    first, second, health = json.loads(done.stdout)
    assert first is not None
    assert second not in (None, first)
    assert health == "ready"


def test_what_jobs_took_is_noted_while_it_is_asked_for() -> None:
    measured, report = Measured(), illustrate_draft().report
    assert isinstance(report, Report)

    def note() -> None:
        for _ in range(5000):
            measured.note(report)

    def ask() -> None:
        for _ in range(5000):
            typical_s, count = measured.typical_s("draft", None)
            assert (typical_s is None) == (count == 0) or count == 0
            measured.typical_s("studio", "fast")

    for done in [in_thread(work) for work in (note, ask, note, ask)]:
        done.result(HANG_S)
    assert measured.typical_s("draft", None)[1] == 50


def test_the_benchmark_measures_the_worker_s_own_loop_by_turns() -> None:
    picture = Picture("block", PHOTO, None, 0.0)
    rows = list(islice(throughput_rows(picture, 1, 2), 2))
    assert [(row["picture"], row["name"], row["n"]) for row in rows] == [
        ("block", f"draft, {at_once} at once", 2) for at_once in AT_ONCE
    ]
    for row in rows:
        assert 0 < row["p50_s"] <= row["p95_s"]
        assert row["jobs_per_min"] > 0
        assert 0 < row["busy_cores"] <= (os.cpu_count() or 1) + 0.5


# ---- the studio engine: one job at a time at the models


ENLARGED = {"png_widths": [64], "upscale": True}


def worker_of(volume: Path, **more: Any) -> Worker:
    return Worker(Settings(volume=volume, allow_synthetic=True, threads=1, jobs_at_once=2, **more))


def studio_job(
    worker: Worker,
    told: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    **request: Any,
) -> Callable[[], JobResult]:
    from tests.test_studio import FRAME_PX, STUDIO  # noqa: PLC0415 - it needs torch
    from tests.test_studio import PHOTO as STUDIO_PHOTO  # noqa: PLC0415

    job = parse_request({**STUDIO, **request})
    return lambda: run(job, worker, data=STUDIO_PHOTO, frame_px=FRAME_PX, progress=told, cancelled=cancelled)


@pytest.fixture(scope="module")
def worker(tiny_volume: Path) -> Worker:
    """With everything loaded."""
    warm = worker_of(tiny_volume)
    for mode in ("fast", "faithful"):
        studio_job(warm, mode=mode, output=ENLARGED)()
    return warm


class TestStudio:
    """On tiny random models, whose pictures mean nothing."""

    @pytest.fixture(autouse=True)
    def one_thread(self) -> None:
        self.torch = pytest.importorskip("torch", reason="the studio extra is not installed")
        self.torch.set_num_threads(1)

    def test_jobs_side_by_side_give_what_they_give_alone(self, worker: Worker) -> None:
        told, cancelled = stopped_at("steer")
        style = {"retries": 1, "steps": 2, "iou_threshold": 1, "allow_drift": False}
        good = [studio_job(worker, mode="fast", output=ENLARGED), studio_job(worker, mode="faithful", seed=7)]
        alone = [outcomes([one])[0] for one in good]
        assert alone[0] != alone[1]
        assert outcomes(good) == alone
        assert outcomes(good[::-1]) == alone[::-1]
        stopped = studio_job(worker, told=told, cancelled=cancelled)
        drifts = studio_job(worker, style=style)
        assert outcomes([stopped, good[1], drifts, good[0]]) == [
            "Cancelled", alone[1], ShapeDrift.__name__, alone[0],
        ]  # fmt: skip

    def test_the_next_job_is_at_the_models_while_this_one_is_traced_and_never_both(self, worker: Worker) -> None:
        told: list[tuple[str, Progress]] = []
        first_begun, second_paints = threading.Event(), threading.Event()

        def tell_first(step: Progress) -> None:
            told.append(("first", step))
            if step.phase == "sanitize":
                first_begun.set()
            if step.phase == "vectorize":
                assert second_paints.wait(SOON_S), "the models wait for the tracer"

        def tell_second(step: Progress) -> None:
            told.append(("second", step))
            if step.phase == "steer":
                second_paints.set()

        first = in_thread(studio_job(worker, told=tell_first))
        assert first_begun.wait(SOON_S)
        second = in_thread(studio_job(worker, told=tell_second, output=ENLARGED))
        for job in (first, second):
            job.result(HANG_S)
        waits = [(name, step.phase, step.percent) for name, step in told if step.message == WAITING]
        assert waits == [("second", "sanitize", STUDIO_PERCENT["sanitize"])]
        at_models = [
            name for name, step in told if step.phase in ("sanitize", "steer") and step.message != WAITING
        ]  # fmt: skip
        assert at_models == sorted(at_models)
        assert set(at_models) == {"first", "second"}

    def test_a_wait_is_no_phase_s_time_and_a_cancel_is_heard_in_it(self, tiny_volume: Path, worker: Worker) -> None:
        steps, waiting, stop = Steps(Settings(), "studio"), threading.Event(), threading.Event()
        hasty = worker_of(tiny_volume, studio_deadline_sanitize_s=1.5, deadline_decode_s=1.5)
        hasty.studio = worker.studio

        def told(step: Progress) -> None:
            if step.message == WAITING:
                waiting.set()

        with hasty.turn(steps.check, nobody_waits):
            patient = in_thread(studio_job(hasty, told=told))
            assert waiting.wait(SOON_S)
            stopped = in_thread(studio_job(hasty, cancelled=stop.is_set))
            time.sleep(1.7)
            stop.set()
            asked_s = time.monotonic()
            with pytest.raises(Cancelled):
                stopped.result(SOON_S)
            assert time.monotonic() - asked_s < LATEST_S
            assert not patient.done()
        timings = patient.result(HANG_S).report.timings_ms
        assert timings.turn is not None
        assert 1700 < timings.turn < timings.total

    def test_what_the_whole_worker_counts_is_told_of_one_job(
        self, tiny_volume: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fresh = worker_of(tiny_volume)
        results = [job.result(HANG_S) for job in [in_thread(studio_job(fresh)) for _ in range(2)]]
        loads, cold = [[getattr(result.report, name) for result in results] for name in ("loads", "cold")]
        assert sorted(map(bool, loads)) == sorted(cold[k] is not None for k in (0, 1)) == [False, True]
        assert bool(loads[0]) == (cold[0] is not None)

        order = list[str]()

        def peak_bytes() -> int:
            order.append("peak")
            return len(order) << 20

        torch = self.torch
        from tests.test_studio_lifecycle import Card  # noqa: PLC0415 - it needs torch

        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: order.append("begins"))
        monkeypatch.setattr(torch.cuda, "max_memory_reserved", peak_bytes)
        assert fresh.studio is not None
        residents = fresh.studio.do(fresh.studio.residents)
        monkeypatch.setattr(residents, "device", Card("cuda", "a card", "float32", 8192))
        jobs = [in_thread(studio_job(fresh, seed=seed)) for seed in range(3)]
        peaks = [job.result(HANG_S).report.vram_peak_mb for job in jobs]
        assert order == ["begins", "peak"] * 3
        assert sorted(peaks) == [2.0, 4.0, 6.0]

    def test_on_a_gpu_no_job_asks_the_models_for_anything_after_its_turn(
        self, worker: Worker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from tests.test_studio_lifecycle import Card  # noqa: PLC0415 - it needs torch

        assert worker.studio is not None
        residents = worker.studio.do(worker.studio.residents)
        expected = sums(studio_job(worker)())
        monkeypatch.setattr(residents, "device", Card("cuda", "a card", "float32", 8192))
        monkeypatch.setattr(self.torch.cuda, "reset_peak_memory_stats", goes_on)
        monkeypatch.setattr(self.torch.cuda, "max_memory_reserved", lambda: 0)
        counts = list[Any]()
        monkeypatch.setattr(self.torch, "bincount", lambda *given, **_: counts.append(given))
        assert sums(studio_job(worker)()) == expected
        assert counts == []
