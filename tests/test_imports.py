"""Libraries that are imported before they are needed: all that models import, in order, and their faults where due."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models import units
from models.device import CPU
from models.imports import Imports
from models.loader import Residents, Unit, Watch
from models.store import Store
from pipeline.errors import Cancelled
from tests.test_studio import PHOTO

pytest.importorskip("torch", reason="the studio extra is not installed")

ROOT = Path(__file__).resolve().parent.parent
HANG_S = 20.0
SMALL = ("torch.utils.", "diffusers.schedulers.")
"""Single files of packages that are there already."""

UNITS = (
    units.DETECTOR,
    units.SEGMENTER,
    units.INPAINTER,
    units.VAE,
    units.DEPTH,
    units.PROMPT,
    units.FAST,
    units.FAITHFUL,
    units.UPSCALER,
    units.QUANTISER,
)


def until(true: Callable[[], bool]) -> bool:
    end_s = time.monotonic() + HANG_S
    while not true() and time.monotonic() < end_s:
        time.sleep(0.005)
    return true()


# What units say that they import

_PROGRAM = """
import json, sys
from pathlib import Path
from pipeline.worker import Worker
from tests.test_imports import UNITS
from tests.test_studio import illustrate, settings_of

HEAVY = ("torch", "transformers", "diffusers", "accelerate", "peft", "scipy", "huggingface_hub", "tokenizers")

def heavy():
    return {name for name in sys.modules if name.split(".")[0] in HEAVY}

worker, late = Worker(settings_of(Path(sys.argv[1]))), {}
studio = worker.studio
residents = studio.do(studio.residents)
for unit in UNITS if sys.argv[2] == "forward" else UNITS[::-1]:
    studio.imports.need(unit.modules)
    before = heavy()
    studio.do(lambda: residents.get(unit))
    late[unit.name] = sorted(heavy() - before)
before = heavy()
for mode in ("fast", "faithful"):
    illustrate(worker, mode=mode, output={"png_widths": [64], "upscale": True})
late["jobs"] = sorted(heavy() - before)
print(json.dumps(late))
"""


@pytest.mark.parametrize("order", ["forward", "backward"])
def test_once_its_modules_are_imported_a_unit_imports_nothing_heavy_itself(order: str, tiny_volume: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _PROGRAM, str(tiny_volume), order]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    late = json.loads(done.stdout.splitlines()[-1])
    assert set(late) == {*(unit.name for unit in UNITS), "jobs"}
    assert [name for names in late.values() for name in names if not name.startswith(SMALL)] == []


# Importing ahead


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], str]]:
    """Writes a module; it is gone with the test."""
    monkeypatch.syspath_prepend(tmp_path)
    written = []

    def write(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        written.append(name)
        return name

    yield write
    for name in written:
        sys.modules.pop(name, None)


class Idle:
    networks = ()


def residents_of(folder: Path, *names: str) -> tuple[Residents, Unit[Any]]:
    return Residents(Store(folder), CPU), Unit("test", (), lambda _files, _device: Idle(), modules=names)


def test_modules_are_imported_in_the_order_given_on_one_thread(modules: Callable[[str, str], str]) -> None:
    text = "import threading\nNAME = threading.current_thread().name\n"
    names = [modules(f"ahead_{n}", text) for n in (3, 1, 2)]
    imports = Imports()
    imports.begin(names)
    assert until(lambda: names[-1] in sys.modules)
    assert [name for name in sys.modules if name in names] == names
    imports.need(names)
    assert {sys.modules[name].NAME for name in names} == {"livery-imports_0"}
    assert imports.spent_s > 0


def test_what_an_import_raises_comes_out_where_its_unit_is_loaded_and_it_is_tried_again(
    modules: Callable[[str, str], str], tmp_path: Path
) -> None:
    name = modules("broken", "raise OSError('a library of it is missing')")
    residents, unit = residents_of(tmp_path, name)
    residents.imports.begin(unit.modules)
    for _ in range(2):
        with pytest.raises(OSError, match="a library of it is missing"):
            residents.get(unit)
    assert residents.loaded() == ()
    modules("broken", "VALUE = 1  # mended")
    assert isinstance(residents.get(unit), Idle)


def test_a_job_that_is_cancelled_does_not_wait_for_an_import(
    modules: Callable[[str, str], str], tmp_path: Path
) -> None:
    name = modules("slow", "import sys\nsys.modules['slow_gate'].wait(20)\nDONE = True\n")
    gate: Any = threading.Event()
    sys.modules["slow_gate"] = gate
    residents, unit = residents_of(tmp_path, name)
    asked = [0]

    def cancel() -> None:
        asked[0] += 1
        if asked[0] == 3:
            raise Cancelled("the job was cancelled")

    try:
        with pytest.raises(Cancelled):
            residents.get(unit, Watch(check=cancel))
        assert residents.loaded() == ()
    finally:
        gate.set()
        residents.get(unit)
        del sys.modules["slow_gate"]
    assert sys.modules[name].DONE


def test_at_its_end_no_more_is_imported_until_it_is_needed(modules: Callable[[str, str], str]) -> None:
    first = modules("under_way", "import sys\nsys.modules['end_gate'].wait(20)\n")
    later = modules("not_begun", "")
    gate: Any = threading.Event()
    sys.modules["end_gate"] = gate
    imports = Imports()
    try:
        imports.begin([first, later])
        assert until(lambda: first in sys.modules)
        imports.end()
    finally:
        gate.set()
    imports.need([first])
    assert later not in sys.modules
    imports.need([later])
    assert later in sys.modules
    del sys.modules["end_gate"]


_DRAFT = """
import sys
from pathlib import Path
from pipeline.request import parse_request
from pipeline.run import run
from pipeline.settings import Settings
from pipeline.worker import Worker

worker = Worker(Settings(volume=Path(sys.argv[1]), allow_synthetic=True))
photo = Path(sys.argv[2]).read_bytes()
job = parse_request({"engine": "draft", "cache": "off", "output": {"formats": ["svg"]}})
assert run(job, worker, data=photo, frame_px=96).report.cold is None
print(*(name for name in ("torch", "transformers", "diffusers") if name in sys.modules))
"""


def test_a_draft_job_imports_no_library_of_the_studio_s(tiny_volume: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(PHOTO)
    command = [sys.executable, "-c", _DRAFT, str(tiny_volume), str(photo)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr
