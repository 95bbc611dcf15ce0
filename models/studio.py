"""The studio engine as the phases see it: pictures in, pictures out, whichever networks that takes.

`StudioWorker` lives as long as the process and holds what is resident; `Studio` is one job's view of it. Every method
runs on the one thread that all torch work is done on, loads what it needs when it is first needed, and steps down where
memory runs out: free what is cached, let other models go, work in tiles or on the CPU, work smaller. What that gave up
is a warning.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import cv2
import numpy as np

from models import units
from models.device import Device, find_device
from models.faults import fault_of, typed_faults
from models.imports import Imports
from models.loader import MIB, R, Residents, Spent, Unit, Watch, release_memory
from models.registry import STYLE_LORA, Mode
from models.requests import BoxF, Check, Detection, PaintRequest, Tell, unchecked, untold
from models.store import Store
from models.thread import TorchThread
from pipeline.errors import Cancelled, ModelCorrupt, OutOfMemory
from pipeline.types import F32, I32, U8, Mask, Warning

if TYPE_CHECKING:
    import torch

    from models.prompt import PromptEncoder, Words
    from models.rrdbnet import Upscaler


class Painter(Protocol):
    """What both modes' painters are."""

    @property
    def networks(self) -> tuple[torch.nn.Module, ...]:
        """What it computes with."""

    def paint(
        self, request: PaintRequest, wanted: Words, unwanted: Words | None, check: Check, tell: Tell
    ) -> torch.Tensor:
        """The latents of the picture."""


T = TypeVar("T")

SMALLER = (0.75, 0.5)
"""Shares of the asked sides that painting falls back to, one after another."""

_EDGE_LEAST = 64  # of 255: a quarter of an edge's pixel

TILES_PX = (512, 256, 128)
"""Sides of the tiles that the upscaler falls back to, one after another."""


@dataclass(frozen=True, slots=True)
class _Rung(Generic[R, T]):
    """One way to do a piece of work: `code` and `how` say what it gave up, for the warning; empty where nothing."""

    work: Callable[[R], T]
    code: str = ""
    how: str = ""


@dataclass(frozen=True, slots=True)
class _Done(Generic[T]):
    value: T


