"""Rows of the painting without its decoding: what each optimisation is worth, and diffusers' own pipelines beside it.

The pipelines are made of the modules that are resident, so both have the same weights; and both get the same prompts,
first noise, scheduler and steps, and are timed in turns. For the pipeline, each optimisation that the modules carry is
taken away.

Their latents must be equal within a tolerance, in the norm of the difference as a share of the norm: `SINGLE_L2` in
float32. In half precision it is `TIMES_NOISE` times what the pipeline differs from itself by when its first noise moves
by up to one unit in the last place and its kernels lie in another layout, so that other roundings happen in every
layer; but at most `MOST_L2`. The pipeline keeps its latents in half precision from step to step, Livery in float32.
"""

# ruff: noqa: PLC0415 - torch is heavy, and only the processes that measure need it

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeVar

from benchmarks.clock import Clock, Row
from benchmarks.studio.bench import ONCE, Bench
from benchmarks.studio.least import TFLOP, Least
from benchmarks.studio.optimisations import COMPILED, Optimisation, laid_out, present
from benchmarks.studio.plain import Plain, plain_pipeline
from benchmarks.studio.plan import all_off_name, all_on_name, alone_name, plain_name
from models import units
from models.requests import PaintRequest, unchecked
from models.sdxl import is_guided

T = TypeVar("T")

SINGLE_L2 = 1e-5
TIMES_NOISE = 4.0
MOST_L2 = 0.1

_OURS, _THEIRS = "ours", "theirs"
_ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Difference:
    """Between two tensors of latents.

    Attributes:
        largest: of the values' differences.
        l2: the norm of the difference, as a share of the norm.
    """

    largest: float
    l2: float

    def facts(self) -> Row:
        """For a row."""
        return {name: float(f"{value:.3g}") for name, value in asdict(self).items()}


def difference(ours: Any, theirs: Any) -> Difference:
    """Of two tensors of one shape."""
    theirs = theirs.float()
    apart = ours.float() - theirs
    return Difference(float(apart.abs().max()), float(apart.norm() / theirs.norm()))


def tolerance_l2(dtype: str, noise_l2: float) -> float:
    """The most that latents may differ by; see the module."""
    return SINGLE_L2 if dtype == "float32" else min(TIMES_NOISE * noise_l2, MOST_L2)


@dataclass(frozen=True, slots=True)
class _Usual:
    """A painting that others are compared with: its median in seconds, and its latents."""

    p50_s: float
    latents: Any


