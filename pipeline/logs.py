"""The log: a line for each event, as a JSON object or as a sentence, and nothing in it that is not meant for a log.

No line of ours is written with a payload, a key, a presigned query or a path. What a library says, and what an
exception quotes, is not in our hands: so every text passes `Scrubber` on its way out, and a traceback becomes a list of
places in the code.
"""

from __future__ import annotations

import json
import logging
import os
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.settings import Settings

FIELDS = "livery"
"""Name of the record's attribute that holds a line's own fields: `extra={FIELDS: {…}}`."""

SECRET_NAMES = re.compile(r"KEY|SECRET|TOKEN|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)
"""Environment variables whose values are never logged."""

LEAST_SECRET_CHARACTERS = 6
"""Shorter values than this are no secrets, and would be found in harmless words."""

LONGEST_WORD = 80
"""Characters that a word may have: longer ones are encoded pictures. A SHA-256 in hexadecimal has 64."""

MOST_FRAMES = 24
"""Places of a traceback that are kept, half from each end: a recursion has a thousand."""

_JOB: ContextVar[str | None] = ContextVar("job", default=None)

_QUERY = re.compile(r"(\w+://[^\s?\"'<>]*)\?[^\s\"'<>]*")
_DATA = re.compile(rf"[A-Za-z0-9+/=_%-]{{{LONGEST_WORD},}}")
_PATH = re.compile(r"(?<![\w./:~-])~?/(?:[^\s/\"'<>:,;()]+/)+[^\s/\"'<>:,;()]*")


def start_logging(settings: Settings) -> None:
    """Send this process's log to standard error. Other packages stay at WARNING: some log what they are handed."""
    lines = logging.StreamHandler()
    lines.setFormatter(Lines(Scrubber(secrets_in(os.environ)), as_json=settings.log_format == "json"))
    logging.basicConfig(level=logging.WARNING, handlers=[lines])
    logging.captureWarnings(True)
    for name in ("handler", "pipeline", "models"):
        logging.getLogger(name).setLevel(settings.log_level.upper())


@contextmanager
def lines_of(job_id: str) -> Iterator[None]:
    """Lines that this thread logs in the block, and those threads that it hands its context to, name the job."""
    before = _JOB.set(job_id)
    try:
        yield
    finally:
        _JOB.reset(before)


def job_fields(reply: Mapping[str, Any], spent_ms: float) -> dict[str, Any]:
    """What the one line of a job tells, from its reply: figures and names of ours, nothing that the caller wrote.

    Args:
        reply: `JobOutput` or another of pipeline.schema as plain JSON values, or an error reply.
        spent_ms: from the job's arrival to its reply, in milliseconds.
    """
    fields: dict[str, Any] = {"outcome": reply.get("code", "done"), "ms": round(spent_ms, 1)}
    if "code" in reply:
        return fields | {"retryable": reply["retryable"]}
    report = reply.get("report")
    if report is None:
        return fields
    return fields | {
        "engine": report["engine"],
        "mode": report["mode"],
        "phases_ms": {phase: ms for phase, ms in report["timings_ms"].items() if ms is not None},
        "loads_ms": report["loads"],
        "vram_peak_mb": report["vram_peak_mb"],
        "gpu": report["gpu"],
        "cost_usd": report["cost_estimate_usd"],
        "cached": report["cached"],
        "reinked": report["reinked"],
        "bytes": report["bytes"],
        "paths": report["paths"],
        "warnings": [warning["code"] for warning in report["warnings"]],
    }


def secrets_in(environ: Mapping[str, str]) -> frozenset[str]:
    """The values of variables that are named like secrets."""
    return frozenset(
        value for name, value in environ.items() if SECRET_NAMES.search(name) and len(value) >= LEAST_SECRET_CHARACTERS
    )


class Scrubber:
    """Takes out of a text what no log may hold.

    Args:
        secrets: texts that are taken out wherever they stand.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        longest_first = sorted(secrets, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, text: str) -> str:
        """The text without secrets, addresses' queries, encoded data, and folders; files keep their names."""
        if self._secrets is not None:
            text = self._secrets.sub("[secret]", text)
        text = _QUERY.sub(r"\1?[query]", text)
        text = _DATA.sub("[data]", text)
        return _PATH.sub(lambda path: f"[folder]/{path[0].rpartition('/')[2]}", text)


class Lines(logging.Formatter):
    """Formats a record as one line of JSON, or as text with its exceptions below it.

    Args:
        scrub: what every text passes.
        as_json: which of the two.
    """

    def __init__(self, scrub: Scrubber, *, as_json: bool) -> None:
        super().__init__()
        self._scrub, self._as_json = scrub, as_json

    def format(self, record: logging.LogRecord) -> str:
        """One line; as text it has no line breaks of its own, and one line more for each exception."""
        message = self._scrub(record.getMessage())
        faults = self._faults(record.exc_info[1] if record.exc_info else None)
        if not self._as_json:
            told = [f"{record.levelname:7} {record.name}: {message}", *map(_sentence, faults)]
            return "\n".join(line.replace("\n", " ") for line in told)
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "job": _JOB.get(),
            "message": message,
            **getattr(record, FIELDS, {}),
        }
        return json.dumps(line | ({"exceptions": faults} if faults else {}), allow_nan=False)

    def _faults(self, fault: BaseException | None) -> list[dict[str, Any]]:
        """The exception and what led to it, the latest first."""
        faults, seen = [], set[int]()
        while fault is not None and id(fault) not in seen:
            seen.add(id(fault))
            faults.append(
                {"type": type(fault).__qualname__, "message": self._scrub(str(fault)), "where": _places(fault)}
            )
            led = None if fault.__suppress_context__ else fault.__context__
            fault = led if fault.__cause__ is None else fault.__cause__
        return faults


def _places(fault: BaseException) -> list[str]:
    """`folder/file.py:line function` of each frame, the outermost first."""
    places = [
        f"{'/'.join(Path(frame.f_code.co_filename).parts[-2:])}:{line} {frame.f_code.co_qualname}"
        for frame, line in traceback.walk_tb(fault.__traceback__)
    ]
    if len(places) <= MOST_FRAMES:
        return places
    half = MOST_FRAMES // 2
    return [*places[:half], f"and {len(places) - 2 * half} more", *places[-half:]]


def _sentence(fault: Mapping[str, Any]) -> str:
    return f"        {fault['type']}: {fault['message']} at {', '.join(fault['where'])}"