class StudioWorker:
    """The resident set of one process.

    Args:
        volume: the model volume's folder.
        allow_noncommercial: whether models may be used whose licence forbids commercial work.
        weights_mb: that the weights may take together, in MiB; None: what the GPU has, less the room to work in.
        prefetch_mb: that weights may take which are read before they are asked for, in MiB; 0: none are.
        fp16_accumulation: whether a GPU sums up products of half-precision matrices in half precision too.
        threads: that torch uses on a CPU; None: its own choice.
        find: finds the device that it runs on, once torch is there.
    """

    def __init__(
        self,
        volume: Path,
        *,
        allow_noncommercial: bool = False,
        weights_mb: int | None = None,
        prefetch_mb: int = 0,
        fp16_accumulation: bool = False,
        threads: int | None = None,
        find: Callable[[], Device] = find_device,
    ) -> None:
        self.store = Store(volume, allow_noncommercial)
        self.thread = TorchThread()
        self.imports = Imports()
        self._weights_mb = weights_mb
        self._prefetch_bytes = prefetch_mb * MIB
        self._fp16_accumulation = fp16_accumulation
        self._threads = threads
        self._find = find
        self._residents: Residents | None = None
        self._waited_s = self._told_s = 0.0  # for libraries, for the job that comes next; and what earlier ones told

    def why_unusable(self, mode: Mode, *, allow_synthetic: bool) -> str | None:
        """Why the volume can't serve a mode; None where it can. Reads the manifest and sizes, loads nothing."""
        try:
            kind, missing = self.store.kind, self.store.missing((mode,))
        except ModelCorrupt as fault:
            return fault.message
        if kind is None:
            return "the volume holds no models"
        if missing:
            return f"the volume lacks what the mode {mode} needs: {', '.join(missing)}"
        if kind != "hub" and not allow_synthetic:
            return "the volume holds random weights, made for tests"
        return None

    @property
    def device(self) -> Device:
        """Where it runs; found with the first use, which imports torch.

        Raises:
            ModelMissing: there is a GPU that can't be used.
        """
        residents = self._residents  # known from then on without a wait for what the thread is doing
        return self.do(lambda: self.residents().device) if residents is None else residents.device

    def do(self, work: Callable[[], T]) -> T:
        """Do `work` on the torch thread.

        Raises:
            DeviceLost, OutOfMemory: so it ended, whatever torch called it.
        """

        def typed() -> T:
            with typed_faults():
                return work()

        return self.thread.run(typed)

    def forget(self) -> None:
        """Drop what a model keeps of a picture for the next question about it."""
        if self._residents is not None:
            self.do(lambda: self.residents().forget(units.SEGMENTER))

    @contextmanager
    def reading_ahead(self, needed: Sequence[Unit[Any]]) -> Iterator[None]:
        """While this lasts, what isn't loaded is made ready: its libraries are imported and its weights are read.

        Both go on side by side, and while networks compute.

        Args:
            needed: in the order that they will be asked for.

        Raises:
            ModelCorrupt: the volume's manifest is damaged.
        """
        residents = self._residents
        loaded = () if residents is None else self.do(residents.loaded)
        missing = [unit for unit in needed if unit.name not in loaded]
        try:
            self.import_ahead(missing)
            if self._prefetch_bytes > 0:
                weights = (row for unit in missing for row in unit.weights())
                self.store.ahead.begin(self.store.weights(weights), self._prefetch_bytes)
            yield
        finally:
            self.store.ahead.end()
            self.imports.end()

    def import_ahead(self, needed: Iterable[Unit[Any]]) -> None:
        """Import what units need from now on, on a thread of its own.

        Args:
            needed: in the order that they will be asked for.
        """
        self.imports.begin(name for unit in needed for name in unit.modules)

    def residents(self, ask: Check = unchecked) -> Residents:
        """What is loaded. For the torch thread only.

        Args:
            ask: called while PyTorch is imported; what it raises ends the wait.
        """
        if self._residents is None:
            began_s = time.perf_counter()
            self.imports.need(("torch",), ask)
            import torch  # noqa: PLC0415

            if self._threads is not None:
                torch.set_num_threads(self._threads)
            torch.backends.cuda.matmul.allow_fp16_accumulation = self._fp16_accumulation
            device = self._find()
            self._waited_s = time.perf_counter() - began_s
            self._residents = Residents(self.store, device, _budget_bytes(device, self._weights_mb), self.imports)
        return self._residents

    def job(self, check: Check, tell: Tell = untold) -> Studio:
        """One job's view. What the volume holds in another revision by now is loaded again when the job needs it.

        Args:
            check: called between the steps of long work, loads among it; what it raises ends the work.
            tell: told of each load.

        Raises:
            ModelCorrupt: the volume's manifest is damaged.
        """
        began_s = time.perf_counter()
        self.do(lambda: self._begin(check))
        waited_s, self._waited_s = self._waited_s, 0.0
        return Studio(self, check, tell, began_s, Spent(import_s=waited_s))

    def take_imported_s(self) -> float:
        """What importing libraries took since this was last asked, in seconds."""
        told_s, self._told_s = self._told_s, self.imports.spent_s
        return self._told_s - told_s

    def _begin(self, check: Check) -> None:
        residents = self.residents(check)
        if residents.device.kind == "cuda":
            import torch  # noqa: PLC0415

            torch.cuda.reset_peak_memory_stats()
        residents.drop_outdated()


WORKING_MB = 6 * 1024
"""Kept free of weights on a GPU for what the networks compute, in MiB."""


def _words(model: PromptEncoder, request: PaintRequest, guided: bool) -> tuple[Words, Words | None]:
    wanted = model.encode(request.prompt, request.lora_scale)
    return wanted, model.encode(request.negative_prompt, request.lora_scale) if guided else None


def _reduced(request: PaintRequest, share: float) -> PaintRequest:
    """The same request for a picture of `share` of its sides, which are multiples of 64 again."""
    if share == 1:
        return request
    height_px, width_px = (max(64, round(side * share / 64) * 64) for side in request.depth.shape)
    size = height_px, width_px
    edges = _resized(request.canny, size, cv2.INTER_AREA) >= _EDGE_LEAST  # still edges or none, nothing in between
    return replace(
        request, depth=_resized(request.depth, size, cv2.INTER_AREA), canny=np.where(edges, np.uint8(255), np.uint8(0))
    )


def _resized(picture: U8, size: tuple[int, ...], filter: int) -> U8:
    if picture.shape[:2] == size:
        return picture
    resized: U8 = cv2.resize(picture, (size[1], size[0]), interpolation=filter)
    return resized


