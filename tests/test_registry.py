"""The table of models, and the locks that pin it."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from models import pins
from models.pins import PACKAGE_LOCK, Pin, PinnedFile, effective_pins, lock_text, parse_pin, pin_entry, read_lock
from models.registry import MODES, REGISTRY, STYLE_LORA, Mode, row_named, rows_of
from pipeline.errors import ModelCorrupt, ModelMissing

MODELS = PACKAGE_LOCK.parent
LAMA = row_named("big-lama")
REVISION, SHA256 = "0123456789" * 4, "0123456789abcdef" * 4


def lama_pin(**changes: Any) -> Pin:
    return Pin(
        **{"repo": str(LAMA.repo), "revision": REVISION, "files": (PinnedFile(LAMA.files[0], SHA256, 7),)} | changes
    )


def test_rows_are_told_apart_and_name_what_exists() -> None:
    assert len({row.name for row in REGISTRY}) == len(REGISTRY)
    for row in REGISTRY:
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]*", row.name)
        assert row.repo is None or re.fullmatch(r"[\w-]+/[\w.-]+", row.repo)
        assert (row.repo is None) == (row.name == STYLE_LORA)
        assert len(set(row.files)) == len(row.files) > 0
        assert list(row.modes) == [mode for mode in MODES if mode in row.modes] != []
        assert row.vram_mb >= 0
        assert (MODELS / f"{row.loader}.py").is_file()
        assert (MODELS.parent / "builder" / "synthetic" / f"{row.loader}.py").is_file()


def test_files_are_paths_and_no_patterns() -> None:
    for row in REGISTRY:
        for path in row.files:
            assert re.fullmatch(r"(?:[\w-]+/)*[\w.-]+\.(?:json|txt|safetensors|pth)", path), path
            assert ".." not in path


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_has_what_it_takes(mode: Mode) -> None:
    slots = Counter(row.slot for row in rows_of([mode]))
    always = {"detect": 1, "segment": 1, "inpaint": 1, "depth": 1, "base": 1, "vae": 1, "upscale": 1}
    assert slots == Counter(always | ({"control": 1, "few_step": 1} if mode == "fast" else {"control": 2}))


def test_nothing_that_is_used_by_default_forbids_commercial_work() -> None:
    assert all(row.commercial for row in REGISTRY if not row.optional)


def test_the_weights_fit_a_gpu_of_32_gb() -> None:
    everything_mb = sum(row.vram_mb for row in rows_of(MODES))
    assert 14_000 < everything_mb < 18_000


def test_optional_rows_are_asked_for() -> None:
    assert "zoedepth" not in {row.name for row in rows_of(MODES)}
    assert "zoedepth" in {row.name for row in rows_of(MODES, ["zoedepth"])}
    assert rows_of([]) == ()
    with pytest.raises(ModelMissing, match="no model is called yolo"):
        row_named("yolo")


def test_the_package_s_lock_is_well_formed() -> None:
    for name, pin in read_lock(PACKAGE_LOCK).items():
        assert re.fullmatch(r"[0-9a-f]{40}", pin.revision), name
        assert all(re.fullmatch(r"[0-9a-f]{64}", file.sha256) and file.bytes > 0 for file in pin.files)
        assert not all(digit == pin.revision[0] for digit in pin.revision)


def test_a_lock_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    style = row_named(STYLE_LORA)
    chosen = Pin(
        "someone/style",
        REVISION,
        (PinnedFile(style.files[0], SHA256, 3, "loras/flat.safetensors"),),
        licence="cc-by-nc-4.0",
        commercial=False,
    )
    written = {"big-lama": lama_pin(), STYLE_LORA: chosen}
    (tmp_path / "lock.json").write_text(lock_text(written))
    assert read_lock(tmp_path / "lock.json") == written
    assert effective_pins(tmp_path) == written
    assert chosen.files[0].source_path == "loras/flat.safetensors"
    assert lama_pin().files[0].source_path == LAMA.files[0]
    assert read_lock(tmp_path / "none.json") == {}


def test_the_package_s_pin_goes_before_the_volume_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = tmp_path / "package.json"
    packaged.write_text(lock_text({"big-lama": lama_pin(revision="a" * 40)}))
    (tmp_path / "lock.json").write_text(lock_text({"big-lama": lama_pin()}))
    monkeypatch.setattr(pins, "PACKAGE_LOCK", packaged)
    assert effective_pins(tmp_path)["big-lama"].revision == "a" * 40


@pytest.mark.parametrize(
    "changes",
    [
        {"revision": "main"},
        {"revision": REVISION[:-1]},
        {"revision": REVISION.upper().replace("0", "A")},
        {"revision": None},
        {"repo": "someone/else"},
        {"repo": None},
        {"files": None},
        {"files": []},
        {"files": [7]},
        {"files": [{"path": LAMA.files[0], "sha256": "", "bytes": 7}]},
        {"files": [{"path": LAMA.files[0], "sha256": SHA256 + "0", "bytes": 7}]},
        {"files": [{"path": LAMA.files[0], "sha256": SHA256, "bytes": -1}]},
        {"files": [{"path": LAMA.files[0], "sha256": SHA256, "bytes": True}]},
        {"files": [{"path": LAMA.files[0], "sha256": SHA256, "bytes": "7"}]},
        {"files": [{"path": LAMA.files[0], "sha256": SHA256}]},
        {"files": [{"path": "../../etc/passwd", "sha256": SHA256, "bytes": 7}]},
        {"files": [{"path": LAMA.files[0], "sha256": SHA256, "bytes": 7}] * 2},
        {"files": [{"path": LAMA.files[0], "sha256": SHA256, "bytes": 7, "source": 3}]},
        {"licence": 5},
        {"commercial": "yes"},
    ],
)
def test_a_pin_that_pins_nothing_is_refused(changes: dict[str, Any]) -> None:
    entry = pin_entry(lama_pin())
    assert parse_pin(LAMA, entry) == lama_pin()
    with pytest.raises(ModelCorrupt, match="big-lama"):
        parse_pin(LAMA, entry | changes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"format": 2, "rows": {}}',
        '{"format": 1}',
        '{"format": 1, "rows": []}',
        '{"format": 1, "rows": {"yolo": {}}}',
        '{"format": 1, "rows": {"big-lama": 5}}',
        "[" * 100_000,
        "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
)
def test_a_damaged_lock_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "lock.json").write_text(text)
    with pytest.raises(ModelCorrupt) as caught:
        effective_pins(tmp_path)
    assert str(tmp_path) not in str(caught.value)
    assert json.dumps(caught.value.as_reply())
