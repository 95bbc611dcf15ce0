"""Volumes of random weights: laid out as real ones, told apart from them, and the same bytes for the same seed."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from builder.__main__ import main
from builder.choice import Choice
from builder.lease import BuilderLock
from builder.report import Report
from builder.synthesise import synthesise
from builder.volume import SPARE_BYTES
from models.registry import REGISTRY, Row, row_named, rows_of
from models.store import Store, read_manifest
from pipeline.errors import VolumeFull

torch = pytest.importorskip("torch", reason="the studio extra is not installed")

Usage = namedtuple("Usage", "total used free")
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


class OneRow(Choice):
    """A choice of one small row, so that a volume of full size is written in a moment."""

    def rows(self, volume_pins: object = ()) -> tuple[Row, ...]:
        return (row_named("realesrgan-x4plus-anime"),)


@pytest.mark.parametrize("short_bytes", [0, 1])
def test_the_room_that_is_asked_for_is_what_full_size_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_bytes: int
) -> None:
    free_bytes = (18 << 20) + SPARE_BYTES - short_bytes
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free_bytes, 0, free_bytes))
    report = Report("random")
    with BuilderLock(tmp_path, 1.0, lambda: None) as lock:
        if short_bytes:
            with pytest.raises(VolumeFull, match=r"18\.9 MB are still to be written"):
                synthesise(tmp_path, lock, OneRow(("fast",)), report, kind="random", seed=0)
            return
        synthesise(tmp_path, lock, OneRow(("fast",)), report, kind="random", seed=0)
    (written,) = report.rows
    assert 17 << 20 < written["bytes"] <= 18 << 20


def test_a_whole_volume_of_full_size_needs_what_its_weights_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    free_bytes = 15_000_000_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free_bytes, 0, free_bytes))
    assert main(["random", "--volume", str(tmp_path)]) == 1
    # 8.75 thousand million parameters: two bytes each, four in the detector, the inpainter, the decoder, the upscaler.
    assert "VolumeFull: 17.5 GB are still to be written" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.safetensors"))
