"""The last gate before an SVG leaves: a closed grammar, and no paint outside the palette.

Whatever is not named here is an offence: an element, an attribute, a value, a place. So there is no script, no style,
no reference and no event handler to look for. Colours are compared as text, with no tolerance. The parser is expat,
which fetches nothing; a DOCTYPE ends the audit, so no entity is ever expanded.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from xml.parsers import expat

from pipeline.export.svg import CERTIFICATE_NS, INKSCAPE_NS, PRIMITIVES, SVG_NS
from pipeline.types import Palette

_DRAWN = frozenset({"path", "circle", "ellipse"})
_TEXTUAL = frozenset({"title", "desc"})
_ONCE = frozenset({"metadata", "livery:certificate"})
_CHILDREN: Mapping[str, frozenset[str]] = {
    "": frozenset({"svg"}),
    "svg": _DRAWN | _TEXTUAL | {"g", "metadata"},
    "g": _DRAWN | _TEXTUAL | {"g"},
    "metadata": frozenset({"livery:certificate"}),
}
"""The elements, by the element that holds them ("" is the document). All others hold none."""

_NUMBER = r"[+-]?+(?:\d++(?:\.\d*+)?+|\.\d++)"
_LENGTH = r"(?:\d++(?:\.\d++)?+|\.\d++)"
_PLACE = r"[+-]?(?:\d{1,8}(?:\.\d{1,6})?|\.\d{1,6})"
_MEASURE = r"(?:\d{1,8}(?:\.\d{1,6})?|\.\d{1,6})"
_COUNT = r"0|[1-9]\d{0,11}"
"""These three are short, so finite in any reader; in an outline a cut would only make one long number two."""

_SIZE = r"[1-9]\d{0,5}"
_GAP = r"(?:\s++(?:,\s*+)?+|,\s*+)?+"


def _command(letter: str, *numbers: str) -> str:
    """A path command: its letter, then its numbers, once or more."""
    once = _GAP.join(numbers)
    return rf"[{letter}{letter.lower()}]\s*+{once}(?:{_GAP}{once})*+\s*+"


_MOVE = _command("M", _NUMBER, _NUMBER)
_STEPS = (
    *(
        _command(letter, *[_NUMBER] * count)
        for letter, count in {"L": 2, "H": 1, "V": 1, "C": 6, "S": 4, "Q": 4, "T": 2}.items()
    ),
    _command("A", _LENGTH, _LENGTH, _NUMBER, "[01]", "[01]", _NUMBER, _NUMBER),
    r"[Zz]\s*+",
)
_PATH_DATA = rf"{_MOVE}(?:{'|'.join((_MOVE, *_STEPS))})*+"

_STROKE = {"stroke-width": _LENGTH, "stroke-linejoin": "round|bevel|miter", "stroke-linecap": "round|butt|square"}
_PAINTED = {"id": "[a-z][a-z0-9-]*", "fill-rule": "evenodd|nonzero", **_STROKE}
_ATTRIBUTES: Mapping[str, Mapping[str, re.Pattern[str]]] = {
    element: {name: re.compile(value, re.ASCII | re.DOTALL) for name, value in values.items()}
    for element, values in {
        "svg": {
            "xmlns": re.escape(SVG_NS),
            "xmlns:inkscape": re.escape(INKSCAPE_NS),
            "viewBox": f"0 0 {_SIZE} {_SIZE}",
            "width": _SIZE,
            "height": _SIZE,
        },
        "g": {"data-ink": ".*", "inkscape:label": ".*", "inkscape:groupmode": "layer", **_PAINTED},
        "path": {"d": _PATH_DATA, **_PAINTED},
        "circle": {"cx": _PLACE, "cy": _PLACE, "r": _MEASURE, **_PAINTED},
        "ellipse": {
            **dict.fromkeys(("cx", "cy"), _PLACE),
            **dict.fromkeys(("rx", "ry"), _MEASURE),
            "transform": rf"rotate\({_PLACE} {_PLACE} {_PLACE}\)",
            **_PAINTED,
        },
        "metadata": {},
        "livery:certificate": {
            "xmlns:livery": re.escape(CERTIFICATE_NS),
            **dict.fromkeys(("tolerance_px", "min_feature_px"), _MEASURE),
            "agreement_pct": r"(?:100\.00|\d{1,2}\.\d\d)",
            **dict.fromkeys(("nodes", "paths", *PRIMITIVES), _COUNT),
        },
        "title": {},
        "desc": {},
    }.items()
}
"""What each attribute may say; `fill` and `stroke` are judged against the palette instead."""

_REQUIRED: Mapping[str, frozenset[str]] = {
    "svg": frozenset(_ATTRIBUTES["svg"]),
    "path": frozenset({"d"}),
    "circle": frozenset({"cx", "cy", "r"}),
    "ellipse": frozenset({"cx", "cy", "rx", "ry"}),
    "livery:certificate": frozenset({"xmlns:livery", "tolerance_px", "agreement_pct", "nodes", "paths"}),
}


class SvgAuditError(ValueError):
    """The text breaks the grammar or leaves the palette; the message names the offence and its line, for the log."""


@dataclass(frozen=True, slots=True)
class SvgAudit:
    """What an SVG that passed holds.

    Attributes:
        paints: how many elements each palette index fills or strokes; unused inks are absent.
    """

    paints: Mapping[int, int]


def audit_svg(svg: str, palette: Palette) -> SvgAudit:
    """Check `svg` against the grammar and `palette`.

    Raises:
        SvgAuditError: at the first offence.
    """
    audit = _Auditor(palette)
    try:
        audit.parser.Parse(svg.encode(), True)
    except expat.ExpatError as error:
        raise SvgAuditError(f"not well-formed: {error}") from error
    except UnicodeEncodeError as error:
        raise SvgAuditError("not Unicode text") from error
    return SvgAudit(dict(sorted(audit.paints.items())))


class _Auditor:
    """One walk through one document."""

    def __init__(self, palette: Palette) -> None:
        self.paints: Counter[int] = Counter()
        self._ink_of = {ink.hex: index for index, ink in enumerate(palette.inks)}
        self._palette = palette
        self._ids: set[str] = set()
        self._seen: set[str] = set()
        self._open: list[tuple[str, str | None, str]] = [("", None, "none")]  # element, fill, stroke
        self.parser = expat.ParserCreate("UTF-8")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        for handler, offence in {
            "XmlDeclHandler": "an XML declaration",
            "StartDoctypeDeclHandler": "a DOCTYPE",
            "ProcessingInstructionHandler": "a processing instruction",
            "CommentHandler": "a comment",
            "StartCdataSectionHandler": "a CDATA section",
        }.items():
            setattr(self.parser, handler, lambda *_, offence=offence: self._refuse(offence))

    def _refuse(self, offence: str) -> None:
        raise SvgAuditError(f"line {self.parser.CurrentLineNumber}: {offence}")

    def _start(self, element: str, attributes: dict[str, str]) -> None:
        parent, fill, stroke = self._open[-1]
        if element not in _CHILDREN.get(parent, ()):
            self._refuse(f"<{element}> in <{parent}>")
        if element in _ONCE and element in self._seen:
            self._refuse(f"<{element}> twice")
        self._seen.add(element)
        if missing := _REQUIRED.get(element, frozenset()) - attributes.keys():
            self._refuse(f"<{element}> without {min(missing)}")
        for name, value in attributes.items():
            self._attribute(element, name, value)
        self._pivot(attributes)
        fill, stroke = attributes.get("fill", fill), attributes.get("stroke", stroke)
        if "data-ink" in attributes and (fill not in self._ink_of or self._name(fill) != attributes["data-ink"]):
            self._refuse("data-ink names another ink than fill")
        if element in _DRAWN:
            if fill is None:
                self._refuse(f"<{element}> without a fill, its own or inherited")
            self.paints.update(self._ink_of[paint] for paint in (fill, stroke) if paint in self._ink_of)
        self._open.append((element, fill, stroke))

    def _attribute(self, element: str, name: str, value: str) -> None:
        if name in {"fill", "stroke"} and "id" in _ATTRIBUTES[element]:
            if value != "none" and value not in self._ink_of:
                self._refuse(f"{name} {value!r} is not in the palette")
            return
        pattern = _ATTRIBUTES[element].get(name)
        if pattern is None:
            self._refuse(f"attribute {name} of <{element}>")
        elif not pattern.fullmatch(value):
            self._refuse(f"{name} {value[:40]!r} of <{element}>")
        if name == "id":
            if value in self._ids:
                self._refuse(f"id {value!r} twice")
            self._ids.add(value)

    def _pivot(self, attributes: dict[str, str]) -> None:
        """A turn is about the element's own centre, so that it moves nothing."""
        turn = attributes.get("transform")
        if turn is not None and not turn.endswith(f" {attributes['cx']} {attributes['cy']})"):
            self._refuse(f"transform {turn[:40]!r} about another spot than the centre")

    def _name(self, fill: str | None) -> str:
        return self._palette.inks[self._ink_of[fill]].name if fill is not None else ""

    def _end(self, _element: str) -> None:
        self._open.pop()

    def _text(self, text: str) -> None:
        if self._open[-1][0] not in _TEXTUAL and text.strip(" \t\r\n"):
            self._refuse("text outside title and desc")
