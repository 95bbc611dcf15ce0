"""The log: one line of JSON for each event with the job's name, and nothing in it that is not meant for a log."""

from __future__ import annotations

import base64
import contextvars
import io
import json
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import handler
from pipeline.logs import FIELDS, LONGEST_WORD, MOST_FRAMES, Lines, Scrubber, job_fields, lines_of, secrets_in

if TYPE_CHECKING:
    pass

ROOT = Path(__file__).parent.parent
HANG_S = 240


class Log:
    """A logger of its own, and what it has written."""

    def __init__(self, *, as_json: bool = True, secrets: tuple[str, ...] = ()) -> None:
        self._stream = io.StringIO()
        lines = logging.StreamHandler(self._stream)
        lines.setFormatter(Lines(Scrubber(secrets), as_json=as_json))
        self.logger = logging.Logger("livery.test", logging.DEBUG)
        self.logger.addHandler(lines)

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


# ---- lines


def test_a_line_is_one_object_with_its_time_level_and_fields() -> None:
    log = Log()
    log.logger.warning("two\nlines of %s", "text", extra={FIELDS: {"ms": 1.5, "cached": False}})
    (line,) = log.lines
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line.pop("ts"))
    assert line == {
        "level": "warning",
        "logger": "livery.test",
        "job": None,
        "message": "two\nlines of text",
        "ms": 1.5,
        "cached": False,
    }


def test_text_is_a_sentence_for_people() -> None:
    log = Log(as_json=False)
    log.logger.info("two\nlines", extra={FIELDS: {"ms": 1.5}})
    assert log.text == "INFO    livery.test: two lines\n"


def test_lines_name_the_job_until_it_ends_on_every_thread_that_it_hands_its_context_to() -> None:
    log = Log()
    with ThreadPoolExecutor(1) as pool:
        with lines_of("'a'"):
            log.logger.info("1")
            pool.submit(contextvars.copy_context().run, log.logger.info, "2").result()
            pool.submit(log.logger.info, "3").result()
        log.logger.info("4")
    assert [line["job"] for line in log.lines] == ["'a'", "'a'", None, None]


# ---- exceptions


def descend(depth: int) -> None:
    if depth == 0:
        raise RuntimeError("the bottom")
    descend(depth - 1)


def logged(log: Log, work: Any) -> list[dict[str, Any]]:
    """The exceptions on the line that tells of what `work` raises."""
    try:
        work()
    except Exception:
        log.logger.exception("it failed")
    found: list[dict[str, Any]] = log.lines[-1]["exceptions"]
    return found


def test_an_exception_is_its_type_its_words_and_its_places() -> None:
    (fault,) = logged(Log(), lambda: descend(0))
    assert (fault["type"], fault["message"]) == ("RuntimeError", "the bottom")
    assert re.fullmatch(r"tests/test_logs\.py:\d+ descend", fault["where"][-1])
    assert str(ROOT) not in json.dumps(fault)


def test_what_led_to_it_follows_unless_it_was_cut_off() -> None:
    def chained() -> None:
        try:
            descend(0)
        except RuntimeError as fault:
            raise KeyError("second") from fault

    def cut_off() -> None:
        try:
            descend(0)
        except RuntimeError:
            raise KeyError("alone") from None

    assert [fault["type"] for fault in logged(Log(), chained)] == ["KeyError", "RuntimeError"]
    assert [fault["type"] for fault in logged(Log(), cut_off)] == ["KeyError"]


