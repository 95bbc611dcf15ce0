"""Jobs that hang, are cancelled, poison their worker, or meet what an earlier one left; workers told to end in one."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import pipeline.handover
import pipeline.picture
import pipeline.run
from pipeline.actions import illustrate
from pipeline.errors import DeadlineExceeded
from pipeline.loop import GRACE_S
from pipeline.request import parse_request
from pipeline.run import run
from pipeline.schema import JobOutput
from pipeline.settings import Settings
from pipeline.types import Phase
from pipeline.worker import Worker
from tests.faults.conftest import Figure
from tests.faulty_worker import DEAF, EXITS, HANGS, LOST, REPLIED, THROWN, TOO_LARGE
from tests.s3_server import KEY_ID, NAME, REGION, SECRET, Shaky, Store
from tests.serving import HANG_S, ROOT, Server, server, until, wait_to
from tests.test_handler import ControlPlane
from tests.test_handover import links
from tests.test_run import INKS
from tests.test_run import PICTURE as PHOTO
from tests.test_worker_loop import FAULTY, LONG, SAMPLE, SMALL, ends, gone, present, svg_of

POINTS = 10
CANCELLED_S = 1.0
BUDGET_S = 0.3
SLEPT_S = 1.0
LATE_S = 2.0


@pytest.fixture(scope="module")
def real() -> Iterator[Server]:
    """The server with the real worker, which has served one job."""
    with server("--rate", "1000") as running:
        assert running.outcome(running.submit(SAMPLE))["status"] == "COMPLETED"
        yield running


@pytest.fixture(scope="module")
def faulty() -> Iterator[Server]:
    """The server with the worker whose jobs go wrong as their seeds say."""
    with server("--rate", "1000", *FAULTY, PYTHONPATH=str(ROOT)) as running:
        yield running


# ---- a phase hangs

PLACES: dict[Phase, tuple[Any, str]] = {
    "decode": (pipeline.run, "decode_bytes"),
    "sanitize": (pipeline.picture, "sanitize"),
    "steer": (pipeline.picture, "steer"),
    "enforce": (pipeline.run, "enforce"),
    "vectorize": (pipeline.run, "vectorize"),
    "export": (pipeline.run, "render_png"),
    "upload": (pipeline.handover, "upload"),
}
"""What each phase calls."""


def bucket_settings(store: Store, **more: Any) -> dict[str, Any]:
    return {
        "bucket_endpoint": f"http://127.0.0.1:{store.port}",
        "bucket_name": NAME,
        "bucket_region": REGION,
        "bucket_key_id": KEY_ID,
        "bucket_secret": SECRET,
        **more,
    }


def test_a_phase_that_sleeps_past_its_time_fails_the_job_by_its_name(
    store: Store, monkeypatch: pytest.MonkeyPatch, figure: Figure
) -> None:
    request = {"image": base64.b64encode(PHOTO).decode(), "palette": INKS, "output": {"png_widths": [64]}}
    job, late_s = parse_request(request), dict[str, float]()
    assert illustrate(job, Worker(Settings()), "job-1", frame_px=96).svg
    for phase, (module, name) in PLACES.items():
        began_s = [0.0]
        worked = getattr(module, name)

        def sleeps(*given: Any, began_s: list[float] = began_s, worked: Any = worked, **named: Any) -> Any:
            began_s[0] = time.monotonic()
            time.sleep(BUDGET_S + SLEPT_S)
            return worked(*given, **named)

        worker = Worker(Settings.model_validate(bucket_settings(store, **{f"deadline_{phase}_s": BUDGET_S})))
        with monkeypatch.context() as patch:
            patch.setattr(module, name, sleeps)
            with pytest.raises(DeadlineExceeded) as caught:
                illustrate(job, worker, "job-1", frame_px=96)
        late_s[phase] = time.monotonic() - began_s[0] - BUDGET_S
        assert (caught.value.phase, caught.value.retryable) == (phase, True)
        assert store.keys() == []
    worst = max(late_s, key=lambda phase: late_s[phase])
    measured = f"slept {SLEPT_S:.0f} s too long in each of {len(late_s)}: named, at most {late_s[worst]:.1f} s late"
    figure("a phase hangs", measured, "DeadlineExceeded(phase), budget + 2 s")
    assert late_s[worst] < LATE_S


def test_an_execution_timeout_stops_the_job_as_a_cancel_does(faulty: Server, figure: Figure) -> None:
    job = faulty.submit({**SMALL, "seed": HANGS}, executionTimeout=5000)
    timed_out = faulty.outcome(job)
    assert timed_out["status"] == "TIMED_OUT"
    assert re.fullmatch(r"DeadlineExceeded: the job ran past its time in \w+", timed_out["error"])
    assert 5000 <= timed_out["executionTime"] < 6500
    faulty.line(rf"job '{job}': Cancelled in")
    svg_of(faulty.outcome(faulty.submit(SMALL)))
    late_s = timed_out["executionTime"] / 1000 - 5
    figure("a phase hangs", f"endless in sanitize: stopped {late_s:.1f} s after the job's own limit", "budget + 2 s")


def test_a_phase_that_asks_nothing_is_answered_for_and_its_worker_leaves(figure: Figure) -> None:
    budget = str(BUDGET_S)
    with server("--rate", "1000", *FAULTY, PYTHONPATH=str(ROOT), LIVERY_DEADLINE_SANITIZE_S=budget) as faulty:
        svg_of(faulty.outcome(faulty.submit(SMALL)))  # imports and compiles
        number = present(faulty)
        deaf, following = faulty.submit({**SMALL, "seed": DEAF}), faulty.submit(SMALL)
        failed = faulty.outcome(deaf)
        assert failed["error"] == "DeadlineExceeded: sanitize ran past its time"
        assert failed["output"]["retryable"] is True
        late_s = failed["executionTime"] / 1000 - BUDGET_S
        assert ends(faulty, number)[1] == 0
        served = faulty.outcome(following)
        svg_of(served)
        assert served["workerId"] == f"worker-{number + 1}"
    measured = f"an endless sleep in sanitize: answered {late_s:.1f} s late, the next worker serves the next job"
    figure("a phase hangs", measured, "budget + 2 s")
    assert late_s < 2 * LATE_S  # the machine may be busy


# ---- cancel


def test_a_cancel_anywhere_stops_the_job_and_only_then_the_next_begins(real: Server, figure: Figure) -> None:
    took_s = real.outcome(real.submit(LONG))["executionTime"] / 1000
    points, job = list(range(POINTS)), real.submit(LONG)
    cancelled, stopped, phases, latencies_s, ended_s = [], 0, set(), [], 0.0
    while points:
        following, began_s = real.submit(LONG), real.started(job)
        assert began_s > ended_s
        wait_to(began_s + took_s * (points[0] + 0.3) / POINTS)
        phase = real.status(job).get("output", {}).get("phase")
        asked_s = time.monotonic()
        answer = real.cancel(job)
        ended_s, ended = real.line(rf"job '{job}': (Cancelled|done) in")
        if answer["status"] == "COMPLETED":
            took_s = answer["executionTime"] / 1000  # the machine was busier when it was measured
        else:
            stopped += ended[1] == "Cancelled"
            phases.add(phase)
            latencies_s.append(ended_s - asked_s)
            cancelled.append(job)
            points.pop(0)
        job = following
    within = sum(latency_s <= CANCELLED_S for latency_s in latencies_s)
    measured = f"{stopped} of {POINTS} stopped, {within} within 1 s, at most {max(latencies_s):.2f} s; one at a time"
    figure("cancel in a job", measured, "within 1 s on CPU")
    assert len(phases) >= 2  # as they were last posted, which is twice a second
    assert stopped >= POINTS - 2  # a job may end as it is told
    assert within >= POINTS - 2  # the machine may be busy
    assert max(latencies_s) < 4
    svg_of(real.outcome(job))
    shown = [real.status(job) for job in cancelled]
    assert {status["status"] for status in shown} == {"CANCELLED"}
    assert not any("output" in status for status in shown)


# ---- SIGTERM


BUCKETED: dict[str, Any] = {**SMALL, "output": {"formats": ["svg", "png", "dxf"], "png_widths": [1024]}}


@dataclass(frozen=True)
class Told:
    """What a worker that was told to end left.

    Attributes:
        job_s: from its taking the job to its being told, in seconds.
        exit_s: from its being told to its end.
        replies: that it posted.
        temporary: names of files in its temporary folder.
    """

    code: int
    job_s: float
    exit_s: float
    replies: list[dict[str, Any]]
    temporary: list[str]


@dataclass
class Workers:
    """Workers, one at a time, with a bucket and a temporary folder of their own."""

    process: subprocess.Popen[str]
    plane: ControlPlane
    temporary: Path

    def told(self, grace_s: float, after_s: float | None, jobs: int = 1) -> Told:
        """A worker that is told to end so long after it took its job; None: once its job is done.

        Args:
            grace_s: how long its job may then go on.
            jobs: 1 or 0.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.plane.posts.clear()
        self.plane.asked.clear()
        self.plane.jobs += [{"id": "a", "input": BUCKETED}] * jobs
        self.process.stdin.write(f"{grace_s}\n")
        self.process.stdin.flush()
        worker = int(self.process.stdout.readline())
        assert self.plane.asked.wait(HANG_S)
        began_s = time.monotonic()
        if after_s is None:
            until(lambda: self.plane.results() or None)
        else:
            wait_to(began_s + after_s)
        told_s = time.monotonic()
        os.kill(worker, signal.SIGTERM)
        code = int(self.process.stdout.readline())
        ended_s = time.monotonic()
        until(partial(gone, worker))
        replies = [post["output"] for _, post in self.plane.results()]
        left = sorted(path.name for path in self.temporary.rglob("*"))
        return Told(code, told_s - began_s, ended_s - told_s, replies, left)


