"""The worker with a defect in each job, which the job names by its seed; tests run it in place of handler.py."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, NoReturn

import handler
from pipeline.errors import DeviceLost, NoSubject

LOST, EXITS, BUSY, HANGS, TOO_LARGE, DEAF = 1, 2, 3, 4, 5, 6
BUSY_S = 1.5


class Panic(BaseException):
    """As a library written in another language raises it."""


def raises(fault: BaseException) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise fault

    return fail


def descends() -> None:
    descends()


def is_busy() -> NoReturn:
    time.sleep(BUSY_S)
    raise NoSubject("nothing to see")


THROWN: dict[int, Callable[[], Any]] = {
    10: raises(RuntimeError("/secret/folder")),
    11: raises(SystemExit(3)),
    12: raises(Panic("a foreign panic")),
    13: descends,
    14: raises(MemoryError()),
    15: raises(KeyboardInterrupt()),
    16: raises(GeneratorExit()),
}
"""What happens within phase 1."""

REPLIED: dict[int, Any] = {20: float("nan"), 21: b"\xff\xfe", 22: "\ud800"}
"""What a reply holds that is no JSON."""

AT_ONCE: dict[int, Callable[[], Any]] = {
    LOST: raises(DeviceLost("the GPU is gone")),
    EXITS: lambda: os._exit(3),
    BUSY: is_busy,
}
"""What happens before anything heavy is imported, so that the tests which restart workers are quick."""


class Reply:
    """A reply that is no model's."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def model_dump(self, mode: str) -> dict[str, Any]:
        return {"value": self.value}


def break_phases() -> None:
    """Puts the defects into the pipeline, once it is imported."""
    run: Any = import_module("pipeline.run")
    actions: Any = import_module("pipeline.actions")
    png: Any = import_module("pipeline.export.png")
    draw, hand_over, render = run.draft_picture, actions.job_output, run.render_png

    def faulty_draw(scene: Any, steps: Any) -> Any:
        seed = scene.job.seed
        with steps("sanitize"):
            while seed == HANGS:
                steps.check()
                time.sleep(0.01)
            if seed == DEAF:
                time.sleep(3600)
            if seed in THROWN:
                THROWN[seed]()
        huge = png.Png(os.urandom(19_000_000), 64, 64)
        run.render_png = (lambda *_: huge) if seed == TOO_LARGE else render
        return draw(scene, steps)

    def faulty_hand_over(result: Any, *rest: Any, **named: Any) -> Any:
        seed = result.report.seed
        return Reply(REPLIED[seed]) if seed in REPLIED else hand_over(result, *rest, **named)

    run.draft_picture = faulty_draw
    actions.job_output = faulty_hand_over


def main() -> int:
    serve, broken = handler._serve, False

    def faulty_serve(job: Any, cancelled: Any) -> dict[str, Any]:
        nonlocal broken
        seed = job["input"].get("seed")
        if seed in AT_ONCE:
            AT_ONCE[seed]()
        if not broken:
            break_phases()
            broken = True
        return serve(job, cancelled)

    handler._serve = faulty_serve
    return handler.main()


if __name__ == "__main__":
    sys.exit(main())
