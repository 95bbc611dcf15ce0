"""The cold start's benchmark on tiny networks: its rows, and that it loads what a job loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.studio.coldstart import SMALL_BYTES, Line, coldstart_table, needed
from models.registry import MODES, Mode
from pipeline.worker import Worker
from tests.test_studio import illustrate, settings_of

ROOT = Path(__file__).resolve().parent.parent
CASES = ("read and imported ahead", "nothing ahead")
PACED_MB_S = 20.0
ENLARGED = {"png_widths": [64], "upscale": True}


@pytest.mark.parametrize("mode", MODES)
def test_it_loads_what_a_job_loads_in_its_order(mode: Mode, tiny_volume: Path) -> None:
    loaded = list(illustrate(Worker(settings_of(tiny_volume)), mode=mode, output=ENLARGED).report.loads)
    names = [unit.name for unit in needed(mode)]
    assert (loaded[1::-1], loaded[2:]) == (names[:2], names[2:])  # this job names a box: what is in it comes first


@pytest.fixture(scope="module")
def rows(tiny_volume: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    file = tmp_path_factory.mktemp("rows") / "coldstart-cpu.jsonl"
    command = [sys.executable, "-m", "benchmarks.studio.coldstart", "--volume", str(tiny_volume), "--runs", "1"]
    command += ["--paced", str(PACED_MB_S), "--json", str(file), "--cases", *CASES]
    environment = {**os.environ, "LIVERY_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_row_for_each_case_says_where_the_time_went(rows: list[dict[str, Any]]) -> None:
    assert [row["name"] for row in rows] == [f"cold start fast, {case}" for case in CASES]
    for row in rows:
        waited_s = row["import_s"] + row["read_s"] + row["build_s"] + row["device_s"]
        assert 0 < row["floor_s"] < row["p50_s"]
        assert row["floor_s"] == row["bytes"] / 1e6 / PACED_MB_S
        assert row["floor_s"] + row["idle_s"] + row["tail_s"] == pytest.approx(row["p50_s"], abs=0.02)
        assert waited_s < row["p50_s"]
        assert (row["dtype"], row["weights"], row["n"]) == ("float16", "tiny", 1)
    ahead, none = rows
    assert (ahead["files_ahead"] > 5, none["files_ahead"]) == (True, 0)
    assert ahead["bytes"] == none["bytes"]
    assert none["import_s"] >= none["imported_s"]


def test_the_docs_table_has_the_newest_row_of_each_case(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    assert coldstart_table(tmp_path) == coldstart_table(tmp_path / "missing") == "No row yet.\n"
    lines = [{**rows[0], "p50_s": 977.0}, *rows]
    (tmp_path / "coldstart-cpu.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    table = coldstart_table(tmp_path)
    assert [table.count(f"| {row['name']} | cpu, ") for row in rows] == [1, 1]
    assert "977" not in table


def test_a_line_knows_when_the_last_weights_came(tmp_path: Path) -> None:
    path, came_s = tmp_path / "file", []
    path.write_bytes(bytes(2_000_000))
    line = Line(50.0)
    with path.open("rb") as file:
        for size in (1_000_000, 1_000_000, SMALL_BYTES - 1):
            assert line(file.fileno(), [bytearray(size)], 0) == size
            came_s.append(line.last_s)
    assert came_s[1] - came_s[0] >= 0.019
    assert came_s[2] == came_s[1]