@pytest.fixture
def workers(store: Store, tmp_path: Path) -> Iterator[Workers]:
    # Slow enough that uploading is a good part of a job.
    shaky, plane = Shaky(store.port, bytes_per_s=40_000), ControlPlane([])
    threading.Thread(target=plane.serve_forever, daemon=True).start()
    bucket = bucket_settings(store, bucket_endpoint=f"http://127.0.0.1:{shaky.port}")
    environment = {f"LIVERY_{name.upper()}": value for name, value in bucket.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.forked_workers"],
        cwd=ROOT, env=os.environ | plane.environment() | environment | {"TMPDIR": str(tmp_path)}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    yield Workers(process, plane, tmp_path)
    process.communicate(timeout=HANG_S)
    plane.shutdown()
    plane.server_close()
    shaky.close()


def contents(store: Store) -> list[str]:
    """SHA-256 of every object in the bucket, which is then emptied."""
    objects = [store.client.get_object(Bucket=NAME, Key=key)["Body"].read() for key in list(store.keys())]
    store.clear()
    return sorted(hashlib.sha256(data).hexdigest() for data in objects)


def promised(told: Told) -> list[str]:
    """SHA-256 of every file that the replies link to."""
    return sorted(file["sha256"] for reply in told.replies for file in (*reply["png"], *reply["files"]))


def test_sigterm_at_ten_points_finishes_or_cancels_and_leaves_nothing_half(
    workers: Workers, store: Store, figure: Figure
) -> None:
    whole = workers.told(GRACE_S, None)
    assert len(promised(whole)) == 2
    assert contents(store) == promised(whole)
    job_s, finished, slowest_s = whole.job_s, 0, 0.0
    for point in range(POINTS):
        # By turns with the time that a job has in production, and with next to none.
        told = workers.told(GRACE_S if point % 2 else 0.1, job_s * (point + 0.5) / POINTS)
        assert contents(store) == promised(told), point
        assert (told.code, told.temporary) == (0, []), point
        if point % 2:
            assert told.replies, "there was time enough to finish"
            job_s = min(job_s, told.job_s + told.exit_s)
        finished, slowest_s = finished + len(told.replies), max(slowest_s, told.exit_s)
    measured = f"{finished} finished, {POINTS - finished} cancelled; exit ≤ {slowest_s:.1f} s; nothing partial left"
    figure("SIGTERM in a job", measured, "exit ≤ 12 s, none partial, temporary folder empty")
    assert slowest_s <= 12
    assert finished < POINTS
    idle = workers.told(GRACE_S, 0.2, jobs=0)
    assert (idle.code, idle.replies) == (0, [])
    assert idle.exit_s <= 3


def test_sigterm_cancels_a_job_that_goes_on_and_it_runs_again_elsewhere(faulty: Server, figure: Figure) -> None:
    number = present(faulty)
    process, job = faulty.worker(number), faulty.submit({**SMALL, "seed": HANGS})
    faulty.started(job)
    told_s = time.monotonic()
    os.kill(process, signal.SIGTERM)
    ended_s, code = ends(faulty, number)
    figure("SIGTERM in a job", f"an endless job: gone after {ended_s - told_s:.1f} s, and queued again", "exit ≤ 12 s")
    assert code == 0
    assert 10 <= ended_s - told_s <= 12
    until(lambda: faulty.status(job).get("workerId") == f"worker-{number + 1}" or None)
    assert faulty.status(job)["status"] == "IN_PROGRESS"
    assert faulty.cancel(job)["status"] == "CANCELLED"
    faulty.line(rf"job '{job}': Cancelled in", ended_s)


# ---- poison


CODES = {14: "OutOfMemory", TOO_LARGE: "UploadFailed"}
"""By seed; every other defect is an InternalError."""


def test_whatever_a_phase_throws_or_replies_is_the_same_typed_result_twice_and_a_good_job_is_served(
    faulty: Server, figure: Figure
) -> None:
    seeds = [*THROWN, *REPLIED, TOO_LARGE]
    number = present(faulty)
    output = {"formats": ["svg", "png"], "png_widths": [64]}
    sent = {}
    for seed in seeds:
        poison = {**SMALL, "seed": seed, "output": output}
        sent[seed] = [faulty.submit(request) for request in (poison, poison, SMALL)]
    for seed, jobs in sent.items():
        first, again, good = (faulty.outcome(job) for job in jobs)
        code = CODES.get(seed, "InternalError")
        assert (first["status"], again["status"]) == ("FAILED", "FAILED"), (seed, first)
        assert re.fullmatch(rf"{code}: [^\n]+", first["error"]), (seed, first)
        assert set(first["output"]) == {"code", "field", "retryable"}
        assert (again["error"], again["output"]) == (first["error"], first["output"])
        assert "secret" not in json.dumps(first)
        assert ("25.3 MB" in first["error"]) == (seed == TOO_LARGE)
        svg_of(good)
    assert present(faulty) == number
    measured = f"{len(seeds)} kinds, each the same typed error twice, then a good job; the worker stayed"
    figure("poison job", measured, "the same typed error twice, then a good job")


STARVED = """
import base64, io, json, resource
from PIL import Image
import handler
from tests.test_worker_loop import SMALL

file = io.BytesIO()
Image.new("RGB", (7000, 7000), (200, 30, 40)).save(file, "PNG")
large = {**SMALL, "image": base64.b64encode(file.getvalue()).decode()}
replies = [handler.handler({"id": "warm", "input": SMALL})]
in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
for more_mb in (30, 150, 200):
    resource.setrlimit(resource.RLIMIT_AS, (in_use + (more_mb << 20), -1))
    replies += [handler.handler({"id": "job", "input": request}) for request in (large, large, SMALL)]
print(json.dumps([[reply.get("error"), reply.get("svg")] for reply in replies]))
"""
"""A photo of 49 megapixels, where the address space has no room for it: 196 MB."""


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's address space")
def test_a_photo_that_memory_has_no_room_for_is_typed_twice_and_a_good_job_is_served(figure: Figure) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STARVED], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=HANG_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (_, good), *rest = json.loads(done.stdout)
    assert good is not None
    for number in range(0, len(rest), 3):
        (first, _), (again, _), (error, svg) = rest[number : number + 3]
        assert first == again == "OutOfMemory: the worker ran out of memory in decode"
        assert (error, svg) == (None, good), number
    measured = f"RLIMIT_AS, {len(rest) // 3} limits: OutOfMemory twice, then the good job's own bytes"
    figure("poison job", measured, "the same typed error twice, then a good job")


