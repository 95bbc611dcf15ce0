"""Residency: a unit is loaded when it is first needed and stays; at pressure the least recently used one leaves.

A *unit* is what is loaded and leaves as one: a network with all it needs. Two modes of one model are two units where
their weights differ (a fused LoRA), and share what doesn't.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from models.compiled import read_kernels
from models.device import Device
from models.files import ModelFiles
from models.graphs import Graphs
from models.imports import Imports
from models.networks import timed_moves
from models.requests import Check, unchecked
from models.store import Store

if TYPE_CHECKING:
    import torch

MIB = 1 << 20

log = logging.getLogger(__name__)


class Resident(Protocol):
    """What a unit's loader gives: a model whose networks can be counted."""

    @property
    def networks(self) -> tuple[torch.nn.Module, ...]:
        """What it computes with, for counting and moving memory."""


class Forgetful(Resident, Protocol):
    """A model that keeps something of the last picture."""

    def forget(self) -> None:
        """Drop it."""


R = TypeVar("R", bound=Resident)
R_co = TypeVar("R_co", bound=Resident, covariant=True)


@dataclass(frozen=True, slots=True)
class Unit(Generic[R_co]):
    """What is loaded, and leaves, as one.

    Attributes:
        name: for the report.
        rows: of the registry, whose files it is built from.
        load: from the files of each row that the volume holds.
        optional: further rows, used where the volume holds them.
        folders: of a row's files, those that this unit reads the weights of; all of a row that is not named.
        merged: of the rows, those whose weights are added to another's, and take no memory of their own.
        compiled: whether a builder may have compiled kernels for it; then its model has `regions`.
        modules: of libraries, all that loading and running it imports and that takes long, by their full names.
    """

    name: str
    rows: tuple[str, ...]
    load: Callable[[Mapping[str, ModelFiles], Device], R_co]
    optional: tuple[str, ...] = ()
    folders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    merged: tuple[str, ...] = ()
    compiled: bool = False
    modules: tuple[str, ...] = ()

    def weights(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Each row whose weights it reads for itself, and what their paths begin with."""
        for row in (*self.rows, *self.optional):
            folders = self.folders.get(row)
            yield row, ("",) if folders is None else tuple(f"{folder}/" for folder in folders)


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds that loads took, by what was waited for: one after another, on the torch thread.

    Attributes:
        import_s: libraries, and finding the device.
        read_s: the volume.
        build_s: making the networks, and fusing adapters.
        device_s: moving weights to the device, in the numbers that it counts in.
    """

    import_s: float = 0.0
    read_s: float = 0.0
    build_s: float = 0.0
    device_s: float = 0.0

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.import_s + self.read_s + self.build_s + self.device_s

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.import_s + other.import_s,
            self.read_s + other.read_s,
            self.build_s + other.build_s,
            self.device_s + other.device_s,
        )


@dataclass(frozen=True, slots=True)
class Watch:
    """What a job wants to know of loads, and how it ends one.

    Attributes:
        check: called while files are read; what it raises ends the load, and nothing of it stays.
        begun: told the name of a unit whose files are about to be read.
        ended: told the name and what the load took.
    """

    check: Check = unchecked
    begun: Callable[[str], None] = lambda _name: None
    ended: Callable[[str, Spent], None] = lambda _name, _spent: None


UNWATCHED = Watch()


@dataclass(slots=True)
class _Entry:
    unit: Unit[Any]
    model: Any
    bytes: int
    revisions: Mapping[str, str]
    used: int = 0


