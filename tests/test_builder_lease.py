"""One builder at a time, told apart by signs of life where hosts share nothing but files."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

from builder.lease import BuilderLock
from builder.volume import staging_of
from pipeline.errors import Cancelled


def lock(volume: Path, wait_s: float = 0.0, lease_s: float = 60.0) -> BuilderLock:
    return BuilderLock(volume, wait_s, lambda: None, lease_s)


def lease_of(volume: Path) -> Path:
    return staging_of(volume) / "builder.lease"


def another_host_s(volume: Path) -> Path:
    """The lease of a builder on a host that we share no kernel with."""
    staging_of(volume).mkdir(exist_ok=True)
    lease_of(volume).write_text(json.dumps({"owner": "f" * 32, "machine": "another"}))
    return lease_of(volume)


def test_one_at_a_time_on_one_host(tmp_path: Path) -> None:
    with lock(tmp_path) as first:
        first.check()
        with pytest.raises(Cancelled, match="another builder is at work"), lock(tmp_path, 0.3):
            pytest.fail("two at once")
        first.check()
    with lock(tmp_path) as second:
        second.check()
        assert not second.took_over
    assert not lease_of(tmp_path).exists()


def test_threads_take_turns(tmp_path: Path) -> None:
    inside, most, runs = [], [], []

    def work() -> None:
        with lock(tmp_path, 30.0) as held:
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.02)
            held.check()
            inside.pop()
            runs.append(1)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (max(most), len(runs)) == (1, 6)


def test_what_a_dead_process_of_this_host_left_is_taken_at_once(tmp_path: Path) -> None:
    with lock(tmp_path) as first:
        left = lease_of(tmp_path).read_text()
        assert json.loads(left)["owner"] == first.owner
    lease_of(tmp_path).write_text(left)
    began_s = time.monotonic()
    with lock(tmp_path) as second:
        assert not second.took_over  # its process is known to be dead, so its half-made files are nobody's
    assert time.monotonic() - began_s < 1


def test_another_host_that_gives_signs_of_life_is_waited_for(tmp_path: Path) -> None:
    lease = another_host_s(tmp_path)
    left = threading.Event()

    def beat() -> None:
        while not left.wait(0.05):
            os.utime(lease)

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        with pytest.raises(Cancelled), lock(tmp_path, wait_s=1.2, lease_s=0.5):
            pytest.fail("two at once")
        assert json.loads(lease.read_text())["owner"] == "f" * 32
    finally:
        left.set()
        beating.join()


def test_another_host_that_went_silent_is_succeeded(tmp_path: Path) -> None:
    another_host_s(tmp_path)
    with lock(tmp_path, wait_s=5, lease_s=0.4) as held:
        assert held.took_over
        held.check()
    another_host_s(tmp_path)
    lease_of(tmp_path).write_text("")  # it died while it wrote its name
    with lock(tmp_path, wait_s=5, lease_s=0.4) as held:
        assert held.took_over


def test_who_was_succeeded_finds_out(tmp_path: Path) -> None:
    with lock(tmp_path) as held:
        another_host_s(tmp_path)
        with pytest.raises(Cancelled, match="another builder took over"):
            held.check()
    assert lease_of(tmp_path).exists(), "it is not ours to give back"


def test_a_lease_is_beaten(tmp_path: Path) -> None:
    with lock(tmp_path, lease_s=0.2):
        before = lease_of(tmp_path).stat().st_mtime_ns
        time.sleep(0.3)
        assert lease_of(tmp_path).stat().st_mtime_ns > before