def test_a_thousand_frames_are_cut_in_the_middle() -> None:
    (fault,) = logged(Log(), lambda: descend(500))
    assert len(fault["where"]) == MOST_FRAMES + 1
    assert re.fullmatch(r"and \d{3} more", fault["where"][MOST_FRAMES // 2])


def test_text_has_one_line_for_each_exception() -> None:
    log = Log(as_json=False)
    try:
        open("/c4n4ry/no/file")  # noqa: PTH123, SIM115
    except OSError:
        log.logger.exception("it failed")
    first, second = log.text.splitlines()
    assert first == "ERROR   livery.test: it failed"
    assert second.startswith(
        "        FileNotFoundError: [Errno 2] No such file or directory: '[folder]/file' at tests/"
    )


# ---- what no log holds

PHOTO = base64.b64encode(bytes(range(256))).decode()
PRESIGNED = "https://s3.test/bucket/livery/a.png?X-Amz-Credential=AKIA%2F1&X-Amz-Signature=0badc0de"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"image: {PHOTO!r} is bad", "image: '[data]' is bad"),
        (f"data:image/png;base64,{PHOTO}", "data:image/png;base64,[data]"),
        (f"got {PRESIGNED}, then", "got https://s3.test/bucket/livery/a.png?[query] then"),
        (f"<Error url='{PRESIGNED}'>", "<Error url='https://s3.test/bucket/livery/a.png?[query]'>"),
        ("No such file: '/home/ann/photos/car.jpg'", "No such file: '[folder]/car.jpg'"),
        ("at ~/photos/car.jpg:3", "at [folder]/car.jpg:3"),
        ("/volume/models/", "[folder]/"),
        ("the key hunter2hunter2 is wrong", "the key [secret] is wrong"),
        ("hunter2hunter2-and-more", "[secret]-and-more"),
        ("sha256 " + "0a" * 32, "sha256 " + "0a" * 32),
        ("1/2 or 3/4 and/or km/h, text/plain", "1/2 or 3/4 and/or km/h, text/plain"),
        ("https://s3.test/a/b/c.png", "https://s3.test/a/b/c.png"),
        ("x" * (LONGEST_WORD - 1), "x" * (LONGEST_WORD - 1)),
    ],
)
def test_what_is_taken_out_and_what_stays(text: str, left: str) -> None:
    assert Scrubber(["hunter2hunter2", "hunter2"])(text) == left


def test_every_text_of_a_line_is_scrubbed() -> None:
    log = Log(secrets=("hunter2hunter2",))

    def fail() -> None:
        raise ValueError(f"hunter2hunter2 {PHOTO} {PRESIGNED}")

    logged(log, fail)
    log.logger.error("%s", "hunter2hunter2")
    for found in ("hunter2", PHOTO[:LONGEST_WORD], "Signature"):
        assert found not in log.text
    assert log.text.count("[secret]") == 2


def test_secrets_are_known_by_their_variables_names() -> None:
    environ = {"A_KEY": "aaaaaa", "DB_PASSWORD": "bbbbbb", "HF_TOKEN": "cccccc", "HOME": "dddddd", "X_KEY": "short"}
    assert secrets_in(environ) == {"aaaaaa", "bbbbbb", "cccccc"}


# ---- the line of a job


def picture(ink: tuple[int, int, int] = (200, 38, 43)) -> bytes:
    rgb = np.full((64, 96, 3), (150, 180, 200), np.uint8)
    rgb[24:48, 20:76] = ink
    rgb += np.random.default_rng(7).integers(0, 9, rgb.shape, np.uint8)  # so that its file has no stretch like another
    encoded = io.BytesIO()
    Image.fromarray(rgb).save(encoded, "PNG")
    return encoded.getvalue()


PICTURE = base64.b64encode(picture()).decode()


def test_a_job_s_line_tells_what_it_took_and_nothing_that_the_caller_wrote(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "handler")
    inks = ["#6E7073", {"hex": "#C8262B", "name": "c4n4ry red"}, "#96B4C8"]
    reply = handler.handler({"id": "job-1", "input": {"image": PICTURE, "palette": inks, "seed": 1}})
    (record,) = (record for record in caplog.records if record.name == "handler")
    told = getattr(record, FIELDS)
    report = reply["report"]
    assert (told["outcome"], told["engine"], told["mode"], told["cached"]) == ("done", "draft", None, False)
    assert told["phases_ms"].keys() == {"decode", "sanitize", "steer", "enforce", "vectorize", "export", "total"}
    assert told["phases_ms"]["total"] == report["timings_ms"]["total"] <= told["ms"]
    assert (told["loads_ms"], told["vram_peak_mb"], told["cost_usd"]) == ({}, None, None)
    assert (told["bytes"], told["paths"]) == (report["bytes"], report["paths"])
    assert "seed_unused" in told["warnings"]
    assert "c4n4ry" not in json.dumps(told)


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ({"image": "AAAA"}, {"outcome": "ImageUnsupported", "ms": 1.2, "retryable": False}),
        ({"action": "ping"}, {"outcome": "done", "ms": 1.2}),
    ],
)
def test_a_job_without_a_report_has_its_outcome(request_: dict[str, Any], told: dict[str, Any]) -> None:
    assert job_fields(handler.handler({"id": "job-2", "input": request_}), 1.23) == told


def test_a_dry_run_s_line_has_what_a_report_has() -> None:
    told = job_fields(handler.handler({"id": "job-3", "input": {"action": "dry_run", "image": PICTURE}}), 1.0)
    assert (told["engine"], told["bytes"], "decode" in told["phases_ms"]) == ("draft", None, True)


# ---- canaries

CANARY = "c4n4ry"