def _budget_bytes(device: Device, asked_mb: int | None) -> int | None:
    if asked_mb is not None:
        return asked_mb * MIB
    return None if device.memory_mb is None else max(device.memory_mb - WORKING_MB, device.memory_mb // 2) * MIB


@dataclass(frozen=True, slots=True)
class Timeline:
    """How a job's models came to be there.

    Attributes:
        spent: what the job waited for.
        imported_s: seconds that importing libraries took since the job before, most of them while something else was
            done.
        first_s: seconds from the job's asking for its models to the first thing that one of them gave; None where none
            gave anything.
    """

    spent: Spent
    imported_s: float
    first_s: float | None


@dataclass(slots=True)
class Studio:
    """One job's view of the resident set.

    Attributes:
        began_s: when the job asked for the models, by `time.perf_counter`.
        spent: what this job waited for until its models were there.
        first_s: as in `Timeline`.
        loads: unit → milliseconds that loading it took in this job.
        models: row of the registry → revision, of every model that this job used.
        warnings: what memory made it give up.
    """

    worker: StudioWorker
    outer_check: Check
    outer_tell: Tell
    began_s: float
    spent: Spent = field(default_factory=Spent)
    first_s: float | None = None
    loads: dict[str, float] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    warnings: list[Warning] = field(default_factory=list)

    def detect(
        self, rgb: U8, phrases: Sequence[str], box_threshold: float, text_threshold: float
    ) -> tuple[Detection, ...]:
        """What of `phrases` the detector finds in the picture, best first."""
        return self._do(units.DETECTOR, _Rung(lambda model: model.detect(rgb, phrases, box_threshold, text_threshold)))

    def segment(self, rgb: U8, boxes: Sequence[BoxF]) -> tuple[Mask, ...]:
        """The thing in each box, as bool [H, W]: the one mask that SAM is trained to give for a box."""
        return self._do(units.SEGMENTER, _Rung(lambda model: model.segment(rgb, boxes)))

    def segment_at(self, rgb: U8, point: tuple[float, float]) -> Mask:
        """The largest sensible thing at a point."""
        return self._do(units.SEGMENTER, _Rung(lambda model: model.segment_at(rgb, point)))

    def inpaint(self, rgb: U8, mask: Mask, check: Check) -> U8:
        """The picture with the masked pixels filled from around them; every other pixel is unchanged."""
        return self._do(units.INPAINTER, _Rung(lambda model: model.inpaint(rgb, mask, self._both(check))))

    def depth(self, rgb: U8) -> U8:
        """uint8 [H, W]: relative depth over the full range 0 to 255, near is light."""
        return self._do(units.DEPTH, _Rung(lambda model: model.depth(rgb)))

    def native_px(self) -> int:
        """Side of the square that the diffusion model was trained on; 1024 for SDXL."""
        side_px: int = self._do(units.VAE, _Rung(lambda model: model.native_px))
        return side_px

    def has_style(self) -> bool:
        """Whether the volume holds a style LoRA."""
        return self.worker.store.holds(STYLE_LORA)

    def unread(self, prompt: str) -> str:
        """The end of a prompt that is too long for the model; empty where all of it is read."""
        end: str = self._do(units.PROMPT, _Rung(lambda model: model.unread(prompt)))
        return end

    def paint(self, request: PaintRequest, check: Check, tell: Tell = untold) -> U8:
        """The illustration, uint8 [H, W, 3] of the size of `request.depth`; `tell` is told of each denoising step."""
        from models.sdxl import is_guided  # noqa: PLC0415

        guided, ask = is_guided(request), self._both(check)
        wanted, unwanted = self._do(units.PROMPT, _Rung(lambda model: _words(model, request, guided)))

        def paint_at(share: float) -> Callable[[Painter], torch.Tensor]:
            return lambda painter: painter.paint(_reduced(request, share), wanted, unwanted, ask, tell)

        smaller = (
            _Rung(paint_at(share), "memory_smaller", f"the picture was painted at {share:.0%} of its size")
            for share in SMALLER
        )
        latents = self._do(units.PAINTERS[request.mode], _Rung(paint_at(1)), *smaller)
        picture = self._do(
            units.VAE,
            _Rung(lambda model: model.decode(latents)),
            _Rung(lambda model: model.decode(latents, tiled=True), "memory_tiled", "the picture was decoded in tiles"),
        )
        return _resized(picture, request.depth.shape, cv2.INTER_CUBIC)

    def enlarge(self, rgb: U8, check: Check, tell: Tell = untold) -> U8:
        """The picture four times as wide and high; `tell` is told of each tile."""
        ask = self._both(check)

        def in_tiles(tile_px: int | None) -> Callable[[Upscaler], U8]:
            return lambda upscaler: upscaler.enlarge(rgb, ask, tile_px, tell)

        tiled = (
            _Rung(in_tiles(tile_px), "memory_tiled", f"the picture was enlarged in tiles of {tile_px} px")
            for tile_px in TILES_PX
        )
        return self._do(units.UPSCALER, _Rung(in_tiles(None)), *tiled)

    def quantise(self, rgb: U8, costs_of: Callable[[U8], F32]) -> tuple[I32, F32, U8]:
        """Each pixel's colour cell, what cells cost, and each pixel's nearest ink; see `models.quantise`."""
        found: tuple[I32, F32, U8] = self._do(
            units.QUANTISER,
            _Rung(lambda model: model.quantise(rgb, costs_of)),
            _Rung(
                lambda model: model.quantise(rgb, costs_of, on_cpu=True),
                "memory_cpu",
                "the CPU found each pixel's nearest ink, which are the same",
            ),
        )
        return found

    def forget(self) -> None:
        """Drop what a model keeps of a picture for the next question about it."""
        self.worker.forget()

    def timeline(self) -> Timeline:
        """What this job waited for until its models were there. To be asked once, at its end."""
        return Timeline(self.spent, self.worker.take_imported_s(), self.first_s)

    def vram_peak_mb(self) -> float | None:
        """The most GPU memory that the worker had taken at one moment of this job, in MiB; None on a CPU.

        Weights, recordings and what torch keeps for the next tensor are part of it.
        """
        return self.worker.do(self._peak_mb)

    def _peak_mb(self) -> float | None:
        if self.worker.residents().device.kind == "cpu":
            return None
        import torch  # noqa: PLC0415

        return float(torch.cuda.max_memory_reserved()) / MIB

    def _both(self, check: Check) -> Check:
        def ask() -> None:
            if self.worker.thread.abandoned:
                raise Cancelled("the job was cancelled")
            self.outer_check()
            check()

        return ask

    def _do(self, unit: Unit[R], *rungs: _Rung[R, T]) -> T:
        return self.worker.do(lambda: self._descend(unit, rungs))

    def _descend(self, unit: Unit[R], rungs: tuple[_Rung[R, T], ...]) -> T:
        """The value of the first way that memory allows, after what each lets go."""
        residents = self.worker.residents()
        first, *lesser = rungs
        freed = _Rung(first.work, "memory_freed", "what was cached was freed")
        alone = _Rung(first.work)
        gone: tuple[str, ...] = ()
        for rung in (first, freed, alone, *lesser):
            if rung is not first:
                residents.drop_graphs()
                release_memory(residents.device)
            if rung is alone:
                gone = residents.evict_others(unit)
                if not gone:
                    continue  # nothing is different from the rung before
            done = self._attempt(residents, unit, rung)
            if done is not None:
                self._warn(unit, rung, gone)
                return done.value
        raise OutOfMemory(f"the {unit.name} does not fit into this worker's memory")

    def _warn(self, unit: Unit[R], rung: _Rung[R, T], gone: tuple[str, ...]) -> None:
        """Say what was given up for `unit`: the models that left, and by the way that memory allowed."""
        ran_out = f"memory ran out in the {unit.name}"
        if gone:
            left = f"{', '.join(gone)} left memory and load again when next needed"
            self.warnings.append(Warning("memory_evicted", f"{ran_out}: {left}"))
        if rung.code:
            self.warnings.append(Warning(rung.code, f"{ran_out}: {rung.how}"))

    def _attempt(self, residents: Residents, unit: Unit[R], rung: _Rung[R, T]) -> _Done[T] | None:
        """What the work gives; None where memory ran out.

        The error is let go before this returns: it holds the frames, and they the tensors, that memory is wanted for.
        """
        import torch  # noqa: PLC0415

        watch = Watch(self._both(unchecked), lambda name: self.outer_tell(f"loading {name}", 0.0), self._loaded)
        try:
            with torch.inference_mode():
                value = rung.work(residents.get(unit, watch))
            self.models |= residents.revisions(unit)
            if self.first_s is None:
                self.first_s = time.perf_counter() - self.began_s
            return _Done(value)
        except (RuntimeError, MemoryError, cv2.error) as error:
            if fault_of(error) != "memory":
                raise
        return None

    def _loaded(self, name: str, spent: Spent) -> None:
        self.spent += spent
        self.loads[name] = round(self.loads.get(name, 0.0) + spent.total_s * 1000, 1)
