"""Process start → first SVG on disk, in fresh processes with the kernels in the cache."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pictures import Picture

_PROGRAM = """
import sys
from pathlib import Path
from pipeline.run import run
from pipeline.request import parse_request
from pipeline.settings import load_settings
from pipeline.worker import Worker
job = parse_request({"output": {"formats": ["svg"]}})
Path(sys.argv[2]).write_text(run(job, Worker(load_settings()), data=Path(sys.argv[1]).read_bytes()).drawing.svg)
"""


def startup_row(picture: Picture, runs: int) -> dict[str, Any]:
    """Seconds from starting Python to the end of a process that writes one SVG, over `runs` processes after a first."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.jpg"
        photo.write_bytes(picture.data)
        command = [sys.executable, "-c", _PROGRAM, str(photo), str(photo.with_suffix(".svg"))]
        for _ in range(runs + 1):
            began_s = time.perf_counter()
            subprocess.run(command, check=True)
            seconds.append(time.perf_counter() - began_s)
    warm = seconds[1:]
    return {
        "picture": picture.name,
        "name": "process start to first SVG",
        "n": runs,
        "p50_s": round(float(np.median(warm)), 3),
        "p95_s": round(float(np.quantile(warm, 0.95)), 3),
    }
