"""The check of the host before the first job: what ends the worker with one clear line, and what does not."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from models.device import find_device
from models.store import MANIFEST_NAME
from pipeline.fitness import host_faults
from pipeline.settings import Settings

ROOT = Path(__file__).parent.parent
HANG_S = 60
HUGE_MB = "100000000"

has_torch = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not has_torch, reason="the studio extra is not installed")


class Platform(ThreadingHTTPServer):
    """As much of RunPod as a worker that starts needs: it notices who asks for a job, and has none."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Asked)
        self.asked = threading.Event()


class Asked(BaseHTTPRequestHandler):
    server: Platform

    def do_GET(self) -> None:
        if "/job-take/" in self.path:
            self.server.asked.set()
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output quiet."""


@pytest.fixture
def platform() -> Platform:
    """Listening until the test ends."""
    plane = Platform()
    threading.Thread(target=plane.serve_forever, daemon=True).start()
    return plane


LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
os.execv(sys.executable, [sys.executable, sys.argv[2]])
"""
"""Starts a worker none of whose files grows past so many bytes, as on a full disk or with a quota."""


def start(platform: Platform, limit_bytes: int | None = None, **environment: str) -> subprocess.Popen[str]:
    address = f"http://127.0.0.1:{platform.server_port}"
    limited = [] if limit_bytes is None else ["-c", LIMITED, str(limit_bytes)]
    known = {name: value for name, value in os.environ.items() if not name.startswith(("LIVERY_", "RUNPOD_"))}
    return subprocess.Popen(
        [sys.executable, *limited, str(ROOT / "handler.py")],
        env={
            **known,
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "RUNPOD_WEBHOOK_GET_JOB": f"{address}/job-take/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{address}/done/$ID?gpu=none",
            "RUNPOD_WEBHOOK_PING": f"{address}/ping/$RUNPOD_POD_ID",
            "RUNPOD_POD_ID": "worker",
            "RUNPOD_AI_API_KEY": "key",
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_SKIP_GPU_CHECK": "true",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def refused(platform: Platform, line: str, limit_bytes: int | None = None, **environment: str) -> None:
    """Start a worker that must end by itself before it asks for a job, with `line` and no other about the host."""
    process = start(platform, limit_bytes, **environment)
    try:
        output, _ = process.communicate(timeout=HANG_S)
    finally:
        process.kill()
    assert process.returncode == 1, output
    assert not platform.asked.is_set()
    assert len(re.findall(r"HostFault: ", output)) == 1, output
    assert re.search(rf"HostFault: {line}\n", output), output
    assert "Traceback" not in output
    for value in environment.values():
        assert not value.startswith("/") or value not in output


def test_a_volume_that_is_not_mounted(platform: Platform, tmp_path: Path) -> None:
    line = "the volume is not mounted: there is no folder where LIVERY_VOLUME says"
    refused(platform, line, LIVERY_VOLUME=str(tmp_path / "gone"))


def test_a_volume_that_is_a_file(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = "the volume that LIVERY_VOLUME names can't be read: Not a directory"
    refused(platform, line, LIVERY_VOLUME=str(tmp_path / "file"))


def test_too_little_disk(platform: Platform) -> None:
    line = rf"the disk has \d+ MiB free where temporary files go, and LIVERY_LEAST_DISK_MB asks for {HUGE_MB}"
    refused(platform, line, LIVERY_LEAST_DISK_MB=HUGE_MB)


@pytest.mark.parametrize(
    ("limit_bytes", "line"),
    [
        (65_536, "the temporary folder can't be written: File too large"),
        (0, "there is no folder that temporary files can be written to"),
    ],
)
def test_a_disk_that_takes_nothing(platform: Platform, limit_bytes: int, line: str) -> None:
    refused(platform, line, limit_bytes)


@needs_torch
def test_a_deployment_for_the_studio_without_a_gpu(platform: Platform, tmp_path: Path) -> None:
    line = "there is (no GPU, and LIVERY_AUTO_ENGINE=studio serves on one only|an NVIDIA GPU, but .+)"
    refused(platform, line, LIVERY_AUTO_ENGINE="studio", LIVERY_VOLUME=str(tmp_path), CUDA_VISIBLE_DEVICES="")


def test_every_fault_is_in_the_one_line(platform: Platform, tmp_path: Path) -> None:
    line = r"the disk has [^;]+; the volume is not mounted[^;]+"
    refused(platform, line, LIVERY_VOLUME=str(tmp_path / "gone"), LIVERY_LEAST_DISK_MB=HUGE_MB)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LIVERY_VOLUME": "{volume}"},
        {"LIVERY_AUTO_ENGINE": "draft", "LIVERY_VOLUME": "/nowhere"},
    ],
    ids=["nothing set", "a volume without models", "a volume that draft has no use for"],
)
def test_what_is_no_fault_of_the_host_begins_to_serve(
    platform: Platform, environment: dict[str, str], tmp_path: Path
) -> None:
    process = start(platform, None, **{name: value.format(volume=tmp_path) for name, value in environment.items()})
    try:
        assert platform.asked.wait(HANG_S)
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=HANG_S)
    assert "unhealthy" not in output


def test_models_that_are_missing_or_damaged_are_for_the_jobs_to_say(tmp_path: Path) -> None:
    for text in ("{", '{"format": 1, "kind": "hub", "rows": {}}'):
        (tmp_path / MANIFEST_NAME).write_text(text)
        assert list(host_faults(Settings(volume=tmp_path))) == []


@pytest.mark.parametrize("values", [{"auto_engine": "draft", "volume": "."}, {"auto_engine": "auto"}], ids=str)
def test_a_worker_of_drafts_starts_without_torch(values: dict[str, str]) -> None:
    code = (
        "import sys; from pipeline.fitness import host_faults; from pipeline.settings import Settings\n"
        f"assert list(host_faults(Settings.model_validate({values!r}, strict=False))) == []\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=HANG_S)


@needs_torch
def test_memory_that_others_hold_counts_against_a_gpu(tmp_path: Path) -> None:
    if find_device().kind == "cpu":
        pytest.skip("there is no GPU")
    (fault,) = host_faults(Settings(volume=tmp_path, least_vram_mb=int(HUGE_MB)))
    assert re.fullmatch(rf"the GPU has \d+ MiB of memory free, and LIVERY_LEAST_VRAM_MB asks for {HUGE_MB}", fault)
    assert list(host_faults(Settings(volume=tmp_path, least_vram_mb=1))) == []
