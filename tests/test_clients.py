"""The clients, each through the same scenes with an endpoint on loopback: what they send, retry, refuse and save."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from clients.python import livery as client
from pipeline.decode import MAX_BYTES
from pipeline.errors import error_classes
from tests.platform_server import ENDPOINT, Platform, serving
from tests.scene import Scene, encode_jpeg
from tests.serving import server

ROOT = Path(__file__).resolve().parent.parent
QUICK = client.Retries(attempts=4, first_pause_s=0.02, longest_pause_s=0.2)
KINDS = {
    client.TooLarge: "too_large",
    client.Unreachable: "unreachable",
    client.Refused: "refused",
    client.Failed: "failed",
    client.Cancelled: "cancelled",
    client.TimedOut: "timed_out",
    client.StillRunning: "still_running",
    client.Damaged: "damaged",
}
Drive = Callable[..., dict[str, Any]]


def drive_python(url: str, **asked: Any) -> dict[str, Any]:
    """One scenario with the Python client: `photo` is a path or a number of bytes; saves where there is a folder."""
    told: list[dict[str, Any]] = []
    done: dict[str, Any] = {"told": told}
    try:
        endpoint = client.Livery(url, asked.get("key"), retries=QUICK)
        given = asked.get("photo")
        photo = Path(given) if isinstance(given, str) else None if given is None else b"\7" * given
        if asked.get("sync"):
            done["output"] = endpoint.run_sync(photo, **asked.get("fields", {}))
        else:
            job = endpoint.submit(photo, **asked.get("fields", {}))
            if asked.get("cancel"):
                job.cancel()
            done["output"] = job.wait(
                lambda p: told.append({name: getattr(p, name) for name in ("status", "phase", "percent", "message")}),
                timeout_s=None if asked.get("wait_ms") is None else asked["wait_ms"] / 1000,
            )
        if asked.get("folder"):
            done["files"] = [str(path) for path in client.save(done["output"], Path(asked["folder"]), "car")]
    except (client.LiveryError, ValueError) as fault:
        names = {
            "status": "status",
            "maybeSent": "maybe_sent",
            "code": "code",
            "field": "field",
            "retryable": "retryable",
        }
        details = {name: getattr(fault, own, None) for name, own in names.items()}
        kind = KINDS.get(type(fault), "TypeError")  # type: ignore[arg-type]
        done["fault"] = {"kind": kind, "message": str(fault), **details}
    return done


def drive_js(url: str, **asked: Any) -> dict[str, Any]:
    """The same with the JavaScript client under Node."""
    retries = {"attempts": 4, "firstPauseMs": 20, "longestPauseMs": 200}
    done = subprocess.run(
        ["node", "tests/drive_js.mjs"],
        cwd=ROOT,
        input=json.dumps({"url": url, "photo": None, "fields": {}, "retries": retries, **asked}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    if "fault" in answer:
        names = ("status", "maybeSent", "code", "field", "retryable")
        answer["fault"] |= {name: answer["fault"].get(name) for name in names}
    return answer


@pytest.fixture
def platform() -> Iterator[Platform]:
    with serving() as platform:
        yield platform


@pytest.fixture(params=["python", "js"])
def drive(request: pytest.FixtureRequest) -> Drive:
    if request.param == "js" and shutil.which("node") is None:
        pytest.skip("node is not installed: the JavaScript client is not tested here")
    return drive_python if request.param == "python" else drive_js


def link(data: bytes, url: str, **more: Any) -> dict[str, Any]:
    return {"url": url, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "expires_at": None, **more}


OUTPUT: dict[str, Any] = {"svg": "<svg>é</svg>", "png": [], "files": [], "report": {"paths": 3}}
TYPED = {"code": "PaletteError", "field": "palette[2]", "retryable": False}
COMPLETED = {"status": "COMPLETED", "output": OUTPUT}


def running(phase: str, percent: int) -> dict[str, Any]:
    return {"status": "IN_PROGRESS", "output": {"phase": phase, "percent": percent, "message": f"now {phase}"}}


def test_a_job_is_sent_followed_and_handed_over(platform: Platform, drive: Drive) -> None:
    platform.key = "secret"
    late = running("decode", 0)  # an update that was overtaken
    platform.course = [{"status": "IN_QUEUE"}, running("steer", 20), late, running("export", 80), COMPLETED]
    done = drive(platform.url, key="secret", photo=5, fields={"detail": 0.5, "palette": ["#000000", "#ffffff"]})
    assert done["output"] == OUTPUT
    assert [step["percent"] for step in done["told"]] == [0, 20, 20, 80]
    assert done["told"][1] == {"status": "IN_PROGRESS", "phase": "steer", "percent": 20, "message": "now steer"}
    sent = platform.seen[0]
    assert (sent.method, sent.path) == ("POST", "/v2/abc123/run")
    image = base64.b64encode(b"\7" * 5).decode()
    assert json.loads(sent.body) == {"input": {"detail": 0.5, "palette": ["#000000", "#ffffff"], "image": image}}
    assert {seen.key for seen in platform.seen} == {"Bearer secret"}


def test_runsync_answers_at_once_or_goes_on_with_status(platform: Platform, drive: Drive) -> None:
    platform.sync = COMPLETED
    assert drive(platform.url, sync=True, fields={"action": "ping"})["output"] == OUTPUT
    assert [seen.path for seen in platform.seen] == ["/v2/abc123/runsync"]
    platform.sync, platform.course = running("steer", 20), [COMPLETED]
    assert drive(platform.url, sync=True)["output"] == OUTPUT


@pytest.mark.parametrize("status", sorted(client.RETRIED))
def test_passing_faults_are_tried_again(platform: Platform, status: int) -> None:
    platform.course = [COMPLETED]
    platform.faults = {"/run": [(status, {}, b"busy")] * 3, "/status/job-1": [(status, {}, b"busy")] * 3}
    assert drive_python(platform.url)["output"] == OUTPUT
    assert [seen.path for seen in platform.seen].count("/v2/abc123/run") == 4


def test_both_clients_retry_and_give_up(platform: Platform, drive: Drive) -> None:
    platform.course = [COMPLETED]
    platform.faults = {"/run": [(429, {}, b""), (503, {}, b"")]}
    assert drive(platform.url)["output"] == OUTPUT
    platform.faults = {"/run": [(503, {}, b"no  worker")] * 9}
    fault = drive(platform.url)["fault"]
    assert (fault["kind"], fault["status"], fault["message"]) == ("refused", 503, "HTTP 503: no worker")
    assert len(platform.faults["/run"]) == 9 - QUICK.attempts


def test_retry_after_is_waited_for_up_to_the_limit(platform: Platform, drive: Drive) -> None:
    platform.course = [COMPLETED]
    platform.faults = {"/run": [(429, {"Retry-After": "3600"}, b"")] * 3}
    drive(platform.url)
    came_s = [seen.at_s for seen in platform.seen if seen.path.endswith("/run")]
    # Of the longest length, not the hour that was asked for; the growing ones would be 0.02, 0.04 and 0.08 s.
    pauses_s = [later - earlier for earlier, later in pairwise(came_s)]
    assert len(pauses_s) == 3
    assert min(pauses_s) >= QUICK.longest_pause_s


@pytest.mark.parametrize(("status", "said"), [(400, "HTTP 400: no input"), (401, "key"), (404, "no such endpoint")])
def test_the_caller_s_own_faults_are_not_tried_again(platform: Platform, drive: Drive, status: int, said: str) -> None:
    platform.faults = {"/run": [(status, {}, b"no input")]}
    fault = drive(platform.url)["fault"]
    assert (fault["kind"], fault["status"]) == ("refused", status)
    assert said in fault["message"]
    assert len(platform.seen) == 1


def test_what_may_have_arrived_is_not_sent_again(platform: Platform, drive: Drive) -> None:
    platform.faults = {"/run": [(0, {}, b"")]}
    fault = drive(platform.url)["fault"]
    assert (fault["kind"], fault["maybeSent"]) == ("unreachable", True)
    assert len(platform.seen) == 1
    platform.course = [COMPLETED]
    platform.faults = {"/status/job-1": [(0, {}, b"")]}  # asking twice does no harm
    assert drive(platform.url)["output"] == OUTPUT


def test_an_endpoint_that_is_not_there(drive: Drive) -> None:
    with serving() as gone:
        url = gone.url
    fault = drive(url)["fault"]
    assert (fault["kind"], fault["maybeSent"]) == ("unreachable", False)


def test_redirects_do_not_carry_the_key_away(platform: Platform, drive: Drive) -> None:
    with serving() as thief:
        platform.course = [COMPLETED]
        platform.faults = {"/status/job-1": [(302, {"Location": f"{thief.url}/status/job-1"}, b"")] * 9}
        assert "fault" in drive(platform.url, key="secret")
        assert thief.seen == []


@pytest.mark.parametrize("url", ["http://livery.example/v2/abc", "ftp://127.0.0.1/"])
def test_a_key_goes_over_https_or_stays_on_the_machine(drive: Drive, url: str) -> None:
    fault = drive(url, key="secret")["fault"]
    assert fault["kind"] == "TypeError"
    assert "http" in fault["message"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"error": "PaletteError: palette[2]: x", "output": TYPED}, ("failed", "PaletteError", "palette[2]", False)),
        # Where the platform hands on the sentence only, the code is its beginning.
        ({"error": "OutOfMemory: the worker ran out of memory"}, ("failed", "OutOfMemory", None, True)),
        ({"error": "Something else"}, ("failed", "Unknown", None, False)),
    ],
)
def test_failed_jobs_keep_their_code(platform: Platform, drive: Drive, answer: Any, expected: Any) -> None:
    platform.course = [{"status": "FAILED", **answer}]
    fault = drive(platform.url)["fault"]
    assert (fault["kind"], fault["code"], fault["field"], fault["retryable"]) == expected
    assert fault["message"] == answer["error"]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"status": "TIMED_OUT"}, "timed_out"),
        ({"status": "CANCELLED"}, "cancelled"),
        ({"status": "COMPLETED"}, "failed"),  # what the platform shows where a reply was too large for it
    ],
)
def test_other_ends_have_names(platform: Platform, drive: Drive, answer: Any, kind: str) -> None:
    platform.course = [answer]
    assert drive(platform.url)["fault"]["kind"] == kind


def test_a_cancelled_job_is_said_to_be(platform: Platform, drive: Drive) -> None:
    platform.course = [{"status": "IN_QUEUE"}]
    assert drive(platform.url, cancel=True, wait_ms=5000)["fault"]["kind"] == "cancelled"
    assert platform.cancelled


def test_waiting_ends_in_time_and_leaves_the_job(platform: Platform, drive: Drive) -> None:
    platform.course = [{"status": "IN_QUEUE"}]
    began_s = time.monotonic()
    assert drive(platform.url, wait_ms=600)["fault"]["kind"] == "still_running"
    assert time.monotonic() - began_s < 5
    assert not platform.cancelled


def test_sizes_are_checked_before_anything_is_sent(platform: Platform, drive: Drive) -> None:
    assert client.MAX_PHOTO_BYTES <= MAX_BYTES
    # Three quarters of the limit become the limit in base64; the rest of the JSON takes it over.
    for sync, limit_bytes in ((False, client.MAX_RUN_BYTES), (True, client.MAX_RUNSYNC_BYTES)):
        for more, what in ((0, "the request"), (3, "the photo in base64")):
            fault = drive(platform.url, sync=sync, photo=limit_bytes * 3 // 4 + more)["fault"]
            assert fault["kind"] == "too_large"
            assert fault["message"].startswith(what)
            assert f"{limit_bytes // 10**6} MB" in fault["message"]
    assert drive(platform.url, sync=True, photo=client.MAX_PHOTO_BYTES + 1)["fault"]["kind"] == "too_large"
    assert platform.seen == []
    platform.course = [COMPLETED]
    assert drive(platform.url, photo=client.MAX_RUN_BYTES * 3 // 4 - 50)["output"] == OUTPUT
    assert len(platform.seen[0].body) <= client.MAX_RUN_BYTES


def test_files_are_saved_checked_and_without_the_key(platform: Platform, drive: Drive, tmp_path: Path) -> None:
    png, plate = b"\x89PNG" + bytes(range(256)), b"%PDF-1.7"
    platform.files = {"/signed/a.png?sig=1": png}
    platform.faults = {"/signed/a.png?sig=1": [(503, {}, b"")]}
    carried = f"data:application/pdf;base64,{base64.b64encode(plate).decode()}"
    files = [
        link(plate, carried, format="separations", ink="Signal red / 2"),
        link(plate, carried, format="separations", ink="../signal red   2"),
        link(plate, carried, format="pdf", ink=None),
    ]
    output = {**OUTPUT, "png": [link(png, f"{platform.host}/signed/a.png?sig=1", width=96, height=64)], "files": files}
    platform.course = [{"status": "COMPLETED", "output": output}]
    done = drive(platform.url, key="secret", folder=str(tmp_path))
    names = ["car.svg", "car-96.png", "car-Signal-red-2.pdf", "car-signal-red-2-2.pdf", "car.pdf", "car.json"]
    assert done["files"] == [str(tmp_path / name) for name in names]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert (tmp_path / "car.svg").read_text("utf-8") == OUTPUT["svg"]
    assert (tmp_path / "car-96.png").read_bytes() == png
    assert json.loads((tmp_path / "car.json").read_text()) == {"paths": 3}


@pytest.mark.parametrize("arrives", [b"other bytes!", b"short"])
def test_damaged_files_are_refused(platform: Platform, drive: Drive, tmp_path: Path, arrives: bytes) -> None:
    platform.files = {"/a.png": arrives}
    output = {**OUTPUT, "png": [link(b"right bytes!", f"{platform.host}/a.png", width=96, height=64)]}
    platform.course = [{"status": "COMPLETED", "output": output}]
    assert drive(platform.url, folder=str(tmp_path))["fault"]["kind"] == "damaged"
    assert not list(tmp_path.glob("*.png*"))


def test_a_reply_cannot_name_a_file_of_this_machine(platform: Platform, drive: Drive, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"x")
    output = {**OUTPUT, "png": [link(b"x", secret.as_uri(), width=96, height=64)]}
    platform.course = [{"status": "COMPLETED", "output": output}]
    assert drive(platform.url, folder=str(tmp_path / "out"))["fault"]["kind"] == "damaged"


def test_the_key_is_not_shown() -> None:
    assert "secret" not in repr(client.Livery("https://livery.example", "secret"))


def test_both_know_which_codes_may_be_retried() -> None:
    retryable = {kind.__name__ for kind in error_classes() if kind.retryable}
    assert retryable == client.RETRYABLE_CODES
    text = (ROOT / "clients/js/livery.mjs").read_text("utf-8")
    listed = re.search(r"RETRYABLE_CODES = new Set\(\[(.*?)\]\)", text, re.DOTALL)
    assert listed is not None
    assert set(re.findall(r"\w+", listed[1])) == retryable
    limits = {name: int(value.replace("_", "")) for name, value in re.findall(r"const (MAX_\w+) = ([\d_]+);", text)}
    assert limits == {name: getattr(client, name) for name in ("MAX_PHOTO_BYTES", "MAX_RUN_BYTES", "MAX_RUNSYNC_BYTES")}


def test_the_command_line_saves_and_says_what_failed(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "car.jpg").write_bytes(b"\7")
    command = [
        sys.executable,
        "clients/python/livery.py",
        platform.url,
        str(tmp_path / "car.jpg"),
        "-o",
        str(tmp_path / "out"),
    ]
    platform.course = [running("steer", 20), COMPLETED]
    done = subprocess.run(
        [*command, "--fields", '{"detail": 0.7}'], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(tmp_path / "out" / name) for name in ("car.svg", "car.json")]
    assert json.loads(platform.seen[0].body)["input"]["detail"] == 0.7
    platform.course = [{"status": "FAILED", "error": "ImageCorrupt: image: damaged"}]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "error: ImageCorrupt: image: damaged")


Curl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def curl(platform: Platform, tmp_path: Path) -> Curl:
    """Runs the script with a small photo."""
    missing = [name for name in ("curl", "jq") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    photo = tmp_path / "car.jpg"
    photo.write_bytes(b"\7" * 99)
    platform.key = "secret"

    def call(url: str = platform.url, key: str = "secret") -> subprocess.CompletedProcess[str]:
        command = ["sh", "clients/curl.sh", url, str(photo), '{"detail": 0.7}']
        keyed = {**os.environ, "RUNPOD_API_KEY": key}
        return subprocess.run(command, cwd=ROOT, env=keyed, capture_output=True, text=True, check=False)

    return call


def test_the_curl_script_waits_and_prints_the_svg(platform: Platform, curl: Curl, tmp_path: Path) -> None:
    platform.course = [running("steer", 20), COMPLETED]
    platform.faults = {"/run": [(503, {}, b"")]}
    done = curl()
    assert (done.returncode, done.stdout) == (0, OUTPUT["svg"]), done.stderr
    assert "IN_PROGRESS steer 20 %" in done.stderr
    image = base64.b64encode(b"\7" * 99).decode()
    assert json.loads(platform.seen[0].body) == {"input": {"detail": 0.7, "image": image}}
    (tmp_path / "car.jpg").write_bytes(b"\7" * 8_000_000)
    platform.seen.clear()
    assert curl().returncode == 1
    assert platform.seen == []


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"status": "FAILED", "error": "ImageCorrupt: image: damaged"}, "ImageCorrupt: image: damaged"),
        ({"status": "CANCELLED"}, "CANCELLED"),
        ({"status": "COMPLETED", "output": {**OUTPUT, "svg": None}}, "the reply holds no SVG"),
    ],
)
def test_the_curl_script_fails_where_there_is_no_svg(
    platform: Platform, curl: Curl, answer: dict[str, Any], error: str
) -> None:
    platform.course = [answer]
    done = curl()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {error}")


def test_the_curl_script_sends_a_job_again_only_where_it_was_refused(platform: Platform, curl: Curl) -> None:
    refused = curl(key="other")
    assert (refused.returncode, [seen.path for seen in platform.seen]) == (1, [f"{ENDPOINT}/run"])
    assert refused.stderr.startswith("error: HTTP 401: ")
    platform.seen.clear()
    platform.faults = {"/run": [(0, {}, b"")]}
    broken = curl()
    assert (broken.returncode, [seen.path for seen in platform.seen]) == (1, [f"{ENDPOINT}/run"])
    assert broken.stderr.endswith("error: the connection broke while the job was sent; it may run all the same\n")


@pytest.mark.parametrize(
    "url", ["http://192.0.2.2:9/v2/x", "http://localhost:1@192.0.2.2/v2/x", "http://localhost.org/v2/x"]
)
def test_the_curl_script_keeps_the_key_from_other_machines(curl: Curl, url: str) -> None:
    done = curl(url)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: the key is not sent ")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The real server with its real worker."""
    with server(LIVERY_AUTO_ENGINE="draft") as running:
        yield f"http://127.0.0.1:{running.port}/v2/livery"


