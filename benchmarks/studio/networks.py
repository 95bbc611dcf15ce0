"""Rows of each network alone, of what phase 2 sees by them, of the first inks, and of phases 3 and 4 on flat art."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import numpy as np

from benchmarks.clock import Clock, Row
from benchmarks.studio.bench import ONCE, Bench
from benchmarks.studio.least import NOT_COUNTED, TFLOP, Least
from benchmarks.studio.sound import check_networks, watched
from benchmarks.studio.stopwatch import Stopwatch
from benchmarks.studio.subject import VEHICLE, Subject, placed
from models import units
from models.loader import Unit
from models.requests import unchecked
from pipeline.canny import canny_edges
from pipeline.costs import colour_costs, shade_lenience
from pipeline.enforce import EnforceOptions, enforce
from pipeline.palette import DEFAULT_PALETTE
from pipeline.types import U8, Illustration
from pipeline.vectorize import VectorizeOptions, vectorize
from pipeline.vehicle import PHRASES

Work = Callable[[Any], object]
SEEN = "matte, depth, Canny"
_EXAMINED_PX = 128  # side of the piece of art that the upscaler is examined on
_QUANTISED_BYTES = 8  # for each pixel: three read, a row of the costs and an ink written


@dataclass(frozen=True, slots=True)
class Stage:
    """One unit's work as a phase asks for it.

    Attributes:
        name: of its row.
        unit: that does it.
        work: of one job's view.
        least: what it takes at least.
        layer: name of a further row, of the network alone; empty for none.
        of: the module of torch that the further row times, among the unit's networks.
        examined: what is run while every layer is watched; None: `work`.
    """

    name: str
    unit: Unit[Any]
    work: Work
    least: Least
    layer: str = ""
    of: Callable[[tuple[Any, ...]], Any] = lambda networks: networks[0]
    examined: Work | None = None

    @property
    def step(self) -> str:
        """Name of the benchmark's step that makes both rows."""
        return ", ".join(name for name in (self.name, self.layer) if name)


def network_works(subject: Subject) -> Mapping[str, Callable[[Bench], Iterator[Row]]]:
    """The rows of each step of `benchmarks.studio.plan.NETWORKS`, by its name."""
    art = subject.art_whole
    moved = Least(gigabytes=_QUANTISED_BYTES * art[..., 0].size / 1e9)
    plain: dict[str, tuple[Work, Least]] = {
        SEEN: (_seeing(subject), Least(TFLOP["SAM encoder"] + TFLOP["depth"])),
        "Canny": (lambda _: canny_edges(subject.rgb), NOT_COUNTED),
        "quantise": (_quantising(art), moved),
    }
    works = {stage.step: partial(_stage_rows, stage=stage) for stage in _stages(subject)}
    works |= {name: partial(_plain_rows, name=name, work=work, least=least) for name, (work, least) in plain.items()}
    sizes = {"smaller": subject.art_twice, "larger": art}
    inkings = {f"phase 3 inking and phase 4, {size} map": partial(_inking_rows, art=of) for size, of in sizes.items()}
    return {**works, **inkings}


def _stages(subject: Subject) -> tuple[Stage, ...]:
    fresh = _changing(subject.rgb)
    small = subject.art[:_EXAMINED_PX, :_EXAMINED_PX]
    return (
        Stage(
            "detect",
            units.DETECTOR,
            lambda studio: studio.detect(subject.wide, PHRASES, 0.35, 0.25),
            Least(TFLOP["GroundingDINO"]),
            "GroundingDINO",
        ),
        Stage(
            "segment",
            units.SEGMENTER,
            lambda studio: studio.segment(fresh(), subject.boxes),
            Least(TFLOP["SAM encoder"]),
            "SAM encoder",
            lambda networks: networks[0].vision_encoder,
        ),
        Stage(
            "depth",
            units.DEPTH,
            lambda studio: studio.depth(subject.rgb),
            Least(TFLOP["depth"]),
            "depth network",
        ),
        Stage(
            "LaMa",
            units.INPAINTER,
            lambda studio: studio.inpaint(subject.rgb, subject.hole, unchecked),
            Least(TFLOP["LaMa"]),
        ),
        Stage(
            "RRDBNet",
            units.UPSCALER,
            lambda studio: studio.enlarge(subject.art, unchecked),
            Least(TFLOP["RRDBNet"]),
            examined=lambda studio: studio.enlarge(small, unchecked),
        ),
    )


