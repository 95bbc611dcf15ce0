"""What ping finds: the GPU by NVML, the volume against its manifest; and what a dry run estimates."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.pins import PinnedFile
from models.registry import MODES, rows_of
from models.store import MANIFEST_NAME, Listed, Manifest, folder_of
from models.tree import MOST_FILES, survey_tree
from pipeline.health import LONGEST_LIST, PACKAGES, ping
from pipeline.measured import LATEST, Measured
from pipeline.request import parse_request
from pipeline.run import dry_run, run
from pipeline.schema import EngineEstimate, Health, Report
from pipeline.settings import Settings
from pipeline.worker import Worker

ROOT = Path(__file__).parent.parent
HANG_S = 120
STUB = Path(__file__).with_name("nvml_stub.c")

# ---- NVML


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a library that pynvml takes for the driver's."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    library = tmp_path_factory.mktemp("driver") / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, STUB], check=True, timeout=HANG_S)
    return library.parent


def printed(code: str, **environment: str) -> Any:
    """What a process of its own prints as JSON: a library is loaded once in a process's life."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"} | environment,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


READ = """
import json
from pipeline.nvml import read_gpu
found = read_gpu()
print(json.dumps(found if isinstance(found, str) else found.model_dump()))
"""

FIRST = {
    "name": "Stub RTX 1",
    "driver": "570.86.15",
    "memory_mb": 32607,
    "memory_used_mb": 2607,
    "utilisation_pct": 87,
    "temperature_c": 61,
    "power_w": 431.25,
}
SECOND = FIRST | {"name": "Stub RTX 2", "temperature_c": 62}


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, FIRST),
        ({"CUDA_VISIBLE_DEVICES": ""}, FIRST),
        ({"CUDA_VISIBLE_DEVICES": "1,0"}, SECOND),
        ({"CUDA_VISIBLE_DEVICES": "GPU-bbbbbbbb"}, SECOND),
        ({"STUB_SLICE": "1"}, FIRST | {"utilisation_pct": None, "power_w": None}),
        ({"STUB_NOT_LOADED": "1"}, "NVML: Driver Not Loaded"),
        ({"STUB_LOST": "1"}, "NVML: GPU is lost"),
        ({"CUDA_VISIBLE_DEVICES": "7"}, "NVML: Invalid Argument"),
    ],
    ids=str,
)
def test_the_driver_tells_of_the_gpu_or_why_not(driver: Path, environment: dict[str, str], found: object) -> None:
    assert printed(READ, LD_LIBRARY_PATH=str(driver), **environment) == found


def test_without_the_package_that_is_said() -> None:
    assert printed("import sys; sys.modules['pynvml'] = None\n" + READ) == "nvidia-ml-py is not installed"


def test_ping_shows_the_gpu(driver: Path) -> None:
    health = printed(
        "from pipeline.health import ping; from pipeline.settings import Settings; from pipeline.worker import Worker\n"
        "print(ping(Worker(Settings())).model_dump_json())",
        LD_LIBRARY_PATH=str(driver),
    )
    assert (health["gpu"], health["gpu_reason"], health["status"]) == (FIRST, None, "ready")


# ---- the volume


REVISION = "0" * 40


def write_volume(volume: Path, *names: str) -> None:
    """Rows with two files each, and their manifest."""
    files = (PinnedFile("config.json", "0" * 64, 2), PinnedFile("unet/model.safetensors", "0" * 64, 5))
    for name in names:
        for file in files:
            path = folder_of(volume, name, REVISION) / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(file.bytes))
    manifest = Manifest("tiny", {name: Listed(REVISION, files) for name in names})
    (volume / MANIFEST_NAME).write_text(json.dumps(manifest.as_document()))


def pinged(volume: Path) -> Health:
    health = ping(Worker(Settings(volume=volume)))
    assert str(volume) not in health.model_dump_json()
    return health


def test_a_whole_volume_is_as_its_manifest_says(tmp_path: Path) -> None:
    names = [row.name for row in rows_of(MODES)]
    write_volume(tmp_path, *names)
    tree = pinged(tmp_path).tree
    assert tree is not None
    assert tree.revisions == dict.fromkeys(names, REVISION)
    assert (tree.kind, tree.unlisted, tree.missing, tree.resized, tree.unexpected, tree.cut) == (
        "tiny",
        (),
        (),
        (),
        (),
        0,
    )


def test_what_differs_is_named_by_kind(tmp_path: Path) -> None:
    write_volume(tmp_path, "big-lama", "sam-vit-huge")
    lama, sam = (folder_of(tmp_path, name, REVISION) for name in ("big-lama", "sam-vit-huge"))
    (lama / "config.json").unlink()
    (sam / "unet/model.safetensors").write_bytes(bytes(4))
    (sam / "unet/model.bin").touch()
    (tmp_path / "somebody-else.txt").touch()
    health = pinged(tmp_path)
    assert (health.volume, health.tree is not None) == ("present", True)
    assert health.tree is not None
    assert health.tree.missing == (f"models/big-lama/{REVISION}/config.json",)
    assert health.tree.resized == (f"models/sam-vit-huge/{REVISION}/unet/model.safetensors",)
    assert health.tree.unexpected == (f"models/sam-vit-huge/{REVISION}/unet/model.bin",)
    assert "sdxl-base" in health.tree.unlisted
    assert "big-lama" not in health.tree.unlisted
    assert not health.engines["studio"].ready