def test_workers_that_lose_their_gpu_or_die_are_replaced_and_a_job_that_ends_each_fails_in_the_end(
    faulty: Server, figure: Figure
) -> None:
    number = present(faulty)
    lost, poison, good = (
        faulty.submit(request) for request in ({**SMALL, "seed": LOST}, {**SMALL, "seed": EXITS}, SMALL)
    )
    failed = faulty.outcome(lost)
    assert (failed["error"], failed["output"]["retryable"]) == ("DeviceLost: the GPU is gone", True)
    poisoned = faulty.outcome(poison)
    assert poisoned["status"] == "FAILED"
    assert poisoned["error"].startswith("InternalError: ")
    assert [ends(faulty, number + more)[1] for more in range(4)] == [0, 3, 3, 3]
    served = faulty.outcome(good)
    svg_of(served)
    assert served["workerId"] == f"worker-{number + 4}"
    figure("sticky CUDA error", "the worker leaves with 0; the next job is another worker's", "no further job")
    figure("poison job", "hard exits: the job fails after 3 workers, the next serves", "a restart serves")


# ---- what jobs leave to the next

A: dict[str, Any] = {"palette": {"extract": 9}, "line_work": 0.6, "output": {"png_widths": [512]}}
B: dict[str, Any] = {"palette": ["#101010", "#808080", "#F0F0F0"], "background": "remove", "line_work": 1.0}

