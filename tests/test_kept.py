"""What is kept between jobs: bounded in bytes and in time, the least recently used leaves."""

from __future__ import annotations

import time

from pipeline.kept import Kept


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
