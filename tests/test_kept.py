"""What is kept between jobs: bounded in bytes and in time, the least recently used leaves."""

from __future__ import annotations

import gc
import threading
import time
import weakref

from pipeline.kept import Kept


class Picture:
    """Something that can be seen to be gone."""


def wait_until_gone(*seen: weakref.ref[Picture], longest_s: float = 2.0) -> bool:
    end_s = time.monotonic() + longest_s
    while any(ref() is not None for ref in seen):
        if time.monotonic() > end_s:
            return False
        time.sleep(0.005)
    return True


def sweeps() -> int:
    """Timers that wait in this process."""
    return sum(thread.name == "livery-kept" for thread in threading.enumerate())


def test_the_least_recently_used_leaves_when_the_store_is_full() -> None:
    kept = Kept[str](most_bytes=100)
    for name in "abc":
        kept.put(name, name.upper(), 30)
    assert kept.get("a") == "A"
    kept.put("d", "D", 30)
    assert [kept.get(name) for name in "abcd"] == ["A", None, "C", "D"]


def test_what_is_larger_than_the_store_is_not_kept() -> None:
    kept = Kept[str](most_bytes=100)
    kept.put("large", "L", 101)
    assert kept.get("large") is None


def test_a_newer_value_takes_the_place_of_the_older_and_its_bytes() -> None:
    kept = Kept[str](most_bytes=100)
    kept.put("a", "old", 80)
    kept.put("a", "new", 80)
    kept.put("b", "B", 20)
    assert (kept.get("a"), kept.get("b")) == ("new", "B")


def test_nothing_is_kept_past_its_time() -> None:
    kept = Kept[str](most_s=0.05)
    kept.put("a", "A", 1)
    assert kept.get("a") == "A"
    time.sleep(0.08)
    assert kept.get("a") is None


def test_what_is_past_its_time_goes_though_no_job_comes() -> None:
    before = sweeps()
    kept = Kept[Picture](most_s=0.1)
    first, second = Picture(), Picture()
    gone = weakref.ref(first), weakref.ref(second)
    kept.put("a", first, 1)
    time.sleep(0.05)
    kept.put("b", second, 1)
    assert kept.get("a") is first  # used again, so it is due after the other
    del first, second
    assert sweeps() == before + 1, "one timer, however much is kept"
    assert wait_until_gone(*gone)
    time.sleep(0.02)
    assert sweeps() == before, "nothing is kept and yet something waits"
    kept.put("c", Picture(), 1)
    assert sweeps() == before + 1


def test_a_store_that_nobody_has_any_more_goes_with_all_that_it_kept() -> None:
    kept, picture = Kept[Picture](most_s=600), Picture()
    gone = weakref.ref(picture)
    kept.put("a", picture, 1)
    del kept, picture
    gc.collect()
    assert gone() is None