def test_a_real_worker_s_job_comes_back_whole(drive: Drive, endpoint: str, scene: Scene, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(encode_jpeg(scene))
    fields = {
        "palette": ["#111318", "#E9ECEE", "#D7263D"],
        "output": {"formats": ["svg", "png", "separations"], "dpi": 96},
    }
    done = drive(endpoint, photo=str(photo), fields=fields, folder=str(tmp_path / "out"))
    assert "fault" not in done, done["fault"]
    report = done["output"]["report"]
    assert hashlib.sha256((tmp_path / "out/car.svg").read_bytes()).hexdigest() == report["output_sha256"]
    suffixes = [Path(path).suffix for path in done["files"]]
    assert suffixes == [".svg", ".png", ".pdf", ".pdf", ".pdf", ".json"]
    percents = [step["percent"] for step in done["told"]]
    assert percents == sorted(percents)
    assert done["told"][-1]["phase"] is not None


def test_a_real_worker_s_refusal_keeps_its_code_and_field(drive: Drive, endpoint: str) -> None:
    fault = drive(endpoint, photo=9, fields={"detial": 1})["fault"]
    assert (fault["kind"], fault["code"], fault["field"], fault["retryable"]) == (
        "failed",
        "SchemaError",
        "detial",
        False,
    )
