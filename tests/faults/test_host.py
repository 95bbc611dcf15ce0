"""Hosts that are not fit: no room on the disk, no volume, no GPU that can be used; and what jobs use up over time."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.actions import illustrate
from pipeline.request import parse_request
from pipeline.settings import Settings
from pipeline.worker import Worker
from tests.faults.conftest import Figure
from tests.faults.disks import Disk, small_disk
from tests.serving import ROOT, platform_environment
from tests.test_handler import PICTURE

HANG_S = 60
HUGE_MB = "100000000"
DISK_MB = 64
JOBS = 300

has_torch = importlib.util.find_spec("torch") is not None


# ---- a full disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", DISK_MB) as made:
        yield made


def draw(photo: Path, out: Path) -> dict[str, object]:
    """The command line's line on a photo."""
    options = ["--width", "1024", "--json", "-o", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", str(photo), *options],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    told: dict[str, object] = json.loads(done.stdout)
    return told


def test_a_disk_that_fills_as_files_are_written_is_volume_full(disk: Disk, tmp_path: Path, figure: Figure) -> None:
    photo = tmp_path / "car.png"
    photo.write_bytes(base64.b64decode(PICTURE))
    out = disk.folder / "out"
    for left_bytes in (0, 16_384):
        disk.fill(left_bytes)
        told = draw(photo, out)
        assert told["code"] == "VolumeFull", told
        assert [name for name in disk.names() if name.endswith(".part")] == []
        disk.empty()
    assert "code" not in draw(photo, out)
    assert {"out/car.svg", "out/car-1024.png", "out/car.json"} <= disk.names()
    figure(
        "disk full",
        f"{DISK_MB} MB, files: VolumeFull twice, no temporary file, the next job whole",
        "VolumeFull, next job fine",
    )


def test_a_disk_that_is_full_as_a_result_is_kept_fails_no_job(disk: Disk, figure: Figure) -> None:
    worker = Worker(Settings(cache=disk.folder / "cache"))

    def warned(seed: int) -> list[str]:
        output = illustrate(parse_request({"image": PICTURE, "seed": seed}), worker, frame_px=96)
        assert output.svg is not None
        return [warning.code for warning in output.report.warnings]

    disk.fill(0)
    assert "cache_full" in warned(1)
    assert disk.names() == set()
    disk.empty()
    assert "cache_full" not in warned(2)
    assert len(disk.names()) == 1
    figure("disk full", f"{DISK_MB} MB, cache: a warning, nothing half kept, the next result kept", "next job fine")


# ---- the start of a worker


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


@dataclass(frozen=True)
class Unfit:
    """A host that can't serve.

    Attributes:
        line: pattern of what is said of it.
        environment: with `{folder}` for an empty folder.
        before: what stands before the worker's script.
    """

    line: str
    environment: dict[str, str] = field(default_factory=dict)
    before: tuple[str, ...] = ()


OLD_BUILD = """
import runpy, sys
from types import SimpleNamespace
import torch
torch.cuda.is_available = lambda: True
torch.cuda.get_device_name = lambda *_: "NVIDIA GeForce RTX 5090"
torch.cuda.get_device_properties = lambda *_: SimpleNamespace(total_memory=32607 << 20)
torch.cuda.get_device_capability = lambda *_: (12, 0)
torch.cuda.get_arch_list = lambda: ["sm_50", "sm_90"]
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Starts a worker with a GPU that PyTorch was not built for, as an image with CUDA 11.8 is on an RTX 5090."""

STUDIO = {"LIVERY_AUTO_ENGINE": "studio", "LIVERY_VOLUME": "{folder}", "CUDA_VISIBLE_DEVICES": ""}
NO_MOUNT = {"LIVERY_VOLUME": "{folder}/gone"}

UNFIT = {
    "a volume that is not mounted": Unfit(
        "the volume is not mounted: there is no folder where LIVERY_VOLUME says", NO_MOUNT
    ),
    "a volume that is a file": Unfit(
        "the volume that LIVERY_VOLUME names can't be read: Not a directory", {"LIVERY_VOLUME": "{folder}/file"}
    ),
    "too little disk": Unfit(
        rf"the disk has \d+ MiB free where temporary files go, and LIVERY_LEAST_DISK_MB asks for {HUGE_MB}",
        {"LIVERY_LEAST_DISK_MB": HUGE_MB},
    ),
    "a disk that takes little": Unfit(
        "the temporary folder can't be written: File too large", before=("-c", LIMITED, "65536")
    ),
    "a disk that takes nothing": Unfit(
        "there is no folder that temporary files can be written to", before=("-c", LIMITED, "0")
    ),
    "every fault in the one line": Unfit(
        r"the disk has [^;]+; the volume is not mounted[^;]+", {**NO_MOUNT, "LIVERY_LEAST_DISK_MB": HUGE_MB}
    ),
}
UNFIT_STUDIO = {
    "no GPU": Unfit(
        "there is (no GPU, and LIVERY_AUTO_ENGINE=studio serves on one only|an NVIDIA GPU, but .+)", STUDIO
    ),
    "a GPU that PyTorch was not built for": Unfit(
        r"the GPU \(NVIDIA GeForce RTX 5090, sm_120\) is not among those that this build of PyTorch was made for "
        r"\(sm_50, sm_90\)",
        STUDIO,
        ("-c", OLD_BUILD),
    ),
}


def start(platform: Platform, *before: str, **environment: str) -> subprocess.Popen[str]:
    """A worker; `before` stands before its script, such as a program that starts it."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("LIVERY_", "RUNPOD_"))}
    return subprocess.Popen(
        [sys.executable, *before, str(ROOT / "handler.py")],
        env={
            **known,
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            **platform_environment(platform.server_port),
            "RUNPOD_SKIP_GPU_CHECK": "true",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def refused(platform: Platform, host: Unfit, folder: Path) -> None:
    """Start a worker that must end by itself before it asks for a job, with one line about the host."""
    environment = {name: value.format(folder=folder) for name, value in host.environment.items()}
    process = start(platform, *host.before, **environment)
    try:
        output, _ = process.communicate(timeout=HANG_S)
    finally:
        process.kill()
    assert process.returncode == 1, output
    assert not platform.asked.is_set()
    assert len(re.findall(r"HostFault: ", output)) == 1, output
    assert re.search(rf"HostFault: {host.line}\n", output), output
    assert "Traceback" not in output
    for value in environment.values():
        assert not value.startswith("/") or value not in output


def test_a_host_that_can_t_serve_is_one_clear_line_before_the_first_job(
    platform: Platform, tmp_path: Path, figure: Figure
) -> None:
    (tmp_path / "file").touch()
    hosts = UNFIT | (UNFIT_STUDIO if has_torch else {})
    for host in hosts.values():
        refused(platform, host, tmp_path)
    measured = f"{len(hosts)} of {len(hosts)} hosts: one line, exit 1, no job asked for"
    figure("unhealthy start", measured, "one clear line, exit ≠ 0 before the first job")


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
    process = start(platform, **{name: value.format(volume=tmp_path) for name, value in environment.items()})
    try:
        assert platform.asked.wait(HANG_S)
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=HANG_S)
    assert "unhealthy" not in output


# ---- over many jobs

SOAK = f"""
import json
from functools import partial
import benchmarks.soak
benchmarks.soak.illustrate = partial(benchmarks.soak.illustrate, frame_px=64)
print(json.dumps(benchmarks.soak.soak({JOBS})))
"""
"""The soak with a smaller frame, which makes it short."""


@pytest.mark.skipif(sys.platform != "linux", reason="reads a process's memory in Linux's way")
def test_three_hundred_jobs_leave_neither_memory_nor_descriptors(figure: Figure) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SOAK], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=5 * HANG_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    row = json.loads(done.stdout.splitlines()[-1])
    slope, descriptors, threads = row["memory_slope_mb_per_job"], row["descriptors_left"], row["threads_left"]
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in row["outcomes"].items())
    print(outcomes)
    figure(
        "leaks",
        f"{row['n']} jobs: {slope:+.3f} MB a job, descriptors {descriptors:+d}, threads {threads:+d}",
        "< 0.1 MB a job, ± 2",
    )
    assert row["n"] == sum(row["outcomes"].values()) == JOBS
    assert slope < 0.1
    assert abs(descriptors) <= 2
