"""The local control plane: what becomes of jobs, who is let in, what is refused, what a scraper reads."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families

from serve.__main__ import main
from serve.bell import Bell
from serve.limits import HELD_BYTES, REPLY_BYTES, STOP_S, TRIES, Rate
from serve.metrics import Histogram, histogram, page
from serve.platform import Full, Job, Platform, Status
from serve.worker_side import worker_application
from tests.serving import HANG_S, ROOT, Server, server

IDLE = ("--worker", str(ROOT / "tests" / "idle_worker.py"))
KEY = "a-key-of-this-test-alone"
BEARER = {"Authorization": f"Bearer {KEY}"}
PAGE = "https://shop.test"


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class World:
    """A platform with its clock and a worker named `w`."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.platform = Platform(self.clock)
        self.platform.join("w")

    def submit(self, *, sync: bool = False, execution_s: float = 600, ttl_s: float = 86400) -> Job:
        return self.platform.submit(b"{}", sync=sync, execution_s=execution_s, ttl_s=ttl_s)

    def take(self, worker: str = "w", most: int = 1, *, busy: bool = False) -> list[Job]:
        self.platform.asks(worker, busy=busy)
        return self.platform.take(worker, most)

    def passes(self, seconds: float) -> bool:
        self.clock.now_s += seconds
        return self.platform.expire()


@pytest.fixture
def world() -> World:
    return World()


# ---- the state machine


def test_a_job_goes_from_the_queue_through_progress_to_its_result(world: World) -> None:
    job = world.submit()
    assert world.platform.jobs[job.id].as_json(0) == {"id": job.id, "status": "IN_QUEUE"}
    world.passes(2)
    assert world.take() == [job]
    world.platform.progress("w", job.id, {"percent": 45})
    assert job.as_json(world.clock())["output"] == {"percent": 45}
    world.passes(3)
    world.platform.done("w", job.id, {"output": {"svg": "<svg/>"}}, 30)
    assert job.as_json(0) == {
        "id": job.id,
        "status": "COMPLETED",
        "delayTime": 2000,
        "executionTime": 3000,
        "workerId": "w",
        "output": {"svg": "<svg/>"},
    }
    assert job.input == b""


def test_an_error_in_a_result_fails_the_job(world: World) -> None:
    job = world.submit()
    world.take()
    world.platform.done("w", job.id, {"error": "NoSubject: none", "output": {"code": "NoSubject"}}, 60)
    assert (job.status, job.error, job.output) == (Status.FAILED, "NoSubject: none", {"code": "NoSubject"})


def test_progress_after_the_result_changes_nothing(world: World) -> None:
    job = world.submit()
    world.take()
    world.platform.done("w", job.id, {"output": 1}, 1)
    world.platform.progress("w", job.id, {"percent": 95})
    assert (job.status, job.output) == (Status.COMPLETED, 1)


@pytest.mark.parametrize(("sync", "kept_s"), [(False, 1800), (True, 60)])
def test_outcomes_are_kept_as_long_as_the_platform_keeps_them(world: World, sync: bool, kept_s: float) -> None:
    job = world.submit(sync=sync)
    world.take()
    world.platform.done("w", job.id, {"output": 1}, 1)
    world.passes(kept_s)
    assert job.id in world.platform.jobs
    world.passes(1)
    assert job.id not in world.platform.jobs


def test_jobs_of_a_worker_that_died_come_first_again_and_fail_in_the_end(world: World) -> None:
    job, later = world.submit(), world.submit()
    for number in range(TRIES):
        assert world.take(f"w{number - 1}" if number else "w") == [job]
        world.platform.gone(f"w{number - 1}" if number else "w")
        world.platform.join(f"w{number}")
    assert job.status is Status.FAILED
    assert str(job.error).startswith("InternalError: ")
    assert job.output == {"code": "InternalError", "field": None, "retryable": False}
    assert world.platform.retried == TRIES - 1
    assert world.take(f"w{TRIES - 1}") == [later]


