"""The one thread that all torch work is done on.

CUDA graphs, cuBLAS handles and the caching allocator are per thread or per stream: with one thread a job's memory is
what it would be alone, and two jobs never share the GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")


class TorchThread:
    """Runs work one after another. Started with the first work, ends with the process."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="livery-torch")
        self._abandoned = threading.Event()

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits any more for the work under way: its next check should end it."""
        return self._abandoned.is_set()

    def run(self, work: Callable[[], T]) -> T:
        """Do `work` and hand over what it returns or raises.

        Where the wait is broken off (Ctrl-C), the work is told by `abandoned`, and has ended when this returns: the
        next job never meets it on the GPU.
        """
        future = self._pool.submit(copy_context().run, work)
        try:
            return future.result()
        finally:
            if not future.cancel() and not future.done():  # what has not begun is not the others' work
                self._abandoned.set()
                wait([future])
                self._abandoned.clear()
