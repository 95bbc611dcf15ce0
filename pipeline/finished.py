"""A finished job, as it is kept and handed over: files and the report, without links, which every reply makes anew."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.schema import Format, Report


@dataclass(frozen=True, slots=True)
class FinishedFile:
    """One file of a job.

    Attributes:
        name: what it is called where it is saved, such as `livery-2048.png`.
        ink: the separation's, by its name on a press.
        width_px, height_px: of a PNG; 0 otherwise.
    """

    name: str
    format: Format
    data: bytes
    ink: str | None = None
    width_px: int = 0
    height_px: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """What a job made.

    Attributes:
        svg: made in any case, handed over where it was asked for.
        files: every other file, in the reply's order.
        report: on all of it.
    """

    svg: str
    files: tuple[FinishedFile, ...]
    report: Report