def test_long_lists_are_cut_and_a_crowded_volume_is_not_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    for i in range(LONGEST_LIST + 5):
        (tmp_path / "models" / f"{i:02d}").touch()
    tree = pinged(tmp_path).tree
    assert tree is not None
    assert (tree.kind, tree.revisions, len(tree.unexpected), tree.cut) == (None, {}, LONGEST_LIST, 5)
    for i in range(MOST_FILES):
        (tmp_path / "models" / f"more{i}").touch()
    assert len(survey_tree(tmp_path).unexpected) == MOST_FILES


@pytest.mark.parametrize("manifest", ["{", "[]", '{"format": 1, "kind": "tiny", "rows": {"big-lama": {}}}'])
def test_a_damaged_manifest_is_said(tmp_path: Path, manifest: str) -> None:
    (tmp_path / MANIFEST_NAME).write_text(manifest)
    health = pinged(tmp_path)
    assert (health.volume, health.tree) == ("damaged", None)


def test_versions_are_of_all_that_makes_results() -> None:
    versions = ping(Worker(Settings())).versions
    assert set(versions) == {"python", *PACKAGES}
    assert versions["livery"] is not None


# ---- estimates


def picture() -> bytes:
    rgb = np.full((64, 96, 3), (150, 180, 200), np.uint8)
    rgb[24:48, 20:76] = (200, 38, 43)
    encoded = io.BytesIO()
    Image.fromarray(rgb).save(encoded, "PNG")
    return encoded.getvalue()


PICTURE = picture()


def estimated(worker: Worker, request: dict[str, Any] | None = None) -> dict[str, EngineEstimate]:
    reply = dry_run(parse_request(request or {}), worker)
    return {one.engine: one for one in reply.estimate.engines}


def illustrate(worker: Worker) -> Report:
    return run(parse_request({"output": {"png_widths": [64]}}), worker, data=PICTURE).report


def test_before_anything_ran_nothing_is_guessed() -> None:
    worker = Worker(Settings(price_usd_per_s=0.001))
    ping(worker)  # its self-check is a job of 96 px, which tells nothing of a photo's time
    (draft,) = estimated(worker).values()
    assert (draft.engine, draft.mode, draft.seconds, draft.cost_usd, draft.jobs) == ("draft", None, None, None, 0)
    assert draft.basis == "this worker process has served no draft job yet"
    assert draft.cost_usd_at_most == pytest.approx(draft.seconds_at_most / 1000)


def test_after_a_job_the_estimate_is_what_it_took() -> None:
    worker = Worker(Settings(price_usd_per_s=2))
    took_s = illustrate(worker).timings_ms.total / 1000
    draft = estimated(worker)["draft"]
    assert draft.jobs == 1
    assert draft.seconds == pytest.approx(took_s, abs=0.001)
    assert draft.cost_usd == pytest.approx(2 * took_s, abs=0.001)
    assert estimated(Worker(Settings()))["draft"].jobs == 0, "measured by another process"


def test_the_estimate_is_the_median_of_the_latest_by_engine_and_mode() -> None:
    real, measured = illustrate(Worker(Settings())), Measured()

    def note(total_ms: float, **update: Any) -> None:
        timings = real.timings_ms.model_copy(update={"total": total_ms})
        measured.note(real.model_copy(update={"timings_ms": timings, **update}))

    for total_ms in (1000, 9000, 2000):
        note(total_ms)
    note(70_000, reinked=True)
    note(70_000, cached=True)
    note(30_000, engine="studio", mode="fast", loads={"painter": 20_000.0, "upscaler": 4_000.0})
    assert measured.typical_s("draft", None) == (2.0, 3)
    assert measured.typical_s("studio", "fast") == (6.0, 1)
    assert measured.typical_s("studio", "faithful") == (None, 0)
    for _ in range(LATEST):
        note(500)
    assert measured.typical_s("draft", None) == (0.5, LATEST)


def test_each_engine_that_could_serve_is_estimated(tiny_volume: Path) -> None:
    worker = Worker(Settings(volume=tiny_volume, allow_synthetic=True))
    for request, mode in (({"engine": "draft"}, "fast"), ({"engine": "studio", "mode": "faithful"}, "faithful")):
        both = estimated(worker, request)
        assert [(one.engine, one.mode) for one in both.values()] == [("draft", None), ("studio", mode)]
        assert both["studio"].seconds_at_most > both["draft"].seconds_at_most
    without = Worker(Settings(volume=tiny_volume))
    assert list(estimated(without, {"engine": "draft"})) == ["draft"], "random weights serve nobody who did not ask"
