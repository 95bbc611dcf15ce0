"""Whatever inks and jobs are called: an SVG holds nothing that a browser would run, load or follow."""

from __future__ import annotations

import random
import re
import sys
from dataclasses import dataclass, field
from xml.parsers import expat

import numpy as np
import pytest

from pipeline.export.audit import audit_svg
from pipeline.export.svg import CERTIFICATE_NS, INKSCAPE_NS, SVG_NS, write_svg
from pipeline.types import POINTS_OF, Certificate, Ink, Palette, Shape
from tests.faults.conftest import Figure

OUTPUTS = 10_000
ELEMENTS = {"svg", "title", "desc", "g", "path", "circle", "ellipse", "defs", "clipPath", "metadata"}
CERTIFICATE = "livery:certificate"
"""The one element of another namespace, which stands in metadata."""

FREE_TEXT = {"data-ink", "inkscape:label"}
"""Attributes that hold an ink's name as it was given, which no program reads as anything else."""

HOSTILE = (
    "<script>alert(1)</script>",
    '"><svg onload="alert(1)">',
    "'><img src=x onerror=alert(1)>",
    "</title><script>alert(1)</script>",
    "javascript:alert(1)",
    "url(https://example.com/x)",
    "]]>",
    "<![CDATA[x]]>",
    "<!-- -->",
    "<?xml version='1.0'?>",
    "<!DOCTYPE svg [<!ENTITY a 'b'>]>",
    "&amp;",
    "&a;",
    "&#x0;",
    "&#60;script&#62;",
    "\u202etxt.evil",
    "\u200f\u200e",
    "\U0001f697 rouge",
    "\u8d64",
    "e\u0301te\u0301",
    "tab\tnew\nline\rreturn",
    "  spaces  ",
    "",
    "#C8262B",
    "x" * 80,
    "\\u003cscript\\u003e",
    "%3Cscript%3E",
)


def random_oval(rng: random.Random, ink: int) -> Shape:
    """Two arcs that are the halves of a circle or an ellipse, or just not."""
    start, end = ([rng.randint(-9_000, 9_000) for _ in range(2)] for _ in range(2))
    radius = rng.randint(1, 9_000)
    radii = [radius, rng.choice([radius, rng.randint(1, 9_000)])]
    arc = [*radii, rng.randint(-36_000, 36_000), rng.randrange(4)]
    numbers = [*start, *arc, *end, *arc, *start]
    return Shape(ink, "MAAZ", np.array(numbers, dtype=np.int32).reshape(-1, 2))


def random_shape(rng: random.Random, ink: int) -> Shape:
    if rng.random() < 0.3:
        return random_oval(rng, ink)
    commands = "".join("M" + "".join(rng.choices("LC", k=rng.randrange(5))) + "Z" for _ in range(rng.randint(1, 2)))
    spread = rng.choice([3, 200, 10_000, 500_000])
    numbers = [rng.randint(-spread, spread) for command in commands for _ in range(2 * POINTS_OF[command])]
    return Shape(ink, commands, np.array(numbers, dtype=np.int32).reshape(-1, 2))