@dataclass(slots=True)
class Residents:
    """What is loaded on one worker. Used on the torch thread only.

    Attributes:
        store: the volume.
        device: where the models go.
        budget_bytes: that the weights may take together; None where nothing bounds them.
        imports: of the libraries that units need.
    """

    store: Store
    device: Device
    budget_bytes: int | None = None
    imports: Imports = field(default_factory=Imports)
    _loaded: dict[str, _Entry] = field(default_factory=dict)
    _clock: int = 0
    _broke_off: bool = False  # the last load did, and left what it had in cycles that only a collection frees

    def get(self, unit: Unit[R], watch: Watch = UNWATCHED) -> R:
        """The unit's model, loaded now where it is not there yet.

        Args:
            unit: what is asked for.
            watch: told of a load, and asked whether it should go on.

        Raises:
            ModelMissing, ModelCorrupt: the volume lacks it, or holds it damaged.
        """
        self._clock += 1
        entry = self._loaded.get(unit.name)
        if entry is None:
            entry = self._loaded[unit.name] = self._load(unit, watch)
        entry.used = self._clock
        self._make_room(0, keep=unit.name)
        return cast(R, entry.model)

    def _load(self, unit: Unit[Any], watch: Watch) -> _Entry:
        if self._broke_off:
            release_memory(self.device)
        self._broke_off = True
        if unit.rows:
            watch.begun(unit.name)
        began_s, waited_s = time.perf_counter(), self.store.reads.waited_s
        self.imports.need(unit.modules, watch.check)
        import_s = time.perf_counter() - began_s
        files = self._files(unit, watch.check)
        self._make_room(self._weight_bytes(unit, files))
        with timed_moves() as moves_s:
            model = unit.load(files, self.device)
        if unit.compiled and (kernels := read_kernels(self.store.volume, unit.name, self.device)) is not None:
            model.regions.take(kernels)
        entry = _Entry(unit, model, _bytes_of(model), {name: row.revision for name, row in files.items()})
        self._broke_off = False
        read_s, device_s = self.store.reads.waited_s - waited_s, sum(moves_s)
        build_s = time.perf_counter() - began_s - import_s - read_s - device_s
        spent = Spent(import_s, read_s, build_s, device_s)
        log.info("loaded %s in %.0f ms, %.0f MiB", unit.name, spent.total_s * 1000, entry.bytes / MIB)
        if unit.rows:
            watch.ended(unit.name, spent)
        return entry

    def drop_outdated(self) -> None:
        """Let the units go that were loaded from other revisions than the volume lists by now.

        Raises:
            ModelCorrupt: its manifest is damaged.
        """
        listed = self.store.revisions()
        for name in self.loaded():
            entry = self._loaded[name]
            rows = (*entry.unit.rows, *(row for row in entry.unit.optional if row in listed))
            if {row: listed.get(row) for row in rows} != entry.revisions:
                self._evict(name)

    def forget(self, unit: Unit[Forgetful]) -> None:
        """Have a model drop what it keeps of a picture, where it is loaded."""
        entry = self._loaded.get(unit.name)
        if entry is not None:
            entry.model.forget()

    def revisions(self, unit: Unit[R]) -> Mapping[str, str]:
        """The revision of each row that a loaded unit was built from."""
        return self._loaded[unit.name].revisions

    def loaded(self) -> tuple[str, ...]:
        """Names of the units that are resident, the least recently used first."""
        return tuple(sorted(self._loaded, key=lambda name: self._loaded[name].used))

    def evict_others(self, unit: Unit[Any]) -> tuple[str, ...]:
        """Let every unit but one go. Returns the names of those that left."""
        gone = tuple(name for name in self.loaded() if name != unit.name)
        for name in gone:
            self._evict(name)
        return gone

    def drop_graphs(self) -> None:
        """Let the recordings of every loaded model go: they share one pool, which is free with the last of them."""
        for entry in self._loaded.values():
            graphs: Graphs | None = getattr(entry.model, "graphs", None)
            if graphs is not None:
                graphs.drop()

    def _files(self, unit: Unit[Any], check: Check) -> dict[str, ModelFiles]:
        present = [row for row in unit.optional if self.store.holds(row)]
        return {row: self.store.files(row, check) for row in (*unit.rows, *present)}

    @staticmethod
    def _weight_bytes(unit: Unit[Any], files: Mapping[str, ModelFiles]) -> int:
        """About what a unit will take: the sizes of the files that it reads."""
        total = 0
        for row, found in files.items():
            if row in unit.merged:
                continue
            for folder in unit.folders.get(row, ("",)):
                total += sum(path.stat().st_size for path in (found.folder / folder).rglob("*") if path.is_file())
        return total

    def _make_room(self, needed_bytes: int, keep: str | None = None) -> None:
        if self.budget_bytes is None:
            return
        for name in self.loaded():
            if sum(entry.bytes for entry in self._loaded.values()) + needed_bytes <= self.budget_bytes:
                return
            if name != keep:
                self._evict(name)

    def _evict(self, name: str) -> None:
        log.info("%s leaves memory", name)
        del self._loaded[name]
        release_memory(self.device)


def release_memory(device: Device) -> None:
    """Give back what nothing refers to any more, to the device as well."""
    gc.collect()
    if device.kind == "cuda":
        import torch  # noqa: PLC0415

        torch.cuda.empty_cache()


def _bytes_of(model: Resident) -> int:
    return sum(
        tensor.numel() * tensor.element_size()
        for network in model.networks
        for tensor in (*network.parameters(), *network.buffers())
    )
