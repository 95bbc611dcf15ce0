"""The same bytes on any processor and any number of threads, in any order of jobs, and nothing compiled twice."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.request import parse_request
from pipeline.run import run
from pipeline.settings import Settings
from pipeline.worker import Worker
from tests.make_sample import SAMPLE

# Between them the two jobs take every step that could differ: line work, filled regions, cut-out, extraction.
EXTRA = {"line_work": 0.6, "sanitize": {"regions": [[160, 540, 260, 600]]}, "output": {"formats": ["svg", "png"]}}
EXTRACTED: dict[str, Any] = {**EXTRA, "palette": {"extract": 9}}
CUT_OUT: dict[str, Any] = {**EXTRA, "background": "remove"}

PROGRAM = """
import json, sys
from pipeline.warm import compiled_now
from tests.test_determinism import CUT_OUT, EXTRACTED, digests, vector_paths
made = [digests(EXTRACTED), digests(CUT_OUT)]
compiled = sum(compiled_now(name) for name in list(sys.modules) if name.startswith("pipeline."))
print(json.dumps({"digests": made, "compiled": compiled, "vector_paths": vector_paths()}))
"""


def digests(request: dict[str, Any]) -> list[str]:
    """SHA-256 of the index map, the SVG and the PNG that the sample photo becomes."""
    image = json.loads(SAMPLE.read_text())["input"]["image"]
    result = run(parse_request({"image": image, **request}), Worker(Settings()))
    parts = (result.index.index.tobytes(), result.drawing.svg.encode(), *(png.data for png in result.pngs))
    return [hashlib.sha256(part).hexdigest() for part in parts]


def vector_paths() -> list[str]:
    """What OpenCV and NumPy chose for this processor above their baselines: `*` marks such a path, `?` one not used."""
    opencv = [name.strip("*") for name in cv2.getCPUFeaturesLine().split() if name[0] == "*" and name[-1] != "?"]
    numpy: list[str] = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    return [*opencv, *numpy, *(["IPP"] if cv2.ipp.useIPP() else [])]


def without_vector_paths() -> dict[str, str]:
    """Settings that keep each library to its baseline, by the names that the installed versions know."""
    simd = np.show_config(mode="dicts")["SIMD Extensions"]
    return {
        "OPENCV_CPU_DISABLE": ",".join(word.strip("*?") for word in cv2.getCPUFeaturesLine().split() if word[0] == "*"),
        "OPENCV_IPP": "disabled",
        "NPY_DISABLE_CPU_FEATURES": " ".join(simd.get("found", [])),
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX512F,-AVX",
        "JSIMD_FORCENONE": "1",
        "VIPS_NOVECTOR": "1",
    }


MACHINES = {
    "plain": {},
    "one thread": {"LIVERY_THREADS": "1"},
    "two threads": {"LIVERY_THREADS": "2"},
    "four threads": {"LIVERY_THREADS": "4"},
    "no vector paths": without_vector_paths(),
}


@cache
def run_on(machine: str) -> dict[str, Any]:
    """Both jobs in a process of their own; each kind of machine runs once."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        env={**os.environ, **MACHINES[machine]},
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize("machine", [name for name in MACHINES if name != "plain"])
def test_the_bytes_are_the_same_on(machine: str) -> None:
    assert run_on(machine)["digests"] == run_on("plain")["digests"]


def test_the_plain_machine_differs_from_the_one_without_vector_paths() -> None:
    # Without this, a setting that a library ignores would make the comparison above one of a thing with itself.
    assert run_on("no vector paths")["vector_paths"] == []
    if not vector_paths():
        pytest.skip("this processor has no vector paths above the baselines")
    assert run_on("plain")["vector_paths"] == vector_paths()


def test_a_process_compiles_nothing_that_another_has_compiled() -> None:
    run_on("plain")
    assert run_on("two threads")["compiled"] == 0
