"""A finished job, as it is kept and handed over: files and the report, without links, which every reply makes anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import NonNegativeInt, ValidationError

from pipeline.schema import Format, Report, Strict


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

    def to_bytes(self) -> bytes:
        """A line of JSON: sizes, the files' facts, the report; then the SVG's UTF-8 and the files one after another."""
        svg = self.svg.encode()
        parts = tuple(
            _Part(
                name=file.name,
                format=file.format,
                ink=file.ink,
                width_px=file.width_px,
                height_px=file.height_px,
                bytes=len(file.data),
            )
            for file in self.files
        )
        head = _Head(svg_bytes=len(svg), files=parts, report=self.report)
        return b"".join((head.model_dump_json().encode(), b"\n", svg, *(file.data for file in self.files)))

    @classmethod
    def from_bytes(cls, data: bytes) -> Finished | None:
        """What `to_bytes` wrote; None where it can't have."""
        text, _, contents = data.partition(b"\n")
        try:
            head = _Head.model_validate_json(text)
            pieces = _cut(contents, (head.svg_bytes, *(part.bytes for part in head.files)))
            if pieces is None:
                return None
            svg = pieces[0].decode()
        except (ValidationError, UnicodeDecodeError):
            return None
        files = tuple(
            FinishedFile(part.name, part.format, piece, part.ink, part.width_px, part.height_px)
            for part, piece in zip(head.files, pieces[1:], strict=True)
        )
        return cls(svg, files, head.report)


class _Part(Strict):
    name: str
    format: Format
    ink: str | None
    width_px: int
    height_px: int
    bytes: NonNegativeInt


class _Head(Strict):
    svg_bytes: NonNegativeInt
    files: tuple[_Part, ...]
    report: Report


def _cut(contents: bytes, sizes_bytes: Sequence[int]) -> list[bytes] | None:
    """`contents` in pieces of these sizes; None where they don't add up to it."""
    if sum(sizes_bytes) != len(contents):
        return None
    pieces, start = [], 0
    for size_bytes in sizes_bytes:
        pieces.append(contents[start : start + size_bytes])
        start += size_bytes
    return pieces
