"""Seconds of one layer's calls while the work around it runs as it always does."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from benchmarks.studio.sound import tensors_in


class Stopwatch:
    """Times each call of a module of torch; the device is waited for before and after.

    Attributes:
        seconds: of the calls, in their order.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began_s = 0.0

    @contextmanager
    def on(self, layer: Any) -> Iterator[None]:
        """Times `layer` while it is open."""
        with ExitStack() as hooks:
            hooks.callback(layer.register_forward_pre_hook(self._start, with_kwargs=True).remove)
            hooks.callback(layer.register_forward_hook(self._stop).remove)
            yield

    def _start(self, _: Any, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        _wait_for((given, named))
        self._began_s = time.perf_counter()

    def _stop(self, _: Any, __: Any, output: Any) -> None:
        _wait_for(output)
        self.seconds.append(time.perf_counter() - self._began_s)


def _wait_for(value: Any) -> None:
    """Reads one number, which has to wait until the device has computed it and all before it."""
    tensor = next(tensors_in(value), None)
    if tensor is not None:
        tensor[(0,) * tensor.dim()].item()
