"""The torch thread: one at a time, always the same, and never left running behind a broken wait."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from models.thread import TorchThread


def test_work_of_many_callers_is_done_one_after_another_on_one_thread() -> None:
    thread = TorchThread()
    busy = threading.Lock()

    def work() -> int:
        assert busy.acquire(blocking=False), "two pieces of work at once"
        time.sleep(0.002)
        busy.release()
        return threading.get_ident()

    with ThreadPoolExecutor(8) as callers:
        idents = {future.result() for future in [callers.submit(thread.run, work) for _ in range(40)]}
    assert len(idents) == 1
    assert idents != {threading.get_ident()}


def test_what_the_work_raises_comes_back_and_the_next_work_is_done() -> None:
    thread = TorchThread()

    def fail() -> None:
        raise LookupError("as it is")

    with pytest.raises(LookupError, match="as it is"):
        thread.run(fail)
    assert not thread.abandoned
    assert thread.run(lambda: 3) == 3


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timer")
def test_a_broken_wait_tells_the_work_and_waits_for_its_end() -> None:
    thread, ended = TorchThread(), []

    def work() -> None:
        while not thread.abandoned:
            time.sleep(0.001)
        time.sleep(0.05)
        ended.append(True)

    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            thread.run(work)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert ended == [True]
    assert not thread.abandoned
