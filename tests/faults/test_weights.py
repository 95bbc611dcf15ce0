"""Weights that would run code, and weights that are not what was pinned: neither is ever used."""

from __future__ import annotations

import pickle
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.files import ModelFiles
from models.store import Store, folder_of
from pipeline.errors import ModelCorrupt
from pipeline.worker import Worker
from tests.faults.conftest import Figure
from tests.test_store import REVISION, SAM, WEIGHTS, flip, path_of, put
from tests.test_studio import illustrate, settings_of

torch = pytest.importorskip("torch", reason="the studio extra is not installed")

ROWS = ("sam-vit-huge", "big-lama", "depth-anything-v2-small")
FLIPS = 300


# ---- code in weights


class Touch:
    """A pickle of it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (self.path.touch, ())


class Run:
    """A pickle of it runs a sentence of Python."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, (f"open({str(self.path)!r}, 'w')",))


def save_plainly(value: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(value, protocol=2))


def save_zipped(value: Any, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(value, protocol=2))
        file.writestr("archive/version", "3\n")


FORMATS: dict[str, Callable[[Any, Path], None]] = {
    "torch": torch.save,
    "torch before 1.6": lambda value, path: torch.save(value, path, _use_new_zipfile_serialization=False),
    "pickle": save_plainly,
    "zip": save_zipped,
}
NAMES = ("model.pth", "model.pt", "pytorch_model.bin", "model.ckpt", "model.safetensors")


def test_a_pickle_can_t_run_code(tmp_path: Path, figure: Figure) -> None:
    ran, tried = tmp_path / "ran", 0
    for save in FORMATS.values():
        for code in (Touch(ran), Run(ran)):
            for value in ({"a": code}, {"a": torch.ones(2), "b": [code]}, code):
                for name in NAMES:
                    save(value, tmp_path / name)
                    with pytest.raises(ModelCorrupt, match="damaged, or holds more than tensors"):
                        ModelFiles("big-lama", REVISION, tmp_path).tensors(name)
                    tried += 1
    figure("pickle in weights", f"{tried} files: none ran, {tried} ModelCorrupt", "not run; ModelCorrupt")
    assert not ran.exists()


def test_the_code_would_have_run(tmp_path: Path) -> None:
    for code in (Touch(tmp_path / "touched"), Run(tmp_path / "run")):
        torch.save({"a": code}, tmp_path / "evil.pth")
        torch.load(tmp_path / "evil.pth", weights_only=False)
    assert (tmp_path / "touched").exists()
    assert (tmp_path / "run").exists()


def test_what_holds_nothing_but_tensors_is_read(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ModelCorrupt, match="damaged, or holds more than tensors"):
        ModelFiles("big-lama", REVISION, tmp_path).tensors("list.pth")
    torch.save({"params": {"w": torch.ones(2)}}, tmp_path / "good.pth")
    good: Any = ModelFiles("big-lama", REVISION, tmp_path).tensors("good.pth")
    assert good["params"]["w"].tolist() == [1, 1]


# ---- damage


def damage(draw: random.Random, path: Path) -> None:
    """Flip a bit, cut the file, or lengthen it."""
    data = bytearray(path.read_bytes())
    how = draw.choice(("flipped",) * 8 + ("cut", "longer"))
    if how == "flipped":
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    elif how == "cut":
        del data[draw.randrange(len(data)) :]
    else:
        data += draw.randbytes(draw.randrange(1, 50))
    path.write_bytes(data)


def is_refused(volume: Path, row: str, path: str) -> bool:
    try:
        Store(volume).files(row).check(path)
    except ModelCorrupt:
        return True
    return False


def test_every_damage_to_any_file_is_found_before_it_is_used(tmp_path: Path, figure: Figure) -> None:
    store, draw = put(tmp_path, ROWS), random.Random(31)
    listed = [(row, path) for row in ROWS for path in store.files(row).sha256]
    found = 0
    for number in range(FLIPS):
        row, path = listed[number % len(listed)]
        place = folder_of(tmp_path, row, REVISION) / path
        whole = place.read_bytes()
        damage(draw, place)
        found += is_refused(tmp_path, row, path)
        place.write_bytes(whole)
    for row, path in listed:
        Store(tmp_path).files(row).check(path)
    assert found == FLIPS
    measured = f"{found} of {FLIPS} flips, cuts and additions found, in {len(listed)} files"
    figure("corrupt weights", measured, "100 % detected")


def test_a_flipped_byte_is_found_as_it_is_read(tmp_path: Path) -> None:
    store = put(tmp_path)
    assert store.files(SAM).tensors(WEIGHTS)["a"].item() == 1.5
    flip(path_of(store, WEIGHTS))
    files = store.files(SAM)
    with pytest.raises(ModelCorrupt, match="pinned checksum"):
        files.tensors(WEIGHTS)
    assert Store(tmp_path, verify="size").files(SAM).tensors(WEIGHTS)["a"].item() == 1.5


def test_a_flipped_byte_is_found_as_the_studio_engine_loads(tiny_volume: Path, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    shutil.copytree(tiny_volume, volume)
    weights = next(volume.glob("models/sam-vit-huge/*/model.safetensors"))
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ModelCorrupt, match="sam-vit-huge"):
        illustrate(Worker(settings_of(volume)))