def _stage_rows(bench: Bench, stage: Stage) -> Iterator[Row]:
    networks = bench.networks(stage.unit)
    parameters_m = check_networks(stage.unit.name, networks, full_size=bench.full_size)
    with bench.plainly(stage.unit), watched(stage.unit.name, networks):
        (stage.examined if stage.examined is not None else stage.work)(bench.worker.job(unchecked))
    yield {**bench.stage(stage.name, stage.work, stage.least), "parameters_m": parameters_m}
    if stage.layer:
        with bench.plainly(stage.unit):
            yield from layer_rows(bench, stage.work, {stage.layer: (stage.of(networks), stage.least)})


def _plain_rows(bench: Bench, name: str, work: Work, least: Least) -> Iterator[Row]:
    yield bench.stage(name, work, least)


def layer_rows(bench: Bench, work: Work, layers: dict[str, tuple[Any, Least]]) -> Iterator[Row]:
    """A row for each of some layers: of every call that they take while the work runs.

    Args:
        bench: where it runs.
        work: of one job's view; everything that it needs is loaded.
        layers: by the row's name, a module of torch and what one call takes at least.
    """
    studio, watches = bench.worker.job(unchecked), {name: Stopwatch() for name in layers}
    for name, (layer, _) in layers.items():
        with watches[name].on(layer):
            for _ in range(bench.runs):
                work(studio)
    for name, (_, least) in layers.items():
        yield bench.row(name, watches[name].seconds, least, studio)


def _seeing(subject: Subject) -> Work:
    """What phase 2 asks of a picture beside the painting: the vehicle's matte, its depth and its edges."""
    fresh, box = _changing(subject.rgb), placed(VEHICLE, subject.rgb)

    def see(studio: Any) -> None:
        rgb = fresh()
        studio.segment(rgb, [box])
        studio.depth(rgb)
        canny_edges(rgb)

    return see


def _quantising(art: U8) -> Work:
    lenience = shade_lenience(DEFAULT_PALETTE)
    return lambda studio: studio.quantise(art, lambda colours: colour_costs(colours, DEFAULT_PALETTE, lenience))


def _inking_rows(bench: Bench, art: U8) -> Iterator[Row]:
    """Phase 3 after its enlarging, and phase 4, on flat art of one size."""
    studio, clock = bench.worker.job(unchecked), Clock()
    quantise = studio.quantise if bench.worker.device.kind == "cuda" else None  # as `pipeline.picture` does
    whole = np.full(art.shape[:2], 255, np.uint8)
    illustration = Illustration(art, whole, whole, 1.0)
    for run in range(1 + bench.runs):
        names = (ONCE, ONCE) if run == 0 else ("phase 3 inking", "phase 4")
        index = clock.time(names[0], lambda: enforce(illustration, DEFAULT_PALETTE, EnforceOptions(), quantise))
        clock.time(names[1], partial(vectorize, index, VectorizeOptions()))
    for name in ("phase 3 inking", "phase 4"):
        yield bench.row(f"{name}, {art.shape[1]} px map", clock.seconds[name], NOT_COUNTED, studio)


def _changing(rgb: U8) -> Callable[[], U8]:
    """Gives the picture with another first pixel each time, so that nothing is taken that a model keeps of it."""
    turn = count()

    def fresh() -> U8:
        changed = rgb.copy()
        changed[0, 0, 0] = next(turn) % 256
        return changed

    return fresh
