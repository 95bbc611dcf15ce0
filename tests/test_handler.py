"""handler.py as RunPod runs it: replies, errors that give nothing away, exit codes, progress, start-up."""

from __future__ import annotations

import base64
import hashlib
import http.client
import http.server
import io
import itertools
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

import handler
from pipeline.errors import DeviceLost, UploadFailed
from pipeline.schema import DryRunOutput, Health, JobOutput
from pipeline.settings import Settings
from pipeline.updates import Updates
from tests.serving import platform_environment

ROOT = Path(__file__).parent.parent
HANG_S = 120
"""No process here may take longer; a guard against hangs, not a target."""


def picture() -> str:
    rgb = np.full((64, 96, 3), (150, 180, 200), np.uint8)
    rgb[42:] = (110, 112, 115)
    rgb[24:48, 20:76] = (200, 38, 43)
    rgb[42:54, 28:38] = rgb[42:54, 58:68] = (20, 22, 26)
    encoded = io.BytesIO()
    Image.fromarray(rgb).save(encoded, "PNG")
    return base64.b64encode(encoded.getvalue()).decode("ascii")


PICTURE = picture()


def serve(request: object, job_id: str = "job-1") -> dict[str, Any]:
    """The handler's reply, known to be what the SDK can post."""
    reply = handler.handler({"id": job_id, "input": request})
    assert json.loads(json.dumps(reply, allow_nan=False, ensure_ascii=False).encode("utf-8")) == reply
    return reply


# ---- replies


