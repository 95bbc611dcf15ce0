"""Functions of tensors as CUDA graphs: all kernels of a call are launched at once instead of one by one from Python.

A denoising step is some 4,000 kernels, and a fast GPU computes them quicker than Python asks for them. A graph is the
same kernels on the same numbers, so a replay gives the same bits as a plain call. The first call with some shapes is a
plain one, the second is recorded, those after it are replayed: no job waits for what only the next ones gain by.
"""

# ruff: noqa: PLC0415 - torch is heavy, and only studio workers have it

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from models.device import Device
from models.faults import fault_of

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Function = Callable[..., "torch.Tensor"]
"""Of tensors, to one tensor. What it does must not depend on anything else that changes."""

MOST = 12
"""Recordings that one model keeps; the least recently used goes first. Each holds its inputs and its result."""


class Recorder(Protocol):
    """How calls become recordings."""

    def warm(self, function: Function, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """A plain call, in the surroundings that the recording will have."""

    def record(self, function: Function, inputs: tuple[torch.Tensor, ...]) -> tuple[Callable[[], object], torch.Tensor]:
        """What computes the function again from `inputs` as they are by then, and the tensor that it writes to."""


@dataclass(frozen=True, slots=True)
class _Recording:
    inputs: tuple[torch.Tensor, ...]
    replay: Callable[[], object]
    output: torch.Tensor

    def __call__(self, given: tuple[torch.Tensor, ...]) -> torch.Tensor:
        for own, new in zip(self.inputs, given, strict=True):
            own.copy_(new)
        self.replay()
        return self.output.clone()


class Graphs:
    """The recordings of one model.

    Args:
        recorder: None where calls are always plain.

    Attributes:
        enabled: whether recordings are made and used.
        recorded, replayed, refused: how often; refused are calls that could not be recorded, and stay plain.
    """

    def __init__(self, recorder: Recorder | None) -> None:
        self.enabled = True
        self.recorded = self.replayed = self.refused = 0
        self._recorder = recorder
        self._kept: OrderedDict[Hashable, _Recording | None] = OrderedDict()  # None: seen once
        self._plain: set[Hashable] = set()

    def run(self, name: Hashable, function: Function, *inputs: torch.Tensor) -> torch.Tensor:
        """`function(*inputs)`, the same bits however it is computed.

        Args:
            name: of the function: two that compute differently have different names.
            function: see `Function`. Weights that it reads may change in place.
            inputs: on the recorder's device.

        Raises:
            RuntimeError: as the function does.
        """
        recorder = self._recorder
        key = (name, *((tensor.shape, tensor.dtype) for tensor in inputs))
        if recorder is None or not self.enabled or key in self._plain:
            return function(*inputs)
        if key not in self._kept:
            self._keep(key, None)
            return recorder.warm(function, inputs)
        recording = self._kept[key]
        if recording is None:
            recording = self._record(recorder, function, inputs)
            if recording is None:
                self._plain.add(key)
                del self._kept[key]
                return function(*inputs)
        self._keep(key, recording)
        self.replayed += 1
        return recording(inputs)

    def drop(self) -> None:
        """Let all recordings go, and the memory that they hold."""
        self._kept.clear()
        self._plain.clear()

    def _keep(self, key: Hashable, recording: _Recording | None) -> None:
        self._kept[key] = recording
        self._kept.move_to_end(key)
        if len(self._kept) > MOST:
            self._kept.popitem(last=False)

    def _record(self, recorder: Recorder, function: Function, inputs: tuple[torch.Tensor, ...]) -> _Recording | None:
        """None where it can't be recorded, which costs time and nothing else."""
        own = tuple(tensor.clone() for tensor in inputs)
        try:
            replay, output = recorder.record(function, own)
        except RuntimeError as error:
            if fault_of(error) == "lost":
                raise
            self.refused += 1
            log.warning("a network is not recorded as a graph and stays slower: %s", error)
            return None
        self.recorded += 1
        return _Recording(own, replay, output)


def graphs_for(device: Device) -> Graphs:
    """Recordings of a model on `device`: none on a CPU."""
    return Graphs(_cuda_recorder() if device.place().type == "cuda" else None)


@cache
def _cuda_recorder() -> Recorder:
    """One for the process: all recordings share one pool of memory, which only one replay at a time uses."""
    return CudaRecorder()


class CudaRecorder:
    """Records on a stream of its own, as CUDA asks for. For the torch thread only."""

    def __init__(self) -> None:
        import torch

        self._stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def warm(self, function: Function, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """See `Recorder`: what libraries set up with their first call on a stream can't be recorded."""
        import torch

        now = torch.cuda.current_stream()
        self._stream.wait_stream(now)
        with torch.cuda.stream(self._stream):
            output = function(*inputs)
        now.wait_stream(self._stream)
        output.record_stream(now)
        return output

    def record(self, function: Function, inputs: tuple[torch.Tensor, ...]) -> tuple[Callable[[], object], torch.Tensor]:
        """See `Recorder`."""
        import torch

        graph = torch.cuda.CUDAGraph()
        # Other threads read weights meanwhile, and may ask CUDA for what a recording thread must not.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            output = function(*inputs)
        return graph.replay, output
