"""The same bytes on any processor and any number of threads, in any order of jobs, and nothing compiled twice."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.run import run
from pipeline.schema import parse_request
from pipeline.settings import Settings
from tests.make_sample import SAMPLE
from tests.scene import Scene

# Each is one job with every step that could differ: line work, filled regions, cut-out, extraction.
PROGRAM = """
import hashlib, json, sys
from pipeline.run import run
from pipeline.schema import parse_request
from pipeline.settings import Settings
from pipeline.warm import compiled_now
image = json.load(open(sys.argv[1]))["input"]["image"]
extra = {"line_work": 0.6, "sanitize": {"regions": [[160, 540, 260, 600]]}, "output": {"formats": ["svg", "png"]}}
digests = []
for request in ({"palette": {"extract": 9}}, {"background": "remove"}):
    result = run(parse_request({"image": image, **extra, **request}), Settings())
    parts = (result.index.index.tobytes(), result.drawing.svg.encode(), result.pngs[0].data)
    digests.append([hashlib.sha256(part).hexdigest() for part in parts])
compiled = sum(compiled_now(name) for name in list(sys.modules) if name.startswith("pipeline."))
print(json.dumps({"digests": digests, "compiled": compiled}))
"""

MACHINES = {
    "one thread": {"LIVERY_THREADS": "1"},
    "two threads": {"LIVERY_THREADS": "2"},
    "four threads": {"LIVERY_THREADS": "4"},
    "no vector paths": {
        "OPENCV_CPU_DISABLE": "SSE4.1,SSE4.2,AVX,FP16,AVX2,FMA3,AVX512F,AVX512_SKX",
        "OPENCV_IPP": "disabled",
        "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX",
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX512F,-AVX",
        "JSIMD_FORCENONE": "1",
    },
}


def run_elsewhere(environment: dict[str, str]) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(SAMPLE)],
        env={**os.environ, **environment},
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


@pytest.fixture(scope="module")
def plain() -> dict[str, object]:
    return run_elsewhere({})


@pytest.mark.parametrize("machine", MACHINES)
def test_the_bytes_are_the_same_on(machine: str, plain: dict[str, object]) -> None:
    assert run_elsewhere(MACHINES[machine])["digests"] == plain["digests"]


def test_a_process_compiles_nothing_that_another_has_compiled(plain: dict[str, object]) -> None:
    assert plain["compiled"] == 0


def test_a_job_leaves_nothing_behind_for_the_next(scene: Scene) -> None:
    image = json.loads(SAMPLE.read_text())["input"]["image"]
    first = {"image": image, "palette": ["#101010", "#808080", "#F0F0F0", "#C02020"], "output": {"formats": ["svg"]}}
    second = {**first, "palette": {"extract": 5}, "line_work": 1.0}
    digests = []
    for request in (first, second, first):
        result = run(parse_request(request), Settings())
        digests.append(hashlib.sha256(result.drawing.svg.encode()).hexdigest())
    assert digests[0] == digests[2] != digests[1]
