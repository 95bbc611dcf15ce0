"""The studio engine's benchmark on tiny networks: all its rows, and that it times nothing that computes nonsense."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.studio.bench import Bench
from benchmarks.studio.compare import SINGLE_L2, Comparison, difference, tolerance_l2
from benchmarks.studio.least import NOT_COUNTED, PARAMETERS_M, Least
from benchmarks.studio.networks import network_works
from benchmarks.studio.optimisations import OPTIMISATIONS, Optimisation, laid_out
from benchmarks.studio.paced import PacedReads
from benchmarks.studio.plan import NETWORKS, PARTS, PREPARED_S, WITHIN_S, planned, steps_of
from benchmarks.studio.sound import UnsoundError, check_networks, watched
from benchmarks.studio.stopwatch import Stopwatch
from benchmarks.studio.subject import Subject
from benchmarks.studio.table import compared_table, results_table, targets_table
from benchmarks.studio.tally import load_tally
from benchmarks.studio.targets import verdicts
from models import units
from models.device import CPU
from models.floor import Floor
from models.graphs import Graphs
from models.loader import Unit
from models.registry import MODES
from models.requests import PaintRequest, unchecked
from models.studio import Studio, StudioWorker
from pipeline.modes import paint_options
from pipeline.schema import Style
from pipeline.vehicle import PHRASES
from tests.images import scene

torch = pytest.importorskip("torch", reason="the studio extra is not installed")

ROOT = Path(__file__).resolve().parent.parent
SAID = {"run", "commit", "part", "weights", "device", "dtype", "torch", "cuda", "tf32", "fp16_accumulation"}
SAID |= {"floor_tflops", "floor_copy_gb_s"}
MEASURED = {"name", "n", "p50_s", "p95_s", "floor_s", "ratio", "vram_peak_mb", "loads", "warnings", "targets"}
PACED_MB_S = 250.0
Work = Callable[[Studio], object]


# The whole benchmark


def run_benchmark(volume: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.studio",
        "--tiny",
        "--volume",
        str(volume),
        "--modes",
        "fast",
        *options,
    ]
    environment = {**os.environ, "LIVERY_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def rows(tiny_volume: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    options = ["--only", "LaMa", "--runs", "1", "--json", str(file), "--paced", str(PACED_MB_S), "--within", "inf"]
    done = run_benchmark(tiny_volume, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(found) == done.stdout.count(" p50_s ")
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
    paintings = {"paint fast", "paint fast, all off", "paint fast, plain diffusers"}
    paintings |= {f"paint fast, without {name}" for name in ("fused projections", "prompts that are kept")}
    assert set(rows) == alone | jobs | paintings | {"first job fast", "second job fast", "benchmark"}
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


def test_what_was_not_measured_is_named_with_the_reason(rows: dict[str, dict[str, Any]]) -> None:
    whole = rows["benchmark"]
    assert (whole["part"], whole["within_s"]) == ("all", None)
    assert set(whole["left_out"]) == {
        f"paint fast, without {name}" for name in ("CUDA graphs", "compiled blocks", "channels last")
    }
    assert whole["left_out"]["paint fast, without CUDA graphs"] == "nothing is recorded on a CPU"


def test_without_time_everything_is_left_out_by_name(tiny_volume: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    done = run_benchmark(tiny_volume, "--within", "1", "--json", str(file))
    assert done.returncode == 1, done.stdout + done.stderr
    for step in steps_of(("fast",), ""):
        assert f"left out: {step.name}: no time was left" in done.stdout
    assert not file.exists()


# Against diffusers' own pipelines, and what each optimisation is worth


def test_the_latents_equal_those_of_the_library_s_own_pipeline(rows: dict[str, dict[str, Any]]) -> None:
    row = rows["paint fast, plain diffusers"]
    assert row["equal"] is True
    assert row["l2"] <= row["tolerance_l2"] == SINGLE_L2
    assert 0 < row["noise_l2"] < SINGLE_L2
    assert row["speedup"] == pytest.approx(row["p50_s"] / row["ours_p50_s"], rel=1e-3)
    assert row["undone"] == ["fused projections", "prompts that are kept"]


def test_an_optimisation_s_row_has_what_was_before_and_after(rows: dict[str, dict[str, Any]]) -> None:
    for name in ("fused projections", "prompts that are kept"):
        row = rows[f"paint fast, without {name}"]
        assert (row["optimisation"], row["without_s"], row["with_s"]) == (
            name,
            row["p50_s"],
            rows["paint fast"]["p50_s"],
        )
        assert row["speedup"] == pytest.approx(row["without_s"] / row["with_s"], rel=1e-3)
    assert rows["paint fast, without fused projections"]["l2"] < SINGLE_L2
    assert "l2" not in rows["paint fast, without prompts that are kept"]  # another prompt, another picture
    assert rows["paint fast, all off"]["optimisation"] == "fused projections, prompts that are kept"


@pytest.fixture(scope="module")
def faithful(tiny_volume: Path) -> Bench:
    empty = np.zeros((0, 0, 3), np.uint8)
    worker = StudioWorker(tiny_volume, threads=1)
    return Bench(worker, Subject(empty, empty, empty, empty, empty, empty), Floor(1.0, 1.0), 1, full_size=False)


def painting(steps: int) -> PaintRequest:
    y, x = np.mgrid[:128, :128]
    depth = (y + x // 2).astype(np.uint8)
    canny = np.where(abs(y - x) < 2, np.uint8(255), np.uint8(0))
    return replace(paint_options("faithful", Style(), 42).request(depth, canny), steps=steps)


def plain_row(bench: Bench) -> dict[str, Any]:
    (row,) = Comparison(bench, painting(4)).plain(bench)
    return row


def test_a_painter_that_computes_something_else_is_found(faithful: Bench) -> None:
    painter: Any = faithful.worker.thread.run(lambda: faithful.worker.residents().get(units.FAITHFUL))
    assert plain_row(faithful)["equal"] is True
    painter._depth, painter._canny = painter._canny, painter._depth
    try:
        row = plain_row(faithful)
    finally:
        painter._depth, painter._canny = painter._canny, painter._depth
    assert row["equal"] is False
    assert row["l2"] > 100 * row["tolerance_l2"]


def test_half_precision_may_differ_by_a_multiple_of_its_own_noise() -> None:
    assert tolerance_l2("float32", 0.01) == SINGLE_L2
    assert tolerance_l2("float16", 0.003) == pytest.approx(0.012)
    assert tolerance_l2("float16", 0.3) == 0.1


def test_a_difference_is_measured_against_what_it_differs_from() -> None:
    found = difference(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0]).half())
    assert found.largest == 0.5
    assert found.l2 == pytest.approx(0.1)


FUSING = "fused projections"
ON_A_CPU = [one for one in OPTIMISATIONS if one.name not in {"compiled blocks", "channels last"}]


@pytest.mark.parametrize("one", ON_A_CPU, ids=lambda one: one.name)
def test_what_is_taken_from_a_painter_is_given_back(faithful: Bench, one: Optimisation) -> None:
    comparison, painter = Comparison(faithful, painting(2)), networks_of(faithful.worker, units.FAITHFUL)
    before, attention = [weight.clone() for weight in painter[0].parameters()], attention_of(painter[0])
    (usual,) = comparison.all_on(faithful)
    (row,) = comparison.alone(faithful, one)
    assert row["name"] == f"paint faithful, {'with' if one.offered else 'without'} {one.name}"
    assert row["speedup"] > 0
    (again,) = comparison.alone(faithful, replace(one, without=lambda _: nullcontext(), asked=lambda request: request))
    assert again["l2"] == 0.0
    assert all(torch.equal(was, is_now) for was, is_now in zip(before, painter[0].parameters(), strict=True))
    assert usual["graphs"] == {"recorded": 0, "replayed": 0, "refused": 0}
    assert attention_of(painter[0]) == attention


def attention_of(network: Any) -> dict[str, str]:
    """How each attention is computed."""
    return {name: type(processor).__name__ for name, processor in network.attn_processors.items()}


def test_attention_projects_by_each_weight_meanwhile(faithful: Bench) -> None:
    painter: Any = faithful.worker.thread.run(lambda: faithful.worker.residents().get(units.FAITHFUL))
    split = next(one for one in OPTIMISATIONS if one.name == FUSING)

    def meanwhile() -> set[str]:
        with torch.inference_mode(), split.without(painter):
            return {kind for network in painter.networks for kind in attention_of(network).values()}

    assert set(attention_of(painter.networks[0]).values()) == {"FusedAttnProcessor2_0"}
    assert faithful.worker.thread.run(meanwhile) == {"AttnProcessor2_0"}


def test_what_kernels_were_compiled_from_is_taken_away_with_them(faithful: Bench) -> None:
    painter: Any = faithful.worker.thread.run(lambda: faithful.worker.residents().get(units.FAITHFUL))
    compiled, split = (next(one for one in OPTIMISATIONS if one.name == name) for name in ("compiled blocks", FUSING))
    assert compiled.absent(painter, CPU) == "the volume holds no compiled kernels for this GPU"
    painter.regions.shapes = shapes = frozenset({(2, 4, 16, 16)})  # a size that they are said to be for
    try:
        comparison = Comparison(faithful, painting(2))
        list(comparison.all_on(faithful))
        (without,) = comparison.alone(faithful, compiled)
        (row,) = comparison.alone(faithful, split)
        assert compiled.absent(painter, CPU) is None
        assert painter.regions.shapes == shapes
    finally:
        painter.regions.shapes = frozenset()
    assert (without["also_off"], row["also_off"]) == ([], ["compiled blocks"])
    assert row["with_s"] == without["p50_s"]


class StillRecorder:
    """Records on a CPU what a call gave, and replays it without calling a network: no hook runs, as on a GPU."""

    def warm(self, function: Callable[..., Any], inputs: tuple[Any, ...]) -> Any:
        return function(*inputs)

    def record(self, function: Callable[..., Any], inputs: tuple[Any, ...]) -> tuple[Callable[[], object], Any]:
        return lambda: None, function(*inputs)


@pytest.fixture
def recording(faithful: Bench) -> Iterator[Bench]:
    """A bench whose painter records its steps."""
    painter: Any = faithful.worker.thread.run(lambda: faithful.worker.residents().get(units.FAITHFUL))
    before, painter.graphs = painter.graphs, Graphs(StillRecorder())
    yield faithful
    painter.graphs = before


def test_the_row_without_recordings_makes_and_uses_none(recording: Bench) -> None:
    comparison = Comparison(recording, painting(4))
    (usual,) = comparison.all_on(recording)
    (without,) = comparison.alone(recording, OPTIMISATIONS[0])
    assert OPTIMISATIONS[0].name == "CUDA graphs"
    assert usual["graphs"]["recorded"] > 0 < usual["graphs"]["replayed"]
    assert without["graphs"] == {"recorded": 0, "replayed": 0, "refused": 0}
    (again,) = comparison.all_on(recording)
    assert again["graphs"]["recorded"] > 0


def test_layers_are_called_one_by_one_while_they_are_looked_at(recording: Bench) -> None:
    worker, calls = recording.worker, Stopwatch()

    def paint_thrice() -> None:
        for _ in range(3):
            worker.job(unchecked).paint(painting(4), unchecked)

    paint_thrice()
    with calls.on(networks_of(worker, units.FAITHFUL)[0]):
        paint_thrice()
        assert calls.seconds == []
        with recording.plainly(units.FAITHFUL):
            paint_thrice()
    assert len(calls.seconds) == 3 * 4


def test_kernels_lie_in_another_layout_only_meanwhile(faithful: Bench) -> None:
    painter: Any = faithful.worker.thread.run(lambda: faithful.worker.residents().get(units.FAITHFUL))
    kernel = painter.networks[0].conv_in.weight

    def strides() -> tuple[int, ...]:
        found: tuple[int, ...] = kernel.stride()
        return found

    def meanwhile() -> tuple[int, ...]:
        with torch.inference_mode(), laid_out(painter, now="channels_last", then="contiguous_format"):
            return strides()

    first = strides()
    assert first[1] > first[3]
    during = faithful.worker.thread.run(meanwhile)
    assert during[1] == 1
    assert strides() == first


# What fits into the time


STEPS = steps_of(MODES, "")


def total_s(asked: int) -> float:
    return sum(step.expected_s(asked) for step in STEPS)


def test_all_of_it_is_planned_to_fit_into_ten_minutes() -> None:
    plan = planned(STEPS, WITHIN_S - PREPARED_S, 5, 1.0)
    assert WITHIN_S < 600
    assert plan.names == {step.name for step in STEPS}
    assert plan.asked >= 3


def test_short_time_takes_runs_before_it_takes_steps() -> None:
    assert planned(STEPS, total_s(3), 5, 1.0).asked == 3
    assert planned(STEPS, 2 * total_s(3), 5, 2.0).asked == 3
    assert planned(STEPS, 1e9, 5, 1.0).asked == 5
    assert planned(STEPS, float("inf"), 1, 1.0).asked == 1
    plan = planned(STEPS, total_s(2) - 1, 5, 1.0)
    assert (plan.asked, {step.name for step in STEPS} - plan.names) == (2, {"paint faithful, plain diffusers"})
    assert not planned(STEPS, 0.0, 5, 1.0).names


def test_what_is_worth_most_comes_first() -> None:
    kinds = [step.name.split(",")[-1] if step.name.startswith("paint") else step.part for step in STEPS]
    kinds = ["plain" if kind == " plain diffusers" else kind if kind in PARTS else "one" for kind in kinds]
    order = ["fast", "networks", "faithful", "one", "plain"]
    assert kinds == sorted(kinds, key=order.index)
    assert len({step.name for step in STEPS}) == len(STEPS)


def test_each_step_of_the_networks_has_its_rows() -> None:
    art = np.zeros((64, 64, 3), np.uint8)
    assert set(network_works(Subject(art, art, art, art, art, art))) == set(NETWORKS)
    assert [step.name for step in steps_of((), "LaMa")] == ["start networks", "LaMa"]
    assert steps_of((), "none") == steps_of((), "no such network") == ()


def test_a_tally_learns_how_long_steps_take_here(tmp_path: Path) -> None:
    tally = load_tally(tmp_path / "tally.json")
    assert tally.pace == 1.0
    tally.note(STEPS[0], 5, 3 * STEPS[0].expected_s(5))
    tally.left_out[STEPS[1].name] = "no time was left"
    tally.save(tmp_path / "tally.json")
    found = load_tally(tmp_path / "tally.json")
    assert found == tally
    assert found.pace == pytest.approx(3.0)
    assert found.ahead(STEPS) == list(STEPS[2:])


# What a row is held against


H100 = "NVIDIA H100 80GB HBM3"


def test_a_row_says_whether_it_meets_its_device_s_targets() -> None:
    job = {"name": "job fast, 2048 px map", "p50_s": 0.6, "vram_peak_mb": 20 * 1024}
    time_s, peak = sorted(verdicts(H100, job), key=lambda verdict: str(verdict["figure"]))
    assert (time_s["target"], time_s["measured"], time_s["of_target"], time_s["met"]) == (0.8, 0.6, 0.75, True)
    assert (peak["target"], peak["of_target"], peak["met"]) == (16 * 1024, 1.25, False)
    assert {verdict["target"] for verdict in verdicts("NVIDIA GeForce RTX 5090", job)} == {1.05, 16 * 1024}
    assert verdicts("cpu", job) == []


def test_a_second_job_may_load_and_read_nothing() -> None:
    job = {"name": "second job fast", "p50_s": 0.6, "vram_peak_mb": 0, "loads": {"decoder": 9.0}, "files_read": 0}
    assert {verdict["figure"]: verdict["met"] for verdict in verdicts(H100, job)} == {
        "loads": False,
        "files_read": True,
    }


def test_a_slowed_volume_is_not_what_the_targets_are_for() -> None:
    job = {"name": "first job fast", "p50_s": 60.0}
    assert [verdict["met"] for verdict in verdicts(H100, {**job, "paced_mb_s": None})] == [False]
    assert verdicts(H100, {**job, "paced_mb_s": 250.0}) == []


def test_the_docs_tables_say_what_was_met_and_gained(rows: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    assert compared_table(tmp_path) == "No row yet: the benchmark has not run on a GPU.\n"
    assert "| core fast | 150 ms (2.3 × floor) | not yet | 300 ms (1.22 × floor) | not yet |" in targets_table(tmp_path)
    core = {**rows["core fast"], "device": H100, "p50_s": 0.2, "ratio": 3.1}
    core["targets"] = verdicts(H100, core)
    written = [core, *({**row, "device": H100} for name, row in rows.items() if name.startswith("paint"))]
    (tmp_path / "studio-h100.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
    assert "| core fast | 150 ms (2.3 × floor) | 200 ms (3.1), missed | 300 ms " in targets_table(tmp_path)
    gained = compared_table(tmp_path).splitlines()
    assert gained[0].startswith(f"**{H100}**")
    assert len(gained) == 4 + 4  # all off, two alone, diffusers
    assert f" {rows['paint fast, plain diffusers']['speedup']:.2f} |" in gained[-1]


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


FUSED = "mid_block.attentions.0.transformer_blocks.0.attn1"
CASES: list[tuple[Unit[Any], Work, str]] = [
    (units.DETECTOR, detect, "bbox_embed.0.layers.1"),
    (units.DETECTOR, detect, "model.backbone.conv_encoder.model.swin.layernorm"),
    (units.SEGMENTER, segment, "mask_decoder.transformer.layers.0.self_attn.q_proj"),
    (units.SEGMENTER, segment, "mask_decoder.transformer.layers.1.cross_attn_image_to_token.k_proj"),
    (units.PROMPT, paint, "encoder.layers.2.self_attn.out_proj"),
    (units.FAST, paint, f"{FUSED}.to_k"),
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
    seen = f"{FUSED}.to_out.0" if name == f"{FUSED}.to_k" else name  # part of one product, which is no layer of its own
    with watched(unit.name, spoilt), pytest.raises(UnsoundError, match=seen):
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
