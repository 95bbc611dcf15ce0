"""Compiled kernels on the volume: taken where they fit, left alone otherwise, and never compiled by a worker."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="the studio extra is not installed")
pytest.importorskip("diffusers", reason="the studio extra is not installed")

from builder.kernels import SIZES, shapes_of  # noqa: E402
from models import units  # noqa: E402
from models.compiled import (  # noqa: E402
    FOLDER,
    Kernels,
    Regions,
    compiler_facts,
    kernels_path,
    packed,
    read_kernels,
    unpacked,
)
from models.device import CPU  # noqa: E402
from models.graphs import Graphs  # noqa: E402
from models.loader import Residents  # noqa: E402
from models.store import Store  # noqa: E402
from pipeline.errors import ModelCorrupt  # noqa: E402
from tests.traces import Traces  # noqa: E402

KERNELS = Kernels(frozenset({(1, 4, 16, 16), (2, 4, 16, 24)}), b"what torch saved\n" * 9)
FACTS = {"gpu": "a GPU", "torch": "2.13.0", "dtype": "float16"}
UNIT = "fast painter"


def test_what_is_packed_is_unpacked() -> None:
    assert unpacked(packed(KERNELS, FACTS), FACTS) == KERNELS


@pytest.mark.parametrize("fact", sorted(FACTS))
def test_kernels_for_something_else_are_refused(fact: str) -> None:
    other = {**FACTS, fact: "another"}
    assert kernels_path(Path(), UNIT, FACTS) != kernels_path(Path(), UNIT, other)
    with pytest.raises(ModelCorrupt, match="something else"):
        unpacked(packed(KERNELS, other), FACTS)


def test_no_damage_passes() -> None:
    whole = packed(KERNELS, FACTS)
    refused = 0
    for at in range(0, len(whole), 3):
        for changed in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
            try:
                found = unpacked(changed, FACTS)
            except ModelCorrupt:
                refused += 1
            else:
                # A changed shape is one that is not computed with these kernels, which are whole.
                assert found.archive == KERNELS.archive
    assert refused > len(whole) // 2


def test_what_the_volume_holds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    facts = compiler_facts(CPU)
    assert facts["torch"] == torch.__version__
    assert read_kernels(tmp_path, UNIT, CPU) is None
    path = kernels_path(tmp_path, UNIT, facts)
    path.parent.mkdir()
    assert path.parent.name == FOLDER
    assert read_kernels(tmp_path, UNIT, CPU) is None
    path.write_bytes(packed(KERNELS, facts))
    assert read_kernels(tmp_path, UNIT, CPU) == KERNELS
    assert read_kernels(tmp_path, "faithful painter", CPU) is None
    assert not caplog.records
    path.write_bytes(path.read_bytes()[:-1])
    assert read_kernels(tmp_path, UNIT, CPU) is None
    assert [record.getMessage() for record in caplog.records] == [
        "compiled kernels of the fast painter are left alone: the compiled kernels are damaged"
    ]


def test_shapes_are_those_that_a_mode_computes() -> None:
    assert shapes_of("fast", ((1216, 832),)) == ((1, 4, 104, 152),)
    assert shapes_of("faithful", ((1216, 832),)) == ((1, 4, 104, 152), (2, 4, 104, 152))
    assert all(side % 64 == 0 for size in SIZES for side in size)


COMPILE = """
import json, sys
from pathlib import Path
import torch
from torch._dynamo.utils import counters
from diffusers.models.attention import BasicTransformerBlock
from models.compiled import Kernels, Regions, compiler_facts, packed, unpacked
from models.device import CPU

torch.manual_seed(0)
torch.set_num_threads(1)
blocks = torch.nn.ModuleList([BasicTransformerBlock(16, 2, 8, cross_attention_dim=8) for _ in range(2)]).eval()
path, facts = Path(sys.argv[1]), compiler_facts(CPU)

def step(shape):
    values = torch.arange(shape[0] * shape[1] * 16.0).reshape(shape[0], shape[1], 16).sin()
    for block in blocks:
        values = block(values, encoder_hidden_states=values[:, :3, :8])
    return values

