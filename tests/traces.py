"""Traces of operators in place of CUDA graphs, for tests on a CPU.

Like a CUDA graph, a trace runs no Python, reads its inputs and the weights where they lay, and knows nothing of what
else has changed since.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from models.graphs import Graphs

_FROM_HOST = ("lift_fresh", "_local_scalar_dense", "nonzero")
"""Operators that bring numbers from the host or wait for the device, neither of which CUDA lets a recording do."""

_ELSEWHERE = "meta"
"""The device of what is made without naming one. Beside a GPU that would be the host, whose tensors a recording can't
take; on a CPU nobody would notice."""


class Traces:
    """Records the operators that a call runs.

    Attributes:
        fault: raised by the next recordings.
    """

    def __init__(self) -> None:
        self.fault: BaseException | None = None

    def warm(self, function: Callable[..., Any], inputs: tuple[Any, ...]) -> Any:
        """See `models.graphs.Recorder`."""
        return function(*inputs)

    def record(self, function: Callable[..., Any], inputs: tuple[Any, ...]) -> tuple[Callable[[], object], Any]:
        """See `models.graphs.Recorder`."""
        if self.fault is not None:
            raise self.fault

        def call(*given: Any) -> Any:  # make_fx would count a method's own object among the inputs
            return function(*given)

        with torch.device(_ELSEWHERE):
            traced = make_fx(call)(*inputs)
        assert not [node for node in traced.graph.nodes if _is_of_host(node)], "something comes from the host"
        output = torch.empty_like(traced(*inputs))
        return lambda: output.copy_(traced(*inputs)), output


def _is_of_host(node: Any) -> bool:
    return any(name in str(node.target) for name in _FROM_HOST) or str(node.kwargs.get("device")) == _ELSEWHERE


def recording(model: Any) -> Any:
    """The model, with its calls recorded as traces from now on."""
    model.graphs = Graphs(Traces())
    return model


def counts(graphs: Graphs) -> tuple[int, int, int]:
    """How often a call was recorded, replayed and refused."""
    return graphs.recorded, graphs.replayed, graphs.refused
