"""The libraries behind the models, imported on a thread of their own in the order that a job needs them.

PyTorch, transformers and diffusers take seconds to import, and a job that reads a volume has those seconds. Nobody else
imports them: whoever needs one waits for it here. So no two threads meet in a half-imported package, a wait can be
called off, and what an import raises comes out where its module is needed.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from importlib import import_module

from models.reading import result_of
from models.requests import Check, unchecked


class Imports:
    """Imports modules one after another. Its thread starts with the first of them and ends with the process."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="livery-imports")
        self._lock = threading.Lock()
        self._begun: dict[str, Future[None]] = {}
        self._spent_s = 0.0

    @property
    def spent_s(self) -> float:
        """What importing took since the process began, in seconds, whether or not anybody waited for it."""
        return self._spent_s

    def begin(self, names: Iterable[str]) -> None:
        """Import these modules, after those that were asked for before.

        Args:
            names: full names, in the order that they will be needed.
        """
        for name in names:
            self._import(name)

    def need(self, names: Iterable[str], ask: Check = unchecked) -> None:
        """Wait until these modules are imported.

        Args:
            names: full names, in the order to import those that nobody asked for before.
            ask: called while they are imported; what it raises ends the wait, not the import.

        Raises:
            ImportError: a module is not there, or lacks what it needs. What else its code raises comes out as well.
                Needed again, it is tried again.
        """
        wanted = tuple(names)
        self.begin(wanted)
        for name in wanted:
            self._wait(name, ask)

    def end(self) -> None:
        """Import no more than the module under way: Python waits for all that is left before it ends a process."""
        with self._lock:
            self._begun = {name: imported for name, imported in self._begun.items() if not imported.cancel()}

    def _wait(self, name: str, ask: Check) -> None:
        try:
            result_of(self._import(name), ask)
        except CancelledError:  # by the end of another job, which did not need it any more
            self._wait(name, ask)

    def _import(self, name: str) -> Future[None]:
        with self._lock:
            if name not in self._begun:
                self._begun[name] = self._pool.submit(self._timed, name)
            return self._begun[name]

    def _timed(self, name: str) -> None:
        began_s = time.perf_counter()
        try:
            import_module(name)
        finally:
            self._spent_s += time.perf_counter() - began_s
            if name not in sys.modules:
                with self._lock:
                    del self._begun[name]