def misses():
    return counters["inductor"]["fxgraph_cache_miss"]

with torch.inference_mode():
    known, other = (1, 6), (1, 7)
    plain = step(known), step(other)
    regions = Regions([blocks])
    if path.exists():
        regions.take(unpacked(path.read_bytes(), facts))
    else:
        path.write_bytes(packed(regions.make([known], step), facts))
    made = misses()
    outcome = []
    for _ in range(2):
        for shape, expected in zip((known, other), plain):
            with regions.at(shape):
                found = step(shape)
            outcome.append([bool(torch.equal(found, expected)), float((found - expected).abs().max())])
    hits = counters["inductor"]["fxgraph_cache_hit"]
    print(json.dumps({"made": made, "compiled": misses() - made, "hits": hits, "outcome": outcome}))
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's compiler needs g++ on a CPU")
def test_a_worker_takes_what_a_builder_made_and_compiles_nothing(tmp_path: Path) -> None:
    kernels = tmp_path / "made.kernels"
    outcomes = []
    for process in ("builder", "worker"):
        # With a folder of its own for what torch keeps on this machine: nothing but the file connects the two.
        surroundings = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / process)}
        done = subprocess.run(
            [sys.executable, "-c", COMPILE, str(kernels)], env=surroundings, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        outcomes.append(json.loads(done.stdout.splitlines()[-1]))
    builder, worker = outcomes
    assert builder["made"] == 1  # two blocks of one shape
    assert (worker["made"], worker["compiled"], worker["hits"]) == (0, 0, 1)
    for known, other in (worker["outcome"][:2], worker["outcome"][2:]):
        assert known[1] < 1e-5
        assert other == [True, 0.0]  # at another size nothing is compiled: plain, to the bit
    assert worker["outcome"] == builder["outcome"]


def test_networks_without_kernels_know_nothing_of_the_compiler() -> None:
    regions = Regions([torch.nn.Linear(2, 2)])
    with regions.at((1, 4, 8, 8)):
        assert regions.shapes == frozenset()


def test_an_archive_that_torch_can_not_read_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    regions = Regions([torch.nn.Linear(2, 2)])
    regions.take(KERNELS)
    assert regions.shapes == frozenset()
    assert "compiled kernels are left alone: torch can't read them" in [one.getMessage() for one in caplog.records]


class TestLoads:
    """Kernels and recordings as the resident set handles them."""

    @pytest.fixture
    def volume(self, tiny_volume: Path, tmp_path: Path) -> Path:
        shutil.copytree(tiny_volume, tmp_path / "volume")
        return tmp_path / "volume"

    def test_a_painter_takes_what_the_volume_holds(self, volume: Path, caplog: pytest.LogCaptureFixture) -> None:
        path = kernels_path(volume, units.FAST.name, compiler_facts(CPU))
        path.parent.mkdir()
        path.write_bytes(packed(KERNELS, compiler_facts(CPU)))
        painter = Residents(Store(volume), CPU).get(units.FAST)
        # Whole as the file is, what it holds was never torch's: the painter is there, and says why it is slower.
        assert painter.regions.shapes == frozenset()
        assert "compiled kernels are left alone: torch can't read them" in [one.getMessage() for one in caplog.records]

    def test_recordings_go_where_memory_is_short(self, volume: Path) -> None:
        residents = Residents(Store(volume), CPU)
        painter, segmenter = residents.get(units.FAST), residents.get(units.SEGMENTER)
        for model in (painter, segmenter):
            model.graphs = Graphs(Traces())
            for _ in range(2):
                model.graphs.run("double", lambda tensor: tensor * 2, torch.ones(2))
            assert model.graphs.recorded == 1
        residents.drop_graphs()
        for model in (painter, segmenter):
            model.graphs.run("double", lambda tensor: tensor * 2, torch.ones(2))
            assert model.graphs.replayed == 1  # the first after that is a plain call again