def test_a_job_whose_result_was_lost_is_queued_again_once_its_worker_asks_for_the_next(world: World) -> None:
    job = world.submit()
    world.take()
    assert world.take(busy=True) == []
    assert world.take() == [job]
    assert job.tries == 2


def test_a_job_cancelled_in_the_queue_is_never_handed_out(world: World) -> None:
    job = world.submit()
    world.platform.cancel(job)
    assert job.status is Status.CANCELLED
    assert world.take() == []
    assert world.platform.stops("w") == []


def test_a_worker_is_told_to_stop_a_job_until_it_has(world: World) -> None:
    job = world.submit()
    world.take()
    world.platform.cancel(job)
    assert world.platform.stops("w") == [job.id]
    assert world.platform.stops("w") == []
    world.passes(1)
    assert world.platform.stops("w") == [job.id]
    world.platform.done("w", job.id, {"output": "too late"}, 9)
    assert (job.status, job.output) == (Status.CANCELLED, None)
    world.passes(1)
    assert world.platform.stops("w") == []


def test_asking_for_the_next_job_tells_that_a_stopped_one_has_ended(world: World) -> None:
    job = world.submit()
    world.take()
    world.platform.cancel(job)
    world.passes(STOP_S + 1)
    assert world.platform.stuck() == ["w"]
    assert world.take() == []
    assert world.platform.stuck() == []
    assert world.platform.stops("w") == []


def test_what_is_over_can_not_be_cancelled(world: World) -> None:
    job = world.submit()
    world.take()
    world.platform.done("w", job.id, {"output": 1}, 1)
    world.platform.cancel(job)
    assert job.status is Status.COMPLETED


def test_a_job_that_runs_too_long_is_stopped_with_a_typed_error(world: World) -> None:
    job = world.submit(execution_s=5)
    world.take()
    world.platform.progress("w", job.id, {"phase": "steer", "percent": 20})
    assert not world.passes(5)
    assert world.passes(0.1)
    assert job.status is Status.TIMED_OUT
    assert job.error == "DeadlineExceeded: the job ran past its time in steer"
    assert world.platform.stops("w") == [job.id]


def test_a_job_that_waits_too_long_times_out_and_is_not_handed_out(world: World) -> None:
    job = world.submit(ttl_s=10)
    assert world.passes(11)
    assert job.status is Status.TIMED_OUT
    assert world.take() == []


def test_a_worker_that_asks_to_be_replaced_gets_no_job_and_is_ended_if_it_stays(world: World) -> None:
    job, later = world.submit(), world.submit()
    world.take()
    world.platform.done("w", job.id, {"error": "DeviceLost: gone", "stopPod": True}, 40)
    assert world.take() == []
    world.passes(STOP_S + 1)
    assert world.platform.stuck() == ["w"]
    world.platform.gone("w")
    world.platform.join("next")
    assert world.take("next") == [later]


def test_a_worker_can_take_several_jobs_and_loses_none(world: World) -> None:
    jobs = [world.submit() for _ in range(3)]
    assert world.take(most=2) == jobs[:2]
    world.platform.done("w", jobs[1].id, {"output": 1}, 1)
    assert world.take(most=5, busy=True) == jobs[2:]
    world.platform.gone("w")
    world.platform.join("next")
    assert world.take("next", 5) == [jobs[2], jobs[0]]


def test_a_result_of_another_worker_s_job_is_dropped(world: World) -> None:
    job = world.submit()
    world.take()
    world.platform.join("other")
    world.platform.done("other", job.id, {"output": 1}, 1)
    assert job.status is Status.IN_PROGRESS


def test_a_result_that_the_platform_would_lose_is_a_typed_error(world: World) -> None:
    job = world.submit()
    world.take()
    world.platform.done("w", job.id, {"output": "x"}, REPLY_BYTES + 1)
    assert job.status is Status.FAILED
    assert str(job.error).startswith("UploadFailed: ")


