"""Volumes of random weights: laid out as real ones, told apart from them, and the same bytes for the same seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builder.__main__ import main
from models.registry import REGISTRY, rows_of
from models.store import Store, read_manifest

torch = pytest.importorskip("torch", reason="the studio extra is not installed")

EVERYTHING = ("--with", "zoedepth", "--with", "style-lora")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    volume = tmp_path_factory.mktemp("tiny")
    assert main(["tiny", "--volume", str(volume), *EVERYTHING]) == 0
    return volume


def test_every_row_is_there_and_reads(tiny: Path) -> None:
    store = Store(tiny)
    assert store.kind == "tiny"
    assert store.missing(("fast", "faithful")) == ()
    for row in REGISTRY:
        files = store.files(row.name)
        assert files.tensors(*(path for path in row.files if path.endswith((".safetensors", ".pth"))))
        for path in row.files:
            files.check(path)
            if path.endswith(".json"):
                assert files.json(path)


def test_it_verifies(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--volume", str(tiny), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["kind"], report["files"]) == ("tiny", sum(len(row.files) for row in REGISTRY))
    assert report["bytes"] < 20e6


def test_the_same_seed_writes_the_same_bytes(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tiny", "--volume", str(tmp_path), "--mode", "fast", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in report["rows"]] == [row.name for row in rows_of(["fast"])]
    assert all(row["parameters"] > 1000 for row in report["rows"])
    first, again = read_manifest(tiny), read_manifest(tmp_path)
    assert first is not None
    assert again is not None
    assert again.rows == {name: first.rows[name] for name in again.rows}
    assert main(["tiny", "--volume", str(tmp_path), "--mode", "fast", "--seed", "1"]) == 0
    other = read_manifest(tmp_path)
    assert other is not None
    assert not set(other.rows.values()) & set(again.rows.values())
    assert not list((tmp_path / "staging").glob("*.new"))


def test_it_does_not_mix_with_others(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["random", "--volume", str(tiny), "--mode", "fast"]) == 1
    assert "holds tiny weights, and kinds don't mix" in capsys.readouterr().out


def test_a_revision_is_its_content_s(tiny: Path) -> None:
    manifest = read_manifest(tiny)
    assert manifest is not None
    revisions = {listed.revision for listed in manifest.rows.values()}
    assert len(revisions) == len(manifest.rows)
