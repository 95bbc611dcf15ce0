"""The studio engine's benchmark on tiny networks: all its rows, and that it times nothing that computes nonsense."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.studio.least import NOT_COUNTED, PARAMETERS_M, Least
from benchmarks.studio.paced import PacedReads
from benchmarks.studio.sound import UnsoundError, check_networks, watched
from benchmarks.studio.table import results_table
from models import units
from models.floor import Floor
from models.loader import Unit
from models.requests import unchecked
from models.studio import Studio, StudioWorker
from pipeline.modes import paint_options
from pipeline.schema import Style
from pipeline.vehicle import PHRASES
from tests.images import scene

torch = pytest.importorskip("torch", reason="the studio extra is not installed")

ROOT = Path(__file__).resolve().parent.parent
SAID = {"run", "commit", "part", "weights", "device", "dtype", "torch", "cuda", "tf32", "fp16_accumulation"}
SAID |= {"floor_tflops", "floor_copy_gb_s"}
MEASURED = {"name", "n", "p50_s", "p95_s", "floor_s", "ratio", "vram_peak_mb", "loads", "warnings"}
PACED_MB_S = 250.0
Work = Callable[[Studio], object]


# The whole benchmark


@pytest.fixture(scope="module")
def rows(tiny_volume: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    command = [sys.executable, "-m", "benchmarks.studio", "--tiny", "--volume", str(tiny_volume)]
    command += ["--modes", "fast", "--only", "LaMa", "--runs", "1", "--json", str(file), "--paced", str(PACED_MB_S)]
    environment = {**os.environ, "LIVERY_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(found) == done.stdout.count("p50_s")
    return {row["name"]: row for row in found}


def test_every_row_says_what_it_was_measured_on(rows: dict[str, dict[str, Any]]) -> None:
    for row in rows.values():
        assert set(row) >= SAID | MEASURED
        assert (row["weights"], row["device"], row["torch"]) == ("tiny", "cpu", torch.__version__)
        assert 0 < row["p50_s"] <= row["p95_s"]
        assert row["n"] >= 1
        assert row["ratio"] is None  # a floor was counted for networks of full size
        assert row["vram_peak_mb"] is None
        assert row["floor_tflops"] > 0
    assert len({row["run"] for row in rows.values()}) == 1


def test_all_rows_of_a_mode_are_there(rows: dict[str, dict[str, Any]]) -> None:
    alone = {"LaMa", "core fast", "UNet step fast", "ControlNet-Union step fast", "VAE decoder fast"}
    parts = ("phase 1", "phase 2", "phase 3", "phase 4", "job", "re-inking")
    jobs = {f"{part} fast, {size_px} px map" for part in parts for size_px in (512, 1024)}
    assert set(rows) == alone | jobs | {"first job fast", "second job fast"}
    assert rows["UNet step fast"]["n"] == rows["ControlNet-Union step fast"]["n"] == 4


def test_the_first_job_loads_and_the_second_reads_nothing(rows: dict[str, dict[str, Any]]) -> None:
    first, second = rows["first job fast"], rows["second job fast"]
    needed = {unit.name for unit in (units.DETECTOR, units.SEGMENTER, units.INPAINTER, units.DEPTH)}
    assert set(first["loads"]) == needed | {"prompt encoder", "decoder", "fast painter", "upscaler"}
    assert first["files_read"] > 10
    assert (second["loads"], second["files_read"], second["bytes_read"]) == ({}, 0, 0)


def test_the_docs_table_has_the_newest_row_of_each_name(rows: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    assert (
        results_table(tmp_path)
        == results_table(tmp_path / "missing")
        == "No row yet: the benchmark has not run on a GPU.\n"
    )
    old = {**rows["LaMa"], "n": 977}
    (tmp_path / "studio-cpu.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (old, *rows.values())))
    table = results_table(tmp_path)
    assert table.startswith(f"**cpu**, torch {torch.__version__}, ")
    for name, row in rows.items():
        assert table.count(f"| {name} | {row['n']} | ") == 1
    assert "977" not in table


def test_the_first_job_s_row_says_what_it_waited_for(rows: dict[str, dict[str, Any]]) -> None:
    first, second = rows["first job fast"], rows["second job fast"]
    assert (first["paced_mb_s"], second["cold"]) == (PACED_MB_S, None)
    cold = first["cold"]
    assert cold["import_ms"] > 0
    assert (cold["files"], cold["files_ahead"] > 0) == (first["files_read"], True)
    assert 0 < cold["read_ms"] < 1000 * first["p50_s"]


def test_a_paced_volume_gives_no_more_than_was_said(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(8_000_000))
    paced = PacedReads(40)

    def read(at: int) -> int:
        with path.open("rb") as file:
            return paced(file.fileno(), [bytearray(2_000_000)], at)

    began_s = time.monotonic()
    with ThreadPoolExecutor(4) as streams:
        assert list(streams.map(read, range(0, 8_000_000, 2_000_000))) == [2_000_000] * 4
    assert time.monotonic() - began_s >= 0.2


def test_re_inking_runs_no_model(rows: dict[str, dict[str, Any]]) -> None:
    for size_px in (512, 1024):
        job, inked = rows[f"job fast, {size_px} px map"], rows[f"re-inking fast, {size_px} px map"]
        assert (job["reinked"], inked["reinked"]) == (False, True)
        assert not inked["loads"]


# What a row is held against


def test_the_floor_is_what_takes_longer() -> None:
    floor = Floor(tflops=100.0, copy_gb_s=1000.0)
    assert Least(tflop=5.0, gigabytes=10.0).floor_s(floor) == 0.05
    assert Least(tflop=0.5, gigabytes=10.0).floor_s(floor) == 0.01
    assert NOT_COUNTED.floor_s(floor) is None


# What is not timed


@pytest.fixture
def worker(tiny_volume: Path) -> StudioWorker:
    return StudioWorker(tiny_volume, threads=1)


def networks_of(worker: StudioWorker, unit: Unit[Any]) -> tuple[Any, ...]:
    return worker.thread.run(lambda: tuple(worker.residents().get(unit).networks))


RGB = scene(96, 64)


def paint(studio: Studio) -> object:
    grey = np.arange(128 * 128, dtype=np.uint32).reshape(128, 128).astype(np.uint8)
    request = paint_options("fast", Style(), 42).request(grey, np.where(grey < 9, np.uint8(255), np.uint8(0)))
    return studio.paint(replace(request, steps=1), unchecked)


def detect(studio: Studio) -> object:
    return studio.detect(RGB, PHRASES, 0.3, 0.25)


def segment(studio: Studio) -> object:
    return studio.segment(RGB, [(10, 10, 60, 50)])


CASES: list[tuple[Unit[Any], Work, str]] = [
    (units.DETECTOR, detect, "bbox_embed.0.layers.1"),
    (units.DETECTOR, detect, "model.backbone.conv_encoder.model.swin.layernorm"),
    (units.SEGMENTER, segment, "mask_decoder.transformer.layers.0.self_attn.q_proj"),
    (units.SEGMENTER, segment, "mask_decoder.transformer.layers.1.cross_attn_image_to_token.k_proj"),
    (units.PROMPT, paint, "encoder.layers.2.self_attn.out_proj"),
    (units.FAST, paint, "mid_block.attentions.0.transformer_blocks.0.attn1.to_k"),
]


@pytest.mark.parametrize(("unit", "work", "name"), CASES, ids=[f"{case[0].name}-{case[2]}" for case in CASES])
def test_numbers_that_are_none_are_found_in_any_layer(
    worker: StudioWorker, unit: Unit[Any], work: Work, name: str
) -> None:
    networks = networks_of(worker, unit)
    with watched(unit.name, networks):
        work(worker.job(unchecked))
    fresh = StudioWorker(worker.store.volume, threads=1)  # neither the picture's features nor the prompt are kept
    spoilt = networks_of(fresh, unit)
    spoilt[0].get_submodule(name).weight.fill_(float("nan"))
    with watched(unit.name, spoilt), pytest.raises(UnsoundError, match=name):
        work(fresh.job(unchecked))


def test_a_network_that_did_not_run_is_no_sound_one(worker: StudioWorker) -> None:
    with pytest.raises(UnsoundError, match="nothing of the segmenter ran"), watched("segmenter", [torch.nn.ReLU()]):
        detect(worker.job(unchecked))


def test_a_network_of_another_size_is_refused() -> None:
    right = torch.nn.Linear(1000, int(PARAMETERS_M["upscaler"][0] * 1000), bias=False)
    assert check_networks("upscaler", [right], full_size=True) == 4.5
    with pytest.raises(UnsoundError, match="million parameters"):
        check_networks("upscaler", [torch.nn.Linear(1000, 4300, bias=False)], full_size=True)


def test_a_matrix_of_zeros_is_refused(worker: StudioWorker) -> None:
    networks = networks_of(worker, units.FAST)
    assert check_networks("fast painter", networks, full_size=False) > 0
    networks[1].controlnet_down_blocks[0].weight.zero_()
    with pytest.raises(UnsoundError, match=r"controlnet_down_blocks\.0\.weight is all zeros"):
        check_networks("fast painter", networks, full_size=False)
