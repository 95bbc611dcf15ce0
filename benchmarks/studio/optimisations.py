"""What the studio engine's painting gains its speed by, and how to do without each."""

# ruff: noqa: PLC0415 - torch is heavy, and only the processes that measure need it

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any

from models.device import Device
from models.projections import fuse_projections, split_projections
from models.registry import MODES, Mode
from models.requests import PaintRequest

_NUMBERS = count()


@dataclass(frozen=True, slots=True)
class Optimisation:
    """One of them. What takes a painter (`models.sdxl`) is for the torch thread only.

    Attributes:
        name: after "without", or where it is `offered` after "with".
        modes: that it means something in.
        without: while what it gives is open, a painter does without.
        asked: the request that does without; where it is `offered`, the one that asks for it.
        absent: why a painter on a device hasn't got it; None where it has.
        offered: whether it is there for callers to ask for, and the defaults do without.
        in_modules: whether it changes what compiled kernels were made from, so that without it they can't run either.
    """

    name: str
    modes: tuple[Mode, ...] = MODES
    without: Callable[[Any], AbstractContextManager[None]] = lambda _painter: nullcontext()
    asked: Callable[[PaintRequest], PaintRequest] = lambda request: request
    absent: Callable[[Any, Device], str | None] = lambda _painter, _device: None
    offered: bool = False
    in_modules: bool = False


@contextmanager
def unrecorded(painter: Any) -> Iterator[None]:
    """While it is open, every call of a network is one from Python."""
    painter.graphs.enabled = False
    painter.graphs.drop()
    try:
        yield
    finally:
        painter.graphs.enabled = True


@contextmanager
def uncompiled(painter: Any) -> Iterator[None]:
    """While it is open, the networks run as diffusers wrote them."""
    shapes, painter.regions.shapes = painter.regions.shapes, frozenset()
    painter.graphs.drop()
    try:
        yield
    finally:
        painter.regions.shapes = shapes
        painter.graphs.drop()


@contextmanager
def laid_out(painter: Any, now: str, then: str) -> Iterator[None]:
    """While it is open, the kernels of its convolutions lie in torch's memory format `now`; after that in `then`."""
    import torch

    def lay(layout: str) -> None:
        for network in painter.networks:
            network.to(memory_format=getattr(torch, layout))
        painter.graphs.drop()  # recordings read the weights where they lay before

    lay(now)
    try:
        yield
    finally:
        lay(then)


@contextmanager
def _split(painter: Any) -> Iterator[None]:
    """While it is open, attention projects by each of its weights."""
    for network in painter.networks:
        split_projections(network)
    painter.graphs.drop()
    try:
        yield
    finally:
        for network in painter.networks:
            fuse_projections(network)
        painter.graphs.drop()


def _fresh_prompts(request: PaintRequest) -> PaintRequest:
    """With prompts that were not encoded before."""
    number = next(_NUMBERS)
    return replace(request, prompt=f"{number} {request.prompt}", negative_prompt=f"{number} {request.negative_prompt}")


COMPILED = Optimisation(
    "compiled blocks",
    without=uncompiled,
    absent=lambda painter, _: None if painter.regions.shapes else "the volume holds no compiled kernels for this GPU",
)
OPTIMISATIONS: tuple[Optimisation, ...] = (
    Optimisation(
        "CUDA graphs",
        without=unrecorded,
        absent=lambda _, device: "nothing is recorded on a CPU" if device.kind == "cpu" else None,
    ),
    COMPILED,
    Optimisation("fused projections", without=_split, in_modules=True),
    Optimisation(
        "channels last",
        without=partial(laid_out, now="contiguous_format", then="channels_last"),
        absent=lambda _, device: None if device.channels_last else "on this device channels come first",
        in_modules=True,
    ),
    Optimisation("prompts that are kept", asked=_fresh_prompts),
    Optimisation("Canny's end", modes=("faithful",), asked=lambda request: replace(request, canny_until=1.0)),
    Optimisation(
        "guidance to half the steps",
        modes=("faithful",),
        asked=lambda request: replace(request, guidance_until=0.5),
        offered=True,
    ),
)
"""All of them, `COMPILED` before those that it depends on; SDPA is torch's own choice in every row."""


def of_mode(mode: Mode) -> tuple[Optimisation, ...]:
    """Those that mean something in a mode."""
    return tuple(one for one in OPTIMISATIONS if mode in one.modes)


def present(mode: Mode, painter: Any, device: Device) -> tuple[Optimisation, ...]:
    """Those that a mode's painter has on a device without being asked."""
    return tuple(one for one in of_mode(mode) if not one.offered and one.absent(painter, device) is None)