def test_jobs_are_refused_when_too_much_is_held(world: World) -> None:
    half = b"x" * (HELD_BYTES // 2)
    for _ in range(2):
        world.platform.submit(half, sync=False, execution_s=1, ttl_s=1)
    with pytest.raises(Full):
        world.submit()


def test_a_client_has_its_rate_and_twice_that_at_once() -> None:
    clock = Clock()
    rate = Rate(2, clock)
    assert [rate.wait_s("a") for _ in range(5)] == [0, 0, 0, 0, 0.5]
    assert rate.wait_s("b") == 0
    clock.now_s += 0.5
    assert [rate.wait_s("a"), rate.wait_s("a")] == [0, 0.5]
    clock.now_s += 3
    rate.wait_s("b")
    assert list(rate.clients) == ["b"]


# ---- the worker side


def worker_side(check: Any) -> None:
    """Runs `check(platform, client)` against the worker side on a port of its own."""

    async def run() -> None:
        platform = Platform()
        platform.join("w")
        async with TestClient(TestServer(worker_application(platform, Bell(), "s3cret"))) as client:
            await check(platform, client)

    asyncio.run(run())


def test_the_worker_side_hands_out_batches_and_collects_streams_and_results() -> None:
    async def check(platform: Platform, client: Any) -> None:
        jobs = [platform.submit(b'{"n": 1}', sync=False, execution_s=9, ttl_s=99) for _ in range(2)]
        taken = await (await client.get("/s3cret/job-take-batch/w?gpu=x&batch_size=4&job_in_progress=0")).json()
        assert taken == [{"id": job.id, "input": {"n": 1}} for job in jobs]
        first, second = (f"w/{job.id}?gpu=x&isStream=false" for job in jobs)
        await client.post(f"/s3cret/job-stream/{first}", data=b'{"output": "part"}')
        assert jobs[0].chunks == ["part"]
        await client.post(f"/s3cret/job-done/{first}", data='{"output": "\u00e9"}'.encode())
        assert jobs[0].output == "\u00e9"
        platform.cancel(jobs[1])
        assert await (await client.get("/s3cret/job-stop/w?gpu=x")).json() == {"jobsToStop": [jobs[1].id]}
        assert (await client.post(f"/s3cret/job-done/{second}", data=b'{"output": NaN}')).status == 400
        assert (await client.get("/s3cret/ping/w?job_id=a")).status == 200

    worker_side(check)


def test_the_worker_side_is_there_for_those_who_know_its_secret_only() -> None:
    async def check(platform: Platform, client: Any) -> None:
        platform.submit(b"{}", sync=False, execution_s=9, ttl_s=99)
        for path in ("/wrong/job-take/w?gpu=x", "/job-take/w", "/s3cre/ping/w", "/"):
            assert (await client.get(path)).status == 404
        assert platform.count(Status.IN_QUEUE) == 1

    worker_side(check)


# ---- the client side


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a key and one allowed page; nothing takes its jobs."""
    key = tmp_path_factory.mktemp("key") / "key"
    key.write_text(KEY + "\n")
    with server("--key-file", str(key), "--origin", PAGE, "--rate", "1000", *IDLE, ready=False) as running:
        yield running


@pytest.fixture(scope="module")
def open_server() -> Iterator[Server]:
    """A server as it starts by default, but with few requests a second; nothing takes its jobs."""
    with server("--rate", "4", *IDLE, ready=False) as running:
        yield running


ROUTES = [
    ("POST", "/run"),
    ("POST", "/v2/livery/runsync"),
    ("POST", "/illustrate"),
    ("GET", "/status/x"),
    ("GET", "/v2/livery/stream/x"),
    ("POST", "/cancel/x"),
    ("POST", "/purge-queue"),
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
    ("GET", "/elsewhere"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_asks_for_the_key(guarded: Server, method: str, path: str) -> None:
    wrong: list[dict[str, str]] = [
        {},
        {"Authorization": KEY},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": "Bearer "},
    ]
    for headers in wrong:
        answer = guarded.ask(method, path, b"{}" if method == "POST" else None, headers)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.json["code"] == "Unauthorized"
    assert guarded.ask(method, path, b"" if method == "POST" else None, BEARER).status not in (401, 403, 500)


def test_the_key_is_never_logged(guarded: Server) -> None:
    guarded.post("/run", {"input": {"secret": "photo"}}, BEARER)
    assert guarded.lines
    assert not [line for line in guarded.lines if KEY in line.text or "photo" in line.text]


def test_an_allowed_page_may_ask_and_read_and_another_may_not(guarded: Server) -> None:
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    allowed = guarded.ask("OPTIONS", "/v2/livery/run", headers={"Origin": PAGE, **asks})
    assert allowed.status == 204
    assert allowed.headers["Access-Control-Allow-Origin"] == PAGE
    assert "Authorization" in allowed.headers["Access-Control-Allow-Headers"]
    assert "POST" in allowed.headers["Access-Control-Allow-Methods"]
    health = guarded.ask("GET", "/health", headers={"Origin": PAGE, **BEARER})
    assert (health.status, health.headers["Access-Control-Allow-Origin"]) == (200, PAGE)
    refused = guarded.ask("GET", "/health", headers={"Origin": PAGE})
    assert (refused.status, refused.headers["Access-Control-Allow-Origin"]) == (401, PAGE)
    for method, headers in (("OPTIONS", asks), ("GET", BEARER)):
        stranger = guarded.ask(method, "/health", headers={"Origin": "https://evil.test", **headers})
        assert stranger.status == 403
        assert "Access-Control-Allow-Origin" not in stranger.headers


def test_without_a_key_no_page_and_no_other_name_gets_in(open_server: Server) -> None:
    ours = f"http://127.0.0.1:{open_server.port}"
    assert open_server.ask("GET", "/health", headers={"Origin": ours}).status == 200
    assert open_server.ask("GET", "/health", headers={"Origin": "https://evil.test"}).status == 403
    assert open_server.ask("GET", "/health", headers={"Host": "evil.test:80"}).status == 403
    assert open_server.ask("GET", "/health", headers={"Host": "localhost:8000"}).status == 200


def test_a_client_that_asks_too_often_is_told_when_to_come_again(open_server: Server) -> None:
    answers = [open_server.ask("GET", "/health") for _ in range(40)]
    refused = [answer for answer in answers if answer.status == 429]
    assert 20 <= len(refused) <= 40
    assert all(answer.headers["Retry-After"] == "1" for answer in refused)
    assert refused[0].json == {
        "error": "TooManyRequests: too many requests from this address",
        "code": "TooManyRequests",
        "field": None,
        "retryable": True,
    }


@pytest.mark.parametrize(("path", "limit"), [("/run", 10_000_000), ("/v2/x/runsync?wait=1000", 20_000_000)])
def test_bodies_are_limited_as_on_the_platform(guarded: Server, path: str, limit: int) -> None:
    def body(size: int) -> bytes:
        text = b'{"input": {"image": "'
        return text + b"A" * (size - len(text) - 3) + b'"}}'

    headers = {"Content-Type": "application/json", **BEARER}
    assert guarded.ask("POST", path, body(limit), headers).status == 200
    refused = guarded.ask("POST", path, body(limit + 1), headers)
    assert (refused.status, refused.json["code"]) == (413, "BodyTooLarge")
    assert guarded.ask("GET", "/health", headers=BEARER).status == 200
    guarded.ask("POST", "/purge-queue", b"", BEARER)


def test_a_body_of_untold_length_is_cut_off_at_the_limit(guarded: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", guarded.port, timeout=HANG_S)
    chunks = (b"A" * 100_000 for _ in range(101))
    headers = {"Content-Type": "application/json", **BEARER}
    connection.request("POST", "/run", chunks, headers, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_a_body_that_says_it_is_too_long_is_refused_before_it_is_sent(guarded: Server) -> None:
    head = f"POST /run HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=10) as connection:
        connection.sendall(f"{head}Content-Length: 10000001\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def form(parts: list[tuple[str, bytes]], boundary: str = "xyz") -> tuple[bytes, dict[str, str]]:
    body = b""
    for name, data in parts:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="a.jpg"\r\n\r\n'
        body += head.encode() + data + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), {"Content-Type": f"multipart/form-data; boundary={boundary}"}


BAD_FORMS: list[tuple[list[tuple[str, bytes]], int, str | None]] = [
    ([], 400, None),
    ([("options", b"{}")], 400, "photo"),
    ([("photo", b"x"), ("photo", b"x")], 400, "photo"),
    ([("photo", b"x"), ("phtoo", b"x")], 400, "phtoo"),
    ([("photo", b"x"), ("options", b"{")], 400, "options"),
    ([("photo", b"x"), ("options", b"[]")], 400, "options"),
    ([("photo", b"x"), ("options", b"[" * 100_000)], 400, "options"),
    ([("photo", b"x"), ("options", b'{"image": "AAAA"}')], 400, "options.image"),
    ([("photo", b"x" * 20_000_001)], 413, None),
    ([("photo", b"x"), ("options", b" " * 1_000_001)], 413, None),
]


@pytest.mark.parametrize(("parts", "status", "field"), BAD_FORMS, ids=range(len(BAD_FORMS)))
def test_a_form_that_is_no_job_is_refused(
    guarded: Server, parts: list[tuple[str, bytes]], status: int, field: str | None
) -> None:
    body, headers = form(parts)
    answer = guarded.ask("POST", "/illustrate", body, headers | BEARER)
    assert answer.status == status, answer
    if parts:
        assert answer.json["field"] == field


BAD_BODIES: list[tuple[bytes, str | None]] = [
    (b"", None),
    (b"{", None),
    (b"[]", None),
    (b"{}", "input"),
    (b'{"input": 3}', "input"),
    (b'{"input": {"detail": NaN}}', None),
    (b'{"input": ' + b"[" * 100_000, None),
    (b'{"input": {}, "webhook": "https://evil.test"}', "webhook"),
    (b'{"input": {}, "policy": 3}', "policy"),
    (b'{"input": {}, "policy": {"executionTimeout": 10}}', "policy.executionTimeout"),
    (b'{"input": {}, "policy": {"ttl": true}}', "policy.ttl"),
    (b"\xff\xfe", None),
]


@pytest.mark.parametrize(("body", "field"), BAD_BODIES, ids=lambda value: ascii(value)[:40])
def test_a_body_that_is_no_job_is_refused_by_its_field(guarded: Server, body: bytes, field: str | None) -> None:
    answer = guarded.ask("POST", "/run", body, {"Content-Type": "application/json", **BEARER})
    assert (answer.status, answer.json["code"], answer.json["field"]) == (400, "BadRequest", field)


def test_a_page_s_plain_form_post_is_no_job(open_server: Server) -> None:
    answer = open_server.ask("POST", "/run", b'{"input": {}}', {"Content-Type": "text/plain"})
    assert answer.status in (415, 429)
    assert "id" not in answer.json


def test_the_policy_ends_a_job_that_nobody_takes(guarded: Server) -> None:
    asked = guarded.post("/run", {"input": {}, "policy": {"ttl": 10_000}}, BEARER).json
    assert guarded.ask("GET", f"/status/{asked['id']}", headers=BEARER).json == {**asked, "status": "IN_QUEUE"}
    cancelled = guarded.post(f"/v2/livery/cancel/{asked['id']}", None, BEARER).json
    assert cancelled == {"id": asked["id"], "status": "CANCELLED"}
    stream = guarded.ask("GET", f"/stream/{asked['id']}", headers=BEARER).json
    assert stream == {"id": asked["id"], "status": "CANCELLED", "stream": []}


def test_what_is_not_there_is_refused_in_the_same_form(guarded: Server) -> None:
    assert guarded.ask("GET", "/status/nobody", headers=BEARER).json["code"] == "NotFound"
    assert guarded.ask("GET", "/elsewhere", headers=BEARER).json["code"] == "NotFound"
    wrong = guarded.ask("GET", "/run", headers=BEARER)
    assert (wrong.status, wrong.json["code"], wrong.headers["Allow"]) == (405, "MethodNotAllowed", "POST")
    assert guarded.post("/runsync?wait=10", {"input": {}}, BEARER).json["field"] == "wait"


def test_metrics_are_what_prometheus_reads(guarded: Server) -> None:
    job = guarded.post("/run", {"input": {}}, BEARER).json["id"]
    answer = guarded.ask("GET", "/metrics", headers=BEARER)
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in text_string_to_metric_families(answer.body.decode())}
    assert families["livery_queue_jobs"].samples[0].value >= 1
    outcomes = {sample.labels["outcome"] for sample in families["livery_jobs"].samples}
    assert outcomes == {"completed", "failed", "cancelled", "timed_out"}
    assert families["livery_worker_restarts"].type == "counter"
    waits = families["livery_job_wait_seconds"]
    assert waits.type == "histogram"
    counts = [sample.value for sample in waits.samples if sample.name.endswith("_bucket")]
    assert counts == sorted(counts)
    guarded.post(f"/cancel/{job}", None, BEARER)


def test_a_histogram_counts_what_is_at_most_each_bound() -> None:
    counted = Histogram()
    for seconds in (0.05, 0.1, 3.0, 1000.0):
        counted.observe(seconds)
    (family,) = text_string_to_metric_families(page(histogram("spent_seconds", "Time.", counted)))
    values = {sample.labels.get("le", sample.name): sample.value for sample in family.samples}
    assert (values["0.1"], values["2.5"], values["5.0"], values["600.0"], values["+Inf"]) == (2, 2, 3, 3, 4)
    assert (values["spent_seconds_count"], values["spent_seconds_sum"]) == (4, 1003.15)


# ---- starting


def test_it_listens_elsewhere_than_on_this_machine_with_a_key_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short = tmp_path / "key"
    short.write_text("short")
    for arguments, said in [
        (("--host", "0.0.0.0"), "--host 0.0.0.0 is open to others: set --key-file or SERVE_KEY"),
        (("--host", "::"), "is open to others"),
        (("--host", ""), "is open to others"),
        (("--host", "livery.test"), "is open to others"),
        (("--key-file", str(short)), "the key must have at least 16 printable ASCII characters"),
        (("--key-file", str(tmp_path / "none")), "--key-file: can't be read"),
        (("--port", "99999"), "--port: must be 0 to 65535"),
        (("--rate", "0"), "--rate: must be"),
        (("--worker", "nowhere.py"), "--worker: there is no such file"),
    ]:
        monkeypatch.setattr(sys, "argv", ["serve", *arguments])
        with pytest.raises(SystemExit) as refused:
            main()
        assert refused.value.code == 2
        assert said in capsys.readouterr().err


def test_a_port_that_is_taken_is_one_clear_line_and_no_worker_starts(guarded: Server) -> None:
    failed = subprocess.run(
        [sys.executable, "-m", "serve", "--port", str(guarded.port), *IDLE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert failed.returncode == 1
    assert re.fullmatch(rf"ERROR   serve: can't listen on 127\.0\.0\.1 port {guarded.port}: .+\n", failed.stderr)


def test_the_worker_gets_neither_the_key_nor_what_another_platform_left() -> None:
    telling, theirs = ("--worker", str(ROOT / "tests" / "telling_worker.py")), {"RUNPOD_REALTIME_PORT": "9000"}
    with server(*telling, ready=False, SERVE_KEY=KEY, **theirs) as running:
        told = json.loads(running.line(r"environment: (.*)")[1][1])
        assert running.ask("GET", "/health").status == 401
    assert "RUNPOD_WEBHOOK_GET_JOB" in told
    assert not {"SERVE_KEY", "RUNPOD_REALTIME_PORT"} & set(told)