def test_a_job_comes_back_with_its_svg_pngs_and_report() -> None:
    reply = serve({"image": PICTURE, "output": {"png_widths": [200, 64]}})
    assert JobOutput.model_validate_json(json.dumps(reply)).model_dump(mode="json") == reply
    root = ET.fromstring(reply["svg"])
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert reply["report"]["output_sha256"] == hashlib.sha256(reply["svg"].encode()).hexdigest()
    assert [png["width"] for png in reply["png"]] == [200, 64]
    for png in reply["png"]:
        data = base64.b64decode(png["url"].removeprefix("data:image/png;base64,"), validate=True)
        assert (png["bytes"], png["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert Image.open(io.BytesIO(data)).size == (png["width"], png["height"])
    assert reply["files"] == []


def test_other_formats_come_as_files_with_their_ink() -> None:
    inks = ["#6E7073", {"hex": "#C8262B", "name": "Signal red"}, "#96B4C8"]
    output = {"formats": ["pdf", "separations", "dxf"], "width_mm": 90}
    reply = serve({"image": PICTURE, "palette": inks, "output": output})
    assert JobOutput.model_validate_json(json.dumps(reply)).model_dump(mode="json") == reply
    assert (reply["svg"], reply["png"]) == (None, [])
    kinds = [(file["format"], file["ink"]) for file in reply["files"]]
    assert kinds[0] == ("pdf", None)
    assert kinds[-1] == ("dxf", None)
    assert ("separations", "Signal red") in kinds
    for file in reply["files"]:
        head, _, text = file["url"].partition(";base64,")
        data = base64.b64decode(text, validate=True)
        assert head == ("data:image/vnd.dxf" if file["format"] == "dxf" else "data:application/pdf")
        assert data.startswith(b"%PDF-") or data.rstrip().endswith(b"EOF")
        assert (file["bytes"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert file["expires_at"] is None


def test_a_reply_without_svg_holds_null() -> None:
    reply = serve({"image": PICTURE, "output": {"formats": ["png"], "png_widths": [64]}})
    assert reply["svg"] is None
    assert len(reply["png"]) == 1


def test_dry_run_and_ping_reply_in_their_own_shapes() -> None:
    dry = serve({"action": "dry_run", "image": PICTURE})
    assert DryRunOutput.model_validate_json(json.dumps(dry)).report.size is not None
    assert Health.model_validate_json(json.dumps(serve({"action": "ping"}))).status == "ready"


def test_the_projects_sample_is_served() -> None:
    sample = json.loads((ROOT / "test_input.json").read_text("utf-8"))
    reply = handler.handler({"id": "sample", **sample})
    assert "error" not in reply
    assert reply["report"]["nodes"] > 500


def test_what_is_not_json_never_reaches_the_sdk() -> None:
    for value in (float("nan"), b"bytes", np.float32(1), "\ud800"):
        with pytest.raises((ValueError, TypeError)):
            handler.postable({"value": value}, Settings())
    with pytest.raises(UploadFailed):
        handler.postable({"value": "é" * 40_000}, Settings(max_reply_bytes=65536))


def test_a_lost_device_asks_for_a_fresh_worker() -> None:
    assert handler.error_reply(DeviceLost("the GPU is gone"))["refresh_worker"] is True
    assert "refresh_worker" not in serve({})


# ---- nothing leaks


CANARY = "c4n4ry"


def test_the_log_names_the_job_and_its_outcome_but_never_holds_the_payload(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    serve({"image": PICTURE, "output": {"png_widths": [64]}}, "job-21")
    serve({"image": PICTURE, "imge": PICTURE}, "job\n22")
    lines = [record.getMessage() for record in caplog.records if record.name == "handler"]
    assert any(re.fullmatch(r"job 'job-21': done in \d+ ms", line) for line in lines)
    assert any(re.fullmatch(r"job 'job\\n22': SchemaError in \d+ ms", line) for line in lines)
    assert not any(PICTURE[:40] in record.getMessage() for record in caplog.records)


# ---- progress


def test_updates_go_out_one_at_a_time_in_order_at_most_two_a_second_and_never_after_the_end() -> None:
    sent: list[tuple[float, int]] = []
    under_way = 0

    def send(update: dict[str, Any]) -> None:
        nonlocal under_way
        under_way += 1
        assert under_way == 1
        sent.append((time.monotonic(), update["percent"]))
        time.sleep(0.05)
        under_way -= 1

    updates = Updates(send)
    for percent in range(70):
        updates.offer({"percent": percent})
        time.sleep(0.02)
    updates.offer({"percent": 99})
    updates.close()
    closed_s = time.monotonic()
    assert under_way == 0
    assert len(sent) >= 2
    percents = [percent for _, percent in sent]
    assert percents == sorted(set(percents))
    assert all(later - earlier >= 0.5 for (earlier, _), (later, _) in itertools.pairwise(sent))
    time.sleep(0.7)
    assert sent[-1][0] <= closed_s


def test_the_end_waits_for_the_update_under_way() -> None:
    begun, ended = threading.Event(), threading.Event()

    def send(_: dict[str, Any]) -> None:
        begun.set()
        time.sleep(0.3)
        ended.set()

    updates = Updates(send)
    updates.offer({"percent": 0})
    assert begun.wait(HANG_S)
    updates.close()
    assert ended.is_set()


class ControlPlane(http.server.ThreadingHTTPServer):
    """RunPod's side of a worker: notes that it asks, hands out jobs, collects what is posted."""

    def __init__(self, jobs: list[dict[str, Any]]) -> None:
        super().__init__(("127.0.0.1", 0), ControlPlaneHandler)
        self.jobs = jobs
        self.posts: list[tuple[str, dict[str, Any]]] = []
        self.asked = threading.Event()

    def environment(self) -> dict[str, str]:
        return platform_environment(self.server_port)

    def results(self) -> list[tuple[str, dict[str, Any]]]:
        return [(job, post) for job, post in self.posts if post.get("status") != "IN_PROGRESS"]


class ControlPlaneHandler(http.server.BaseHTTPRequestHandler):
    server: ControlPlane

    def do_GET(self) -> None:
        asks = "/job-take/" in self.path
        if asks:
            self.server.asked.set()
        if not asks or not self.server.jobs:
            time.sleep(0.1)
            self.send_response(204)
            self.end_headers()
            return
        body = json.dumps(self.server.jobs.pop(0)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posts.append((str(self.headers["X-Request-ID"]), json.loads(body)))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output quiet."""


@contextmanager
def worker(environment: dict[str, str], *arguments: str) -> Iterator[None]:
    """`python handler.py` while the block runs."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "handler.py"), *arguments],
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(condition: Any) -> None:
    deadline_s = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_a_worker_on_the_platform_posts_ordered_progress_then_the_result_and_goes_on() -> None:
    good = {"image": PICTURE, "output": {"png_widths": [64]}}
    plane = ControlPlane([{"id": "a", "input": {"imge": 1}}, {"id": "b", "input": good}])
    threading.Thread(target=plane.serve_forever, daemon=True).start()
    with worker(plane.environment()):
        wait_until(lambda: len(plane.results()) == 2)
    plane.shutdown()
    plane.server_close()
    (first, refused), (second, done) = plane.results()
    assert (first, second) == ("a", "b")
    assert refused["error"] == 'SchemaError: imge: unknown field; did you mean "image"?'
    assert refused["output"] == {"code": "SchemaError", "field": "imge", "retryable": False}
    assert done["output"]["report"]["engine"] == "draft"
    assert plane.posts[-1] == (second, done)
    percents = [post["output"]["percent"] for _, post in plane.posts if post.get("status") == "IN_PROGRESS"]
    assert percents
    assert percents == sorted(set(percents))


# ---- python handler.py


def start(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "handler.py"), *arguments],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )


def test_the_sample_exits_0() -> None:
    done = start(cwd=ROOT)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        ({"image": "AAAA"}, "ImageUnsupported: image: "),
        ({"palette": ["#000000"], "image": PICTURE}, "PaletteError: palette: needs 2 to 64 colours, not 1"),
    ],
)
def test_a_bad_job_exits_1_with_one_clear_line(request_: Any, line: str, tmp_path: Path) -> None:
    (tmp_path / "test_input.json").write_text(json.dumps({"input": request_}), "utf-8")
    failed = start(cwd=tmp_path)
    assert failed.returncode == 1
    output = failed.stdout + failed.stderr
    assert len([found for found in output.splitlines() if line in found]) == 1
    assert "Traceback" not in output
    assert str(tmp_path) not in output


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ("{", "--test_input: isn't JSON"),
        ("[]", '--test_input: must be an object with "input"'),
        ("{}", '--test_input: must be an object with "input"'),
        ('{"input": null}', '--test_input: must be an object with "input"'),
        ('"job"', '--test_input: must be an object with "input"'),
        ("[" * 100_000, "--test_input: isn't JSON"),
        ("", "--test_input: isn't JSON"),
    ],
    ids=lambda text: text[:20],
)
def test_a_job_that_the_sdk_would_trip_over_exits_1_with_one_line(
    written: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test_input.json").write_text(json.dumps({"input": {"action": "ping"}}), "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["handler.py", "--test_input", written])
    assert handler.main() == 1
    assert capsys.readouterr().err == f"ERROR   {line}\n"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "test_input.json: there is none in the current folder"),
        (b"{", "test_input.json: isn't JSON"),
        (b"\xff\xfe", "test_input.json: isn't JSON"),
        (b'{"inputs": {}}', 'test_input.json: must be an object with "input"'),
    ],
)
def test_a_job_file_that_the_sdk_would_trip_over_exits_1_with_one_line(
    content: bytes | None,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if content is not None:
        (tmp_path / "test_input.json").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["handler.py"])
    assert handler.main() == 1
    assert capsys.readouterr().err == f"ERROR   {line}\n"


