"""Recorded steps against plain ones, and what becomes of recordings; on a CPU traces stand for CUDA graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="the studio extra is not installed")
pytest.importorskip("diffusers", reason="the studio extra is not installed")

from models.device import CPU  # noqa: E402
from models.graphs import MOST, Graphs  # noqa: E402
from models.prompt import PromptEncoder, load_prompt_encoder  # noqa: E402
from tests.painters import Spy, files, load_faithful, load_fast, paint, request, write_volume  # noqa: E402
from tests.traces import Traces, counts, recording  # noqa: E402


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_volume(tmp_path_factory.mktemp("volume"))


@pytest.fixture(scope="module")
def encoder(volume: Path) -> PromptEncoder:
    return load_prompt_encoder(files(volume, "sdxl-base"), CPU)


JOBS: dict[str, list[dict[str, Any]]] = {
    "fast": [
        {},
        {"seed": 3, "prompt": "another van"},
        {"depth_weight": 0.9, "canny_until": 0.5},
        {"lora_scale": 0.7, "canny_weight": 0.0},
        {"guidance_scale": 3.0, "guidance_until": 0.5, "steps": 8},
        {},
    ],
    "faithful": [
        {},
        {"canny_until": 0.4, "seed": 9, "lora_scale": 0.7},
        {"canny_weight": 0.9, "guidance_scale": 2.0, "guidance_until": 0.6},
        {"guidance_until": 0.2},
        {},
    ],
}


@pytest.mark.parametrize(("mode", "expected"), [("fast", 2), ("faithful", 4)])
def test_recorded_steps_paint_what_plain_ones_do(
    volume: Path, encoder: PromptEncoder, mode: str, expected: int
) -> None:
    load: Any = load_fast if mode == "fast" else load_faithful
    plain, recorded = load(volume, styled=True), recording(load(volume, styled=True))
    for changes in JOBS[mode]:
        asked = request(mode, **changes)
        before = recorded.graphs.replayed
        with Spy(recorded.networks[0]) as every:
            ours = paint(recorded, encoder, asked)
        assert torch.equal(paint(plain, encoder, asked), ours), changes
    assert every.batches == []  # the last job's networks ran without Python
    assert recorded.graphs.replayed - before == asked.steps
    assert (recorded.graphs.recorded, recorded.graphs.refused) == (expected, 0)


def test_with_one_step_the_first_job_is_plain(volume: Path, encoder: PromptEncoder) -> None:
    painter = recording(load_fast(volume))
    paint(painter, encoder, request("fast", steps=1))
    assert (painter.graphs.recorded, painter.graphs.replayed) == (0, 0)


def double(tensor: Any) -> Any:
    return tensor * 2


@pytest.mark.parametrize(
    "fault",
    [
        RuntimeError("operation not permitted when stream is capturing"),
        torch.AcceleratorError("CUDA error: operation not permitted when stream is capturing"),
        torch.AcceleratorError("CUDA error: operation failed due to a previous error during capture"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
)
def test_what_can_not_be_recorded_stays_plain(fault: RuntimeError, caplog: pytest.LogCaptureFixture) -> None:
    traces = Traces()
    graphs, given = Graphs(traces), torch.arange(3.0)
    traces.fault = fault
    assert all(torch.equal(graphs.run("double", double, given), given * 2) for _ in range(4))
    assert counts(graphs) == (0, 0, 1)
    assert [record.message for record in caplog.records] == [
        f"a network is not recorded as a graph and stays slower: {traces.fault}"
    ]
    traces.fault = None
    graphs.drop()
    assert all(torch.equal(graphs.run("double", double, given), given * 2) for _ in range(4))
    assert counts(graphs) == (1, 3, 1)


def test_a_lost_device_is_not_taken_for_a_refusal() -> None:
    traces = Traces()
    graphs, given = Graphs(traces), torch.arange(3.0)
    graphs.run("double", double, given)
    traces.fault = RuntimeError("CUDA error: an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="illegal memory"):
        graphs.run("double", double, given)


def test_a_result_is_the_caller_s_own_and_shapes_have_recordings_of_their_own() -> None:
    graphs = Graphs(Traces())
    results = [graphs.run("double", double, torch.full((size,), float(size))) for size in (2, 2, 3, 2, 3, 3, 2)]
    assert [result.tolist() for result in results] == [[2.0 * len(result)] * len(result) for result in results]
    assert (graphs.recorded, graphs.replayed) == (2, 5)


def test_recordings_are_bounded() -> None:
    graphs = Graphs(Traces())
    for _ in range(2):
        for size in range(1, MOST + 2):
            graphs.run("double", double, torch.ones(size))
    assert graphs.recorded == 0
    for _ in range(2):
        for size in range(1, MOST + 1):
            graphs.run("double", double, torch.ones(size))
    assert graphs.recorded == MOST


def test_switched_off_every_call_is_plain() -> None:
    graphs = Graphs(Traces())
    graphs.enabled = False
    assert all(torch.equal(graphs.run("double", double, torch.ones(2)), torch.full((2,), 2.0)) for _ in range(4))
    assert (graphs.recorded, graphs.replayed) == (0, 0)
