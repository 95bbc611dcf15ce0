"""How Livery compiles its kernels, in one place.

Every number on the way from the photo to the labels is made by these kernels with the operations that IEEE 754 rounds
exactly (+ − × ÷ √) or with integers. Numba is held to its generic CPU target, without fused multiply-add and without
`fastmath`, so the labels are the same bytes on any machine, and the cache on disk survives a change of host. Kernels
release the GIL and take a range of rows; `by_rows` spreads them over threads, and since no kernel reduces across rows
the thread count can't change a result.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt
from numba.core import config


def _cache_folder() -> str:
    """A folder named by the kernels' sources: numba notices a change in a kernel's file, but not in one it calls."""
    house = Path(__file__).resolve().parent
    digest = hashlib.sha256(numba.__version__.encode())
    for source in sorted(house.rglob("*.py")):
        text = source.read_bytes()
        if source == Path(__file__).resolve() or b"from pipeline.compiled import" in text:
            digest.update(text)
    folder = house / "__pycache__" / f"kernels-{digest.hexdigest()[:12]}"
    if os.access(folder if folder.exists() else house, os.W_OK):
        return str(folder)
    return str(Path.home() / ".cache" / "livery" / folder.name)


# Numba reads these when it compiles its first function, so they are set beside the only decorators the house uses.
config.CPU_NAME = "generic"
config.CPU_FEATURES = ""
config.DISABLE_INTEL_SVML = 1
if not config.CACHE_DIR:
    config.CACHE_DIR = _cache_folder()

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

WATCH_S = 0.02
"""How often `watched` asks."""


def kernel(function: F) -> F:
    """Compile `function` on its first call, or load it from the cache on disk: no GIL, no fastmath, any CPU."""
    return numba.njit(nogil=True, cache=True, fastmath=False, error_model="numpy")(function)  # type: ignore[no-any-return]


def inlined(function: F) -> F:
    """A small function that only kernels call: compiled into them, so it needs no cache of its own.

    It gets no entry point for Python, which would take a fifth more of the compiler's time: never call it from there.
    """
    return numba.njit(  # type: ignore[no-any-return]
        nogil=True, fastmath=False, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
    )(function)


def thread_count() -> int:
    """Threads that `by_rows` uses: LIVERY_THREADS, else the processors this process may run on."""
    named = os.environ.get("LIVERY_THREADS", "")
    if named.isdigit() and int(named) > 0:
        return int(named)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="livery-rows")


def by_rows(run: Callable[[int, int], object], rows: int) -> None:
    """Call `run(first, last)` over bands that cover `range(rows)`, on `thread_count()` threads.

    The first exception of any band is raised. Bands write to disjoint rows of their output.
    """
    threads = min(thread_count(), max(rows, 1))
    if threads == 1:
        run(0, rows)
        return
    edges = [rows * i // threads for i in range(threads + 1)]
    for done in [_pool(threads).submit(run, a, b) for a, b in pairwise(edges)]:
        done.result()


def watched(jobs: Sequence[Callable[[], T]], watch: Callable[[], None], stop: npt.NDArray[np.uint8]) -> list[T]:
    """The results of `jobs`, run on `thread_count()` threads while this one calls `watch` every WATCH_S.

    Once `watch` or a job raises, stop[0] (uint8 [1]) is set for kernels that look at it, jobs not begun are dropped,
    those that run are waited for, and the exception goes on.
    """
    pool = _pool(thread_count())
    running = [pool.submit(job) for job in jobs]
    pending = set(running)
    try:
        while pending:
            watch()
            done, pending = wait(pending, timeout=WATCH_S, return_when=FIRST_EXCEPTION)
            for ended in done:
                ended.result()
    finally:
        stop[0] = bool(pending)
        for job in pending:
            job.cancel()
        wait(pending)
    return [job.result() for job in running]
