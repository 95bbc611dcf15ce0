"""The check of the host before the first job: what ends the worker with one clear line, and what does not."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
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