ALONE = "from tests.faults.test_jobs import A, made; print(made(A))"


def made(request: dict[str, Any]) -> str:
    """SHA-256 of the index map, the SVG and the PNGs of a job, in hex, joined."""
    result = run(parse_request(request), Worker(Settings()), data=PHOTO)
    parts = (result.index.index.tobytes(), result.drawing.svg.encode(), *(png.data for png in result.pngs))
    return "-".join(hashlib.sha256(part).hexdigest() for part in parts)


def test_a_job_gives_the_same_bytes_whatever_ran_before_it(figure: Figure) -> None:
    alone = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ALONE], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=HANG_S, check=True,
    )  # fmt: skip
    first, other, again = made(A), made(B), made(A)
    assert other != first
    assert [first, again] == [alone.stdout.strip()] * 2
    figure("state between jobs", "draft: A, B, A are A alone, byte for byte", "byte-identical")


SERVED = """
import json, sys
import handler
for job in json.loads(sys.stdin.read()):
    print(json.dumps(handler.handler(job)))
"""


def test_the_same_job_three_times_across_a_restart_is_one_result_and_the_cache_answers(
    tmp_path: Path, figure: Figure
) -> None:
    request = {**SMALL, "cache": "use", "output": {"formats": ["svg", "png", "dxf"], "png_widths": [64]}}
    replies = []
    for jobs in (["job-1", "job-2"], ["job-1"]):
        done = subprocess.run(
            [sys.executable, "-c", SERVED], input=json.dumps([{"id": job, "input": request} for job in jobs]),
            cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT), "LIVERY_CACHE": str(tmp_path / "cache")},
            capture_output=True, text=True, timeout=HANG_S, check=True,
        )  # fmt: skip
        replies += [JobOutput.model_validate_json(line) for line in done.stdout.splitlines()]
    assert [reply.report.cached for reply in replies] == [False, True, True]
    sums = {(reply.report.output_sha256, *(file.sha256 for file in links(reply))) for reply in replies}
    assert len(sums) == 1
    figure(
        "same job again", "×3, across a restart: 1 sha256 of each file, 2 of 3 from the cache", "same sha256; cached"
    )
