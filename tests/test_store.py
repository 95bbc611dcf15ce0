"""A volume as workers see it: nothing is used that is not there whole, pinned, and what was pinned."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builder.volume import write_manifest
from models.files import ModelFiles
from models.pins import Pin, PinnedFile, lock_text
from models.registry import STYLE_LORA, row_named, rows_of
from models.store import Kind, Listed, Manifest, Store, folder_of
from models.weights import BadWeights, tensors_in
from pipeline.errors import LiveryError, ModelCorrupt, ModelMissing
from pipeline.types import U8

SAM = "sam-vit-huge"
REVISION = "0123456789" * 4
WEIGHTS = "model.safetensors"


def safetensors(header: Any, body: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + body


TENSORS = safetensors(
    {
        "__metadata__": {"format": "pt"},
        "b": {"dtype": "F16", "shape": [2, 3], "data_offsets": [4, 16]},
        "a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]},
        "none": {"dtype": "I64", "shape": [0, 4], "data_offsets": [16, 16]},
    },
    np.float32(1.5).tobytes() + np.arange(6, dtype=np.float16).tobytes(),
)


def put(volume: Path, names: tuple[str, ...] = (SAM,), kind: Kind = "hub", *, pinned: bool = True) -> Store:
    """A volume that holds these rows."""
    draw, rows, pins = random.Random(1), {}, {}
    for name in names:
        row = row_named(name)
        files = []
        for path in row.files:
            data = TENSORS if path == WEIGHTS else json.dumps({"seed": draw.random()}).encode()
            place = folder_of(volume, name, REVISION) / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
            files.append(PinnedFile(path, hashlib.sha256(data).hexdigest(), len(data)))
        rows[name] = Listed(REVISION, tuple(files))
        pins[name] = Pin(str(row.repo), REVISION, tuple(files))
    write_manifest(volume, Manifest(kind, rows))
    if pinned:
        (volume / "lock.json").write_text(lock_text(pins))
    return Store(volume)


def path_of(store: Store, path: str) -> Path:
    return folder_of(store.volume, SAM, REVISION) / path


def test_a_row_that_is_there(tmp_path: Path) -> None:
    store = put(tmp_path)
    assert (store.kind, store.holds(SAM), store.holds("big-lama")) == ("hub", True, False)
    files = store.files(SAM)
    assert (files.name, files.revision) == (SAM, REVISION)
    assert set(files.json("config.json")) == {"seed"}
    assert store.missing(("fast",)) == tuple(row.name for row in rows_of(["fast"]) if row.name != SAM)


def test_an_empty_volume(tmp_path: Path) -> None:
    for volume in (tmp_path, tmp_path / "nowhere"):
        store = Store(volume)
        assert (store.kind, store.holds(SAM)) == (None, False)
        assert len(store.missing(("fast", "faithful"))) == len(rows_of(("fast", "faithful")))
        with pytest.raises(ModelMissing, match="builder warm fetches it"):
            store.files(SAM)


def test_what_is_not_pinned_is_not_used(tmp_path: Path) -> None:
    store = put(tmp_path, pinned=False)
    with pytest.raises(ModelMissing, match="sam-vit-huge is not pinned"):
        store.files(SAM)
    assert SAM in store.missing(("fast",))


@pytest.mark.parametrize("kind", ["tiny", "random"])
def test_random_weights_need_no_pin_and_are_told_apart(kind: Kind, tmp_path: Path) -> None:
    store = put(tmp_path, kind=kind, pinned=False)
    assert store.kind == kind
    assert store.files(SAM).revision == REVISION


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_another_revision_than_is_pinned(tmp_path: Path) -> None:
    store = put(tmp_path)
    edit(tmp_path / "lock.json", REVISION, "a" * 40)
    with pytest.raises(ModelMissing, match="another revision"):
        store.files(SAM)


def test_a_manifest_that_disagrees_with_the_pins(tmp_path: Path) -> None:
    store = put(tmp_path)
    edit(tmp_path / "manifest.json", store.files(SAM).sha256[WEIGHTS], "b" * 64)
    with pytest.raises(ModelCorrupt, match="other checksums"):
        store.files(SAM)


def test_a_row_that_may_not_be_used_commercially(tmp_path: Path) -> None:
    put(tmp_path, (STYLE_LORA,))
    with pytest.raises(ModelMissing, match="LIVERY_ALLOW_NONCOMMERCIAL"):
        Store(tmp_path).files(STYLE_LORA)
    assert Store(tmp_path, allow_noncommercial=True).files(STYLE_LORA).name == STYLE_LORA


def test_files_that_are_gone_or_of_another_size(tmp_path: Path) -> None:
    store = put(tmp_path)
    path_of(store, WEIGHTS).write_bytes(TENSORS + b"\0")
    with pytest.raises(ModelCorrupt, match="bytes long"):
        store.files(SAM)
    path_of(store, WEIGHTS).unlink()
    with pytest.raises(ModelMissing, match="lacks a file"):
        store.files(SAM)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_what_libraries_read_themselves_is_checked_before(tmp_path: Path) -> None:
    store = put(tmp_path)
    flip(path_of(store, "preprocessor_config.json"))
    with pytest.raises(ModelCorrupt, match="pinned checksum"):
        store.files(SAM)


def test_reads_are_counted(tmp_path: Path) -> None:
    store = put(tmp_path)
    assert (store.holds(SAM), store.missing(("fast",)) != (), store.reads.files) == (True, True, 0)
    files = store.files(SAM)
    before = store.reads.files
    files.check(WEIGHTS)
    assert store.reads.files == before + 1
    assert store.reads.bytes >= len(TENSORS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"format": 1, "rows": {}}',
        '{"format": 1, "kind": "hub"}',
        '{"format": 1, "kind": "best", "rows": {}}',
        '{"format": 1, "kind": "hub", "rows": {"sam-vit-huge": {"revision": "../..", "files": []}}}',
        '{"format": 1, "kind": "hub", "rows": {"sam-vit-huge": {"files": []}}}',
    ],
)
def test_a_damaged_manifest(text: str, tmp_path: Path) -> None:
    store = put(tmp_path)
    (tmp_path / "manifest.json").write_text(text)
    for ask in (
        lambda: store.kind,
        lambda: store.files(SAM),
        lambda: store.missing(["fast"]),
        lambda: store.holds(SAM),
    ):
        with pytest.raises(ModelCorrupt, match="manifest"):
            ask()


def test_a_manifest_can_t_lead_out_of_the_volume(tmp_path: Path) -> None:
    put(tmp_path, kind="tiny")
    edit(tmp_path / "manifest.json", '"config.json"', '"../../../lock.json"')
    with pytest.raises(ModelMissing, match="other files of sam-vit-huge"):
        Store(tmp_path).files(SAM)


def test_no_message_holds_a_path(tmp_path: Path) -> None:
    store = put(tmp_path)
    path_of(store, WEIGHTS).unlink()
    faults = []
    for ask in (lambda: store.files(SAM), lambda: ModelFiles(SAM, REVISION, tmp_path).json("config.json")):
        with pytest.raises(LiveryError) as caught:
            ask()
        faults.append(str(caught.value))
    assert not any(str(tmp_path) in fault or "/" in fault for fault in faults)


def array(data: bytes) -> U8:
    return np.frombuffer(bytearray(data), np.uint8)


def test_safetensors_are_read_as_their_own_library_reads_them() -> None:
    torch = pytest.importorskip("torch", reason="the studio extra is not installed")
    from safetensors.torch import load, save  # noqa: PLC0415

    kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32]
    kinds += [torch.int16, torch.int8, torch.uint8, torch.bool]
    draw = torch.Generator().manual_seed(0)
    for shape in [(), (1,), (3, 5), (0, 7), (2, 1, 4)]:
        stored = {str(kind): (torch.rand(shape, generator=draw) * 100).to(kind) for kind in kinds}
        data = save(stored)
        ours, theirs = tensors_in("x.safetensors", array(data)), load(data)
        assert ours.keys() == theirs.keys() == stored.keys()
        for name, tensor in theirs.items():
            assert ours[name].dtype == tensor.dtype
            assert torch.equal(ours[name], tensor)
    unaligned = tensors_in("x.safetensors", array(TENSORS))
    assert (unaligned["a"].item(), unaligned["b"].tolist()) == (1.5, [[0, 1, 2], [3, 4, 5]])


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 7,
        TENSORS[:-1],
        TENSORS + b"\0",
        TENSORS[:40],
        safetensors(b"", length=1 << 62),
        safetensors(b"[]"),
        safetensors(b"5"),
        safetensors(b"{"),
        safetensors(b'{"a": 5}'),
        safetensors({"a": {}}),
        safetensors({"a": ONE}),
        safetensors({"a": {**ONE, "shape": [2]}}, b"\0" * 4),
        safetensors({"a": {**ONE, "shape": [-1]}}, b"\0" * 4),
        safetensors({"a": {**ONE, "shape": [True]}}, b"\0" * 4),
        safetensors({"a": {**ONE, "shape": None}}, b"\0" * 4),
        safetensors({"a": {**ONE, "dtype": "F8_E4M3"}}, b"\0" * 4),
        safetensors({"a": {**ONE, "data_offsets": [0, 4, 8]}}, b"\0" * 4),
        safetensors({"a": {**ONE, "data_offsets": []}}, b"\0" * 4),
        safetensors({"a": {**ONE, "data_offsets": [4, 0]}}, b"\0" * 4),
        safetensors({"a": {**ONE, "data_offsets": [1, 5]}}, b"\0" * 5),
        safetensors({"a": ONE, "b": ONE}, b"\0" * 4),
        safetensors({"a": ONE, "b": {**ONE, "data_offsets": ["4", 8]}}, b"\0" * 8),
    ],
)
def test_damaged_safetensors(data: bytes) -> None:
    pytest.importorskip("torch", reason="the studio extra is not installed")
    with pytest.raises(BadWeights):
        tensors_in("x.safetensors", array(data))