class Comparison:
    """The rows of one mode.

    Args:
        bench: where its painter is resident.
        request: what is painted.
    """

    def __init__(self, bench: Bench, request: PaintRequest) -> None:
        self._worker = bench.worker
        self._request = request
        self._least = Least(TFLOP[f"core {request.mode}"] - TFLOP["VAE decoder"])
        self._usual: _Usual | None = None  # with every optimisation
        self._uncompiled: _Usual | None = None  # the same but for compiled blocks

    def all_on(self, bench: Bench) -> Iterator[Row]:
        """The row that the others are compared with."""
        row, latents = self._painted(bench, all_on_name(self._request.mode), lambda: self._request)
        self._usual = _Usual(row["p50_s"], latents)
        yield row

    def alone(self, bench: Bench, one: Optimisation) -> Iterator[Row]:
        """The row without one optimisation; of one that is offered, with it.

        What compiled kernels were made from can't be taken from them: it is compared with what lacks them too.
        """
        also = [COMPILED] if one.in_modules and COMPILED in self._present() else []
        usual = self._uncompiled if also else self._usual
        with self._without([*also, one]):
            row, latents = self._painted(bench, alone_name(self._request.mode, one), lambda: one.asked(self._request))
        found = _Usual(row["p50_s"], latents)
        if one is COMPILED:
            self._uncompiled = found
        same = one.asked(self._request) == self._request
        yield {**row, "also_off": [other.name for other in also], **_gain(one.name, found, usual, one.offered, same)}

    def all_off(self, bench: Bench) -> Iterator[Row]:
        """The row without any."""
        every = self._present()

        def asked() -> PaintRequest:
            request = self._request
            for one in every:
                request = one.asked(request)
            return request

        with self._without(every):
            row, latents = self._painted(bench, all_off_name(self._request.mode), asked)
        names = ", ".join(one.name for one in every)
        yield {**row, **_gain(names, _Usual(row["p50_s"], latents), self._usual, offered=False, same=False)}

    def plain(self, bench: Bench) -> Iterator[Row]:
        """The row of diffusers' pipeline, timed in turns with ours."""
        mode, device = self._request.mode, self._worker.device
        undone = self._present()
        clock, studio = Clock(), self._worker.job(unchecked)
        pipeline = self._do(lambda: plain_pipeline(self._worker, mode))
        each = math.ceil(bench.runs / _ROUNDS)
        for _ in range(_ROUNDS):
            ours = self._timed(clock, _OURS, each, lambda: self._request)
            with self._without(undone):
                theirs = self._timed_plain(clock, each, pipeline)
        with self._without(undone):
            noise = difference(self._moved(pipeline), theirs)
        row = bench.row(plain_name(mode), clock.seconds[_THEIRS], self._least, studio)
        apart, most = difference(ours, theirs), tolerance_l2(device.half, noise.l2)
        ours_s = clock.row((_OURS,))
        yield {
            **row,
            "steps": self._request.steps,
            "ours_p50_s": ours_s["p50_s"],
            "ours_p95_s": ours_s["p95_s"],
            "speedup": round(row["p50_s"] / ours_s["p50_s"], 3),
            **apart.facts(),
            "noise_l2": noise.facts()["l2"],
            "tolerance_l2": float(f"{most:.3g}"),
            "equal": apart.l2 <= most,
            "undone": [one.name for one in undone],
        }

    def _painted(self, bench: Bench, name: str, asked: Callable[[], PaintRequest]) -> tuple[Row, Any]:
        """A row of requests, and the last one's latents."""
        clock, studio = Clock(), self._worker.job(unchecked)
        before = self._do(self._recorded)
        latents = self._timed(clock, name, bench.runs, asked)
        after = self._do(self._recorded)
        graphs = {what: after[what] - before[what] for what in after}
        row = bench.row(name, clock.seconds[name], self._least, studio, steps=self._request.steps, graphs=graphs)
        return row, latents

    def _timed(self, clock: Clock, name: str, runs: int, asked: Callable[[], PaintRequest]) -> Any:
        """The last latents of some timed runs, after one that is not timed: it records what can be recorded."""
        for run in range(1 + runs):
            work = partial(self._paint, asked())
            latents = self._do(partial(clock.time, ONCE if run == 0 else name, work))
        return latents

    def _timed_plain(self, clock: Clock, runs: int, pipeline: Plain) -> Any:
        for run in range(1 + runs):
            work = partial(pipeline.paint, self._request)
            latents = self._do(partial(clock.time, ONCE if run == 0 else _THEIRS, work))
        return latents

    def _paint(self, request: PaintRequest) -> Any:
        """The latents, once they are computed: the painter looks whether they are finite."""
        residents = self._worker.residents()
        encoder = residents.get(units.PROMPT)
        wanted = encoder.encode(request.prompt, request.lora_scale)
        unwanted = encoder.encode(request.negative_prompt, request.lora_scale) if is_guided(request) else None
        return residents.get(units.PAINTERS[request.mode]).paint(request, wanted, unwanted, unchecked)

    def _moved(self, pipeline: Plain) -> Any:
        """What the pipeline makes of another first noise, by its last bits, in the other layout."""

        def moved() -> Any:
            with laid_out(self._painter(), now="channels_last", then="contiguous_format"):
                return pipeline.paint(self._request, moved=True)

        return self._do(moved)

    @contextmanager
    def _without(self, taken: Sequence[Optimisation]) -> Iterator[None]:
        """While it is open, the painter lacks some optimisations."""
        undone = ExitStack()

        def take() -> None:
            for one in taken:
                undone.enter_context(one.without(self._painter()))

        try:
            self._do(take)
            yield
        finally:
            self._do(undone.close)

    def _present(self) -> tuple[Optimisation, ...]:
        device = self._worker.device
        return self._do(lambda: present(self._request.mode, self._painter(), device))

    def _do(self, work: Callable[[], T]) -> T:
        """Do work on the torch thread, in the mode that the weights were loaded in."""

        def inferring() -> T:
            import torch

            with torch.inference_mode():
                return work()

        return self._worker.do(inferring)

    def _painter(self) -> Any:
        return self._worker.residents().get(units.PAINTERS[self._request.mode])

    def _recorded(self) -> dict[str, int]:
        graphs = self._painter().graphs
        return {what: getattr(graphs, what) for what in ("recorded", "replayed", "refused")}


def _gain(name: str, found: _Usual, usual: _Usual | None, offered: bool, same: bool) -> Row:
    """What an optimisation is worth; and where the picture should be the same one, how far it is from that."""
    if usual is None:
        return {"optimisation": name, "with_s": None, "without_s": None, "speedup": None}
    having, lacking = (found, usual) if offered else (usual, found)
    return {
        "optimisation": name,
        "with_s": having.p50_s,
        "without_s": lacking.p50_s,
        "speedup": round(lacking.p50_s / having.p50_s, 3),
        **(difference(found.latents, usual.latents).facts() if same else {}),
    }