def test_wrong_settings_keep_the_worker_from_starting_and_are_all_listed(tmp_path: Path) -> None:
    failed = start(cwd=tmp_path, LIVERY_THREADS=CANARY, LIVERY_VOLUM="x", LIVERY_AUTO_ENGINE="gpu")
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert failed.stderr.splitlines() == [
        "ERROR   LIVERY_VOLUM: unknown setting; the nearest known one is LIVERY_VOLUME",
        'ERROR   LIVERY_AUTO_ENGINE: must be "auto", "draft" or "studio"',
        "ERROR   LIVERY_THREADS: must be a whole number",
    ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def post(port: int, request: Any) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_S)
    connection.request("POST", "/runsync", json.dumps({"input": request}), {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    assert isinstance(answer, dict)
    return answer


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_local_server_serves_jobs_and_errors() -> None:
    port = free_port()
    with worker({}, "--rp_serve_api", "--rp_api_host", "127.0.0.1", "--rp_api_port", str(port)):
        wait_until(lambda: listens(port))
        assert post(port, {"action": "ping"})["output"]["status"] == "ready"
        refused = post(port, {"imge": "x"})
    assert (refused["status"], refused["error"]) == (
        "FAILED",
        'SchemaError: imge: unknown field; did you mean "image"?',
    )


def test_importing_the_handler_loads_neither_the_phases_nor_the_sdk() -> None:
    heavy = ("numpy", "numba", "cv2", "PIL", "pyvips", "pydantic", "runpod", "pipeline.run")
    program = f"import handler, sys; print([name for name in {heavy!r} if name in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=HANG_S, check=True
    )
    assert loaded.stdout == "[]\n"
