"""Process start → first SVG, in fresh processes with the kernels in the cache."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pictures import Picture


def startup_row(picture: Picture, runs: int) -> dict[str, Any]:
    """Seconds from starting the command line to its end, SVG only on disk with its page, over `runs` processes."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.jpg"
        photo.write_bytes(picture.data)
        command = [sys.executable, "-m", "pipeline", str(photo), "-o", folder, "--json", "--width", "256"]
        for _ in range(runs + 1):
            began_s = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - began_s)
    warm = seconds[1:]
    return {
        "picture": picture.name,
        "name": "process start to first SVG",
        "n": runs,
        "p50_s": round(float(np.median(warm)), 3),
        "p95_s": round(float(np.quantile(warm, 0.95)), 3),
    }
