"""What is measured, in order of worth, what each step of it takes, and what of it fits into the time that is left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from benchmarks.studio.optimisations import Optimisation, of_mode
from models.registry import MODES, Mode

Part = Literal["fast", "networks", "faithful"]
PARTS: tuple[Part, ...] = get_args(Part)
"""Processes of the benchmark, in the order that they run."""

WITHIN_S = 570.0
"""Ten minutes, less what a machine takes to begin and to hand over."""

PREPARED_S = 135.0
"""Compiling the kernels on one core while 17 GB of weights are written, which takes about 90 s on a local disk."""

_FEWEST = 2  # runs that all steps fall to before any is left out


@dataclass(frozen=True, slots=True)
class Step:
    """What is measured or left out as one.

    Attributes:
        name: for what was left out.
        part: the process that does it.
        once_s: what it takes on an H100 at the published sizes, whatever the number of runs; estimated.
        run_s: what each run adds to that.
        share: of the runs that are asked for, how many it makes; long work is steady and needs fewer.
    """

    name: str
    part: Part
    once_s: float
    run_s: float
    share: float = 1.0

    def runs(self, asked: int) -> int:
        """How many it makes."""
        return max(1, round(asked * self.share))

    def expected_s(self, asked: int) -> float:
        """What it takes on an H100."""
        return self.once_s + self.run_s * self.runs(asked)


NETWORKS: Mapping[str, tuple[float, float]] = {
    "detect, GroundingDINO": (5.0, 0.3),
    "segment, SAM encoder": (5.0, 0.4),
    "depth, depth network": (2.0, 0.1),
    "LaMa": (2.0, 0.1),
    "RRDBNet": (3.0, 0.2),
    "matte, depth, Canny": (1.0, 0.1),
    "Canny": (0.5, 0.05),
    "quantise": (1.0, 0.1),
    "phase 3 inking and phase 4, smaller map": (1.0, 0.8),
    "phase 3 inking and phase 4, larger map": (2.0, 2.0),
}
"""The steps of the networks alone: seconds that each takes once, its network's loading with it, and in a run."""

_BEGUN: Mapping[Part, Step] = {
    "fast": Step("start fast", "fast", 30.0, 0.0),
    "networks": Step("start networks", "networks", 12.0, 0.0),
    "faithful": Step("start faithful", "faithful", 35.0, 0.0),
}
"""A process of its own: imports, the device's floor, and of a mode the first two jobs."""


def steps_of(modes: Sequence[Mode], only: str) -> tuple[Step, ...]:
    """All steps in order of worth: the fast mode, the networks alone, the faithful mode, what each optimisation is
    worth, the libraries' own pipelines.

    Args:
        modes: that are measured.
        only: what the name of a network's step must contain; `none`: no networks.
    """
    alone = () if only == "none" else _network_steps(only)
    rows = {"fast": _mode_steps("fast", 0.35, 1.5, 3.7), "networks": alone, "faithful": _faithful_steps()}
    chosen = [step for part in PARTS if part == "networks" or part in modes for step in rows[part]]
    taken_s: dict[Mode, tuple[float, float]] = {"fast": (4.0, 0.4), "faithful": (6.0, 4.0)}
    both_s: dict[Mode, tuple[float, float]] = {"fast": (8.0, 0.8), "faithful": (25.0, 8.0)}
    ordered = [mode for mode in MODES if mode in modes]
    for mode in ordered:
        chosen += [_painting(name, mode, *taken_s[mode]) for name in painting_names(mode)]
    return (*chosen, *(_painting(plain_name(mode), mode, *both_s[mode]) for mode in ordered))


def painting_names(mode: Mode) -> Iterator[str]:
    """Of the rows that show what optimisations are worth."""
    yield all_on_name(mode)
    yield all_off_name(mode)
    yield from (alone_name(mode, one) for one in of_mode(mode))


def all_on_name(mode: Mode) -> str:
    """Of the row that others are compared with."""
    return f"paint {mode}"


def all_off_name(mode: Mode) -> str:
    """Of the row without any optimisation."""
    return f"paint {mode}, all off"


def alone_name(mode: Mode, one: Optimisation) -> str:
    """Of the row that differs in one optimisation."""
    return f"paint {mode}, {'with' if one.offered else 'without'} {one.name}"


def plain_name(mode: Mode) -> str:
    """Of the row of diffusers' own pipeline."""
    return f"paint {mode}, plain diffusers"


def _painting(name: str, mode: Mode, once_s: float, run_s: float) -> Step:
    return Step(name, mode, once_s, run_s, 1.0 if mode == "fast" else 0.6)


def _network_steps(only: str) -> tuple[Step, ...]:
    found = [Step(name, "networks", *seconds) for name, seconds in NETWORKS.items() if only in name]
    return (_BEGUN["networks"], *found) if found else ()


def _mode_steps(mode: Mode, core_s: float, smaller_s: float, larger_s: float) -> tuple[Step, ...]:
    return (
        _BEGUN[mode],
        Step(f"core {mode}", mode, 10.0, core_s),
        Step(f"networks of {mode}", mode, 2.0, 3 * core_s),
        Step(f"jobs {mode}, smaller map", mode, 1.0, smaller_s),
        Step(f"jobs {mode}, larger map", mode, 1.0, larger_s),
    )


def _faithful_steps() -> tuple[Step, ...]:
    begun, core, networks, *jobs = _mode_steps("faithful", 3.0, 4.0, 6.5)
    # A run has thirty steps, each of which is timed: one run of each of the four networks is enough.
    return (begun, core, Step(networks.name, "faithful", 2.0, 4 * 4.0, 0.2), *jobs)


@dataclass(frozen=True, slots=True)
class Plan:
    """What fits.

    Attributes:
        asked: runs of each step, of which a step makes its share.
        names: of the steps that fit.
    """

    asked: int
    names: frozenset[str]


def planned(steps: Sequence[Step], left_s: float, asked: int, pace: float) -> Plan:
    """As many runs as fit, at most as asked; where two of each don't, the steps of most worth alone.

    Args:
        steps: that are still to do, in order of worth.
        left_s: until all must be done.
        asked: runs at most.
        pace: how many times as long as expected a step takes here.
    """
    for runs in range(asked, min(asked, _FEWEST) - 1, -1):
        if sum(step.expected_s(runs) for step in steps) * pace <= left_s:
            return Plan(runs, frozenset(step.name for step in steps))
    names: list[str] = []
    fewest = min(asked, _FEWEST)
    for step in steps:
        left_s -= step.expected_s(fewest) * pace
        if left_s < 0:
            break
        names.append(step.name)
    return Plan(fewest, frozenset(names))