def random_name(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return rng.choice(HOSTILE)
    signs = [chr(rng.randrange(0x20, sys.maxunicode)) for _ in range(rng.randrange(12))]
    return "".join(sign for sign in signs if not "\ud800" <= sign <= "\udfff" and sign not in "\ufffe\uffff")


@dataclass
class Read:
    """An SVG as an XML parser that knows nothing of ours reads it.

    Attributes:
        elements: name, parent and attributes of each, in order.
        others: what is neither element nor text: DOCTYPE, entities, instructions, comments, CDATA.
    """

    elements: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def read(svg: str) -> Read:
    found, within = Read(), [""]

    def start(name: str, attributes: dict[str, str]) -> None:
        found.elements.append((name, within[-1], attributes))
        within.append(name)

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: within.pop()
    parser.StartDoctypeDeclHandler = lambda *_: found.others.append("DOCTYPE")
    parser.EntityDeclHandler = lambda *_: found.others.append("entity")
    parser.ProcessingInstructionHandler = lambda *_: found.others.append("instruction")
    parser.CommentHandler = lambda _: found.others.append("comment")
    parser.StartCdataSectionHandler = lambda: found.others.append("CDATA")
    parser.Parse(svg, True)
    return found


def offences(svg: str) -> list[str]:
    """What the grammar does not allow."""
    found = read(svg)
    wrong = list(found.others)
    for name, parent, attributes in found.elements:
        if name not in ELEMENTS and (name, parent) != (CERTIFICATE, "metadata"):
            wrong.append(f"<{name}>")
        for key, value in attributes.items():
            if key == "style" or key.startswith("on") or key.rpartition(":")[2] == "href":
                wrong.append(key)
            if key.startswith("xmlns") and value not in (SVG_NS, INKSCAPE_NS, CERTIFICATE_NS):
                wrong.append(f"{key}={value}")
            if key not in FREE_TEXT and re.search(r"url\s*\(|script\s*:|data:|expression\s*\(", value, re.IGNORECASE):
                wrong.append(f"{key}={value}")
    return wrong


FORBIDDEN = (
    *("<script/>", "<image/>", "<a/>", "<g onload='x'/>", "<g style='fill:red'/>", "<g fill='url(#a)'/>"),
    *("<g href='#a'/>", "<g xmlns:x='y' x:href='#a'/>", "<!-- -->", "<?x?>", "<![CDATA[x]]>", "<g id='javascript:x'/>"),
)


def test_what_the_grammar_forbids_is_found() -> None:
    for svg in ("<!DOCTYPE svg [<!ENTITY a 'b'>]><svg/>", *(f"<svg>{inside}</svg>" for inside in FORBIDDEN)):
        assert offences(svg), svg
    assert offences("<svg><g id='a'/></svg>") == []


def random_certificate(rng: random.Random) -> Certificate:
    counts = {"circles": rng.randrange(9), "ellipses": 0, "arcs": rng.randrange(99), "lines": rng.randrange(999)}
    return Certificate(
        rng.random() * 5, rng.random() * 100, rng.randrange(9999), rng.randrange(99), counts, rng.random()
    )


def test_ten_thousand_drawings_with_hostile_names_keep_to_the_grammar(figure: Figure) -> None:
    rng = random.Random(OUTPUTS)
    for number in range(OUTPUTS):
        colours = rng.sample(range(2**24), rng.randint(2, 4))
        palette = Palette(tuple(Ink(f"#{colour:06X}", random_name(rng)) for colour in colours))
        shapes = [random_shape(rng, rng.randrange(len(colours))) for _ in range(rng.randrange(3))]
        certificate = random_certificate(rng) if number % 2 else None
        svg = write_svg(shapes, palette, 40, 30, title=random_name(rng), certificate=certificate)
        assert sum(audit_svg(svg, palette).paints.values()) == len(shapes)
        assert offences(svg) == [], svg
    measured = f"{OUTPUTS:,} outputs, {len(HOSTILE)} hostile names: 0 offences, by the audit and by a reader apart"
    figure("unsafe SVG", measured, "0 in 10,000")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_comes_back_as_it_was_and_only_as_text(name: str) -> None:
    palette = Palette((Ink("#101010", name), Ink("#FEFEFE", "b")))
    triangle = Shape(0, "MLLZ", np.array([[0, 0], [400, 0], [400, 400]], dtype=np.int32))
    svg = write_svg([triangle], palette, 4, 4, title=name)
    audit_svg(svg, palette)
    (group,) = (attributes for element, _, attributes in read(svg).elements if element == "g")
    assert group["data-ink"] == group["inkscape:label"] == name
    assert re.fullmatch("ink-[a-z0-9]+(-[a-z0-9]+)*", group["id"])
    assert svg.count("<") == 7  # svg, title, g, their ends and path
