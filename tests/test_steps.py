"""The clock of a job: deadlines within a phase and after it, phases in several stretches, cancelling, progress."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest

from pipeline.errors import Cancelled, DeadlineExceeded, OutOfMemory
from pipeline.settings import Settings
from pipeline.steps import DOING, PERCENT, STUDIO_PERCENT, Progress, Steps

QUICK = Settings(deadline_steer_s=0.05, studio_deadline_steer_s=0.2)


def test_check_ends_a_phase_that_runs_past_its_time() -> None:
    steps = Steps(QUICK, "draft")
    began_s = time.perf_counter()

    def work() -> None:
        while True:
            steps.check()
            time.sleep(0.001)

    with pytest.raises(DeadlineExceeded, match="steer ran past its time") as caught, steps("steer"):
        work()
    assert caught.value.phase == "steer"
    assert time.perf_counter() - began_s < 2.05


def test_each_engine_has_its_own_time() -> None:
    with Steps(QUICK, "studio")("steer"):
        time.sleep(0.06)
    with pytest.raises(DeadlineExceeded), Steps(QUICK, "draft")("steer"):
        time.sleep(0.06)


def test_stretches_of_a_phase_share_its_time_and_are_told_once() -> None:
    told: list[Progress] = []
    steps = Steps(QUICK, "draft", progress=told.append)
    with steps("steer"):
        time.sleep(0.03)
    with steps("enforce"):
        pass
    with pytest.raises(DeadlineExceeded), steps("steer"):
        time.sleep(0.03)
    assert [step.phase for step in told] == ["steer", "enforce"]


def test_the_timings_add_the_stretches_up() -> None:
    steps = Steps(Settings(), "draft")
    for _ in range(2):
        with steps("enforce"):
            time.sleep(0.02)
    timings = steps.timings()
    assert timings.enforce is not None
    assert 40 <= timings.enforce <= timings.total
    assert timings.steer is None


def test_a_cancelled_job_starts_no_phase_and_ends_within_one() -> None:
    cancelled = False
    steps = Steps(Settings(), "draft", cancelled=lambda: cancelled)

    def work() -> None:
        nonlocal cancelled
        steps.check()
        cancelled = True
        steps.check()

    with pytest.raises(Cancelled), steps("steer"):
        work()
    assert cancelled
    with pytest.raises(Cancelled), steps("enforce"):
        pytest.fail("it started")


def test_a_lack_of_memory_is_named_by_its_phase() -> None:
    with pytest.raises(OutOfMemory, match="in enforce"), Steps(Settings(), "draft")("enforce"):
        raise MemoryError


def test_a_lack_of_memory_in_opencv_is_one_too_and_its_other_errors_are_not() -> None:
    dot = np.zeros((1, 1), np.uint8)
    with pytest.raises(OutOfMemory, match="in steer"), Steps(Settings(), "draft")("steer"):
        cv2.resize(dot, (1_000_000, 1_000_000))
    with pytest.raises(cv2.error), Steps(Settings(), "draft")("steer"):
        cv2.resize(dot, (0, 0))


def test_the_progress_moves_within_a_phase_and_never_back() -> None:
    told: list[Progress] = []
    steps = Steps(Settings(), "studio", progress=told.append)
    with steps("steer"):
        for share in (0.0, 0.5, 0.25, 0.75):
            steps.tell(f"at {share}", share)
        steps.tell("loading something")
    with steps("enforce"):
        steps.tell("half", 0.5)
    start, end = STUDIO_PERCENT["steer"], STUDIO_PERCENT["enforce"]
    middle = start + (end - start) // 2
    assert [step.percent for step in told[:4]] == [start, start, middle, middle]
    assert middle < told[4].percent == told[5].percent < end == told[6].percent < told[7].percent
    assert [step.message for step in told[-3:]] == ["loading something", DOING["enforce"], "half"]
    assert [step.phase for step in told] == ["steer"] * 6 + ["enforce"] * 2


def test_the_same_is_told_once_and_nothing_between_the_phases() -> None:
    told: list[Progress] = []
    steps = Steps(Settings(), "draft", progress=told.append)
    steps.tell("before")
    with steps("steer"):
        for _ in range(3):
            steps.tell("again", 0.1)
    steps.tell("after")
    assert [step.message for step in told] == [DOING["steer"], "again"]


def test_every_phase_begins_past_the_one_before_it_and_short_of_the_end() -> None:
    for starts in (PERCENT, STUDIO_PERCENT):
        assert list(starts) == list(DOING)
        assert list(starts.values()) == sorted(set(starts.values()))
        assert (starts["decode"], max(starts.values()) < 100) == (0, True)
