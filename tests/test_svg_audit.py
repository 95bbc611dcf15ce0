"""The writer writes only what the audit admits, whatever the names; the audit admits nothing else."""

from __future__ import annotations

from xml.parsers import expat

import numpy as np
import pytest

from pipeline.export.audit import SvgAuditError, audit_svg
from pipeline.export.svg import escape, path_data, slug, write_svg
from pipeline.types import Ink, Palette, Shape


def shape(ink: int, *points_px: tuple[float, float]) -> Shape:
    """A closed polygon."""
    points = np.rint(np.array(points_px) * 100).astype(np.int32)
    return Shape(ink, "M" + "L" * (len(points) - 1) + "Z", points)


def attributes_of(svg: str, element: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda name, attributes: found.append(attributes) if name == element else None
    parser.Parse(svg, True)
    return found


@pytest.mark.parametrize("name", ["\x00", "a\x0bb", "\ud800", "\uffff", "\x1b[31m"])
def test_what_xml_can_t_write_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"XML has no way to write U\+[0-9A-F]{4}"):
        escape(name)


def test_slugs_are_ascii_and_never_empty() -> None:
    assert slug("Été rouge №5", "x") == "ete-rouge-no5"
    assert slug("赤", "c8262b") == "c8262b"
    assert slug("--", "c8262b") == "c8262b"
    assert slug("a" * 39 + " b", "x") == "a" * 39


def test_ids_are_unique_and_inks_of_one_name_keep_their_colours() -> None:
    palette = Palette((Ink("#000001", "Red"), Ink("#000002", "red!"), Ink("#000003", "red 2")))
    square = ((0, 0), (9, 0), (9, 9), (0, 9))
    svg = write_svg([shape(ink, *square) for ink in (0, 1, 2, 0)], palette, 9, 9, title="t")
    groups = attributes_of(svg, "g")
    assert [group["id"] for group in groups] == ["ink-red", "ink-red-2", "ink-red-2-2", "ink-red-3"]
    assert [group["fill"] for group in groups] == ["#000001", "#000002", "#000003", "#000001"]
    audit_svg(svg, palette)


def test_the_root_declares_its_namespaces_and_its_frame() -> None:
    palette = Palette((Ink("#000000", "a"), Ink("#FFFFFF", "b")))
    (root,) = attributes_of(write_svg([], palette, 40, 30, title=""), "svg")
    assert root == {
        "xmlns": "http://www.w3.org/2000/svg",
        "xmlns:inkscape": "http://www.inkscape.org/namespaces/inkscape",
        "viewBox": "0 0 40 30",
        "width": "40",
        "height": "30",
    }


def test_numbers_are_written_in_the_fewest_digits() -> None:
    points = np.array([[1005, -50], [1005, 0], [1200, 0], [1201, 5], [0, 0], [-150, 1], [1, 2]], dtype=np.int32)
    assert path_data(Shape(0, "MLLLCZ", points)) == "m10.05-.5v.5h1.95l.01.05c-12.01-.05-13.51-.04-12-.03z"


def test_a_command_that_repeats_drops_its_letter() -> None:
    points = np.array([[0, 0], [100, 100], [200, 50], [300, 250]], dtype=np.int32)
    assert path_data(Shape(0, "MLLLZ", points)) == "m0 0 1 1 1-.5 1 2z"


def test_an_outline_starts_from_where_the_one_before_it_started() -> None:
    points = np.array([[500, 500], [700, 500], [700, 900], [600, 600], [600, 650], [650, 600]], dtype=np.int32)
    assert path_data(Shape(0, "MLLZMLLZ", points)) == "m5 5h2v4zm1 1v.5l.5-.5z"


def test_an_arc_is_written_as_its_seven_numbers() -> None:
    points = np.array([[100, 100], [250, 50], [-3000, 3], [400, 50]], dtype=np.int32)
    assert path_data(Shape(0, "MAZ", points)) == "m1 1a2.5.5-30 1 1 3-.5z"


PALETTE = Palette((Ink("#C8262B", "red"), Ink("#FFFFFF", "white")))
ROOT = (
    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:inkscape="http://www.inkscape.org/namespaces/inkscape"'
    ' viewBox="0 0 8 8" width="8" height="8">'
)
PATH = '<path d="M0 0h8v8z" fill="#C8262B"/>'
STATED = (
    'xmlns:livery="urn:livery:certificate:1" tolerance_px=".8" agreement_pct="99.31" nodes="12" paths="3" circles="1"'
    ' ellipses="0" arcs="2" lines="7" min_feature_px="3.5"'
)
CERTIFIED = f"<metadata><livery:certificate {STATED}/></metadata>"


def within(content: str) -> str:
    return f"{ROOT}{content}</svg>"


def certified(stated: str, became: str) -> str:
    """A certificate of which one part became another."""
    assert STATED.count(stated) == 1
    return within(CERTIFIED.replace(stated, became))


def turned(transform: str) -> str:
    return within(f'<ellipse cx="1.5" cy="-2" rx="3" ry=".5" transform="{transform}" fill="#C8262B"/>')


@pytest.mark.parametrize(
    ("svg", "paints"),
    [
        (within(""), {}),
        (within(PATH), {0: 1}),
        (within(f"<title>&lt;a&gt; &#38;</title><desc/>{PATH}\n{PATH}"), {0: 2}),
        (within('<g fill="#FFFFFF"><g><path d="M1,2 3,4-5.5.5z m1 1"/></g></g>'), {1: 1}),
        (
            within('<g fill="#FFFFFF" stroke="#C8262B" stroke-width=".75"><circle cx="1" cy="-1" r="2.5"/></g>'),
            {0: 1, 1: 1},
        ),
        (within('<ellipse cx="1" cy="1" rx="2" ry="3" fill="none" stroke="#FFFFFF"/>'), {1: 1}),
        (
            within(
                '<path d="M0 0a1 1 0 01 2 2 1 1 0 1 0 3 3Q1 1 2 2T3 3S1 2 3 4C1 2 3 4 5 6 7 8 9 1 2 3H1" fill="none"/>'
            ),
            {},
        ),
        (within('<g data-ink="red" fill="#C8262B" inkscape:groupmode="layer" inkscape:label="any &lt;"/>'), {}),
        (turned("rotate(-30.25 1.5 -2)"), {0: 1}),
        (turned("rotate(30 1.5 -2)").replace('fill="#C8262B"', 'fill="#FFFFFF" stroke="#C8262B"'), {0: 1, 1: 1}),
        (within(f"<title/>{CERTIFIED}{PATH}"), {0: 1}),
        (certified(' circles="1" ellipses="0" arcs="2" lines="7" min_feature_px="3.5"', ""), {}),
        (certified('"99.31"', '"100.00"'), {}),
        (
            within('<g fill="#FFFFFF"><circle cx="1" cy="1" r="1"/><ellipse cx="1" cy="1" rx="1" ry="2"/></g>' + PATH),
            {0: 1, 1: 2},
        ),
    ],
)
def test_the_grammar_admits(svg: str, paints: dict[int, int]) -> None:
    assert audit_svg(svg, PALETTE).paints == paints


OFFENCES = {
    "an unknown element": within("<rect/>"),
    "a script": within("<script>1</script>"),
    "a script under another prefix": within('<s:script xmlns:s="http://www.w3.org/2000/svg">1</s:script>'),
    "foreign content": within("<foreignObject/>"),
    "an animation": within(f'<g fill="#FFFFFF">{PATH[:-2]}><set attributeName="fill" to="red"/></path></g>'),
    "a nested svg": within(ROOT + "</svg>"),
    "an image": within('<image href="file:///etc/passwd"/>'),
    "a use": within('<use href="#a"/>'),
    "a link": within(f'<a href="https://example.com">{PATH}</a>'),
    "another root": "<g/>",
    "two roots": within("") + ROOT,
    "nothing": "",
    "a style element": within("<style>*{fill:red}</style>"),
    "a style attribute": within('<path d="M0 0h1" fill="#C8262B" style="fill:red"/>'),
    "a class": within('<path d="M0 0h1" fill="#C8262B" class="a"/>'),
    "an event handler": within('<path d="M0 0h1" fill="#C8262B" onclick="alert(1)"/>'),
    "an event handler on the root": ROOT.replace("<svg", '<svg onload="alert(1)"') + "</svg>",
    "a transform": within('<g transform="scale(2)"/>'),
    "an opacity": within('<g opacity=".5"/>'),
    "a fill-opacity": within('<g fill-opacity=".5"/>'),
    "a filter": within('<g filter="url(#f)"/>'),
    "a clip-path": within('<g clip-path="url(#c)"/>'),
    "a reference": within('<g xlink:href="#a"/>'),
    "another namespace": within('<g xmlns="http://www.w3.org/1999/xhtml"/>'),
    "another default namespace": ROOT.replace("2000/svg", "1999/xhtml") + "</svg>",
    "no namespace": '<svg viewBox="0 0 8 8" width="8" height="8"/>',
    "no viewBox": within("").replace(' viewBox="0 0 8 8"', ""),
    "a relative size": within("").replace('width="8"', 'width="100%"'),
    "a DOCTYPE": "<!DOCTYPE svg>" + within(""),
    "an entity bomb": '<!DOCTYPE svg [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]>' + within("<title>&b;</title>"),
    "an external entity": '<!DOCTYPE svg [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + within("<title>&a;</title>"),
    "an undefined entity": within("<title>&nbsp;</title>"),
    "an XML declaration": '<?xml version="1.0" encoding="UTF-7"?>' + within(""),
    "a processing instruction": within('<?xml-stylesheet href="a.css"?>'),
    "a comment": within("<!-- -->"),
    "a CDATA section": within("<title><![CDATA[x]]></title>"),
    "text outside a title": within("text"),
    "an element in a title": within("<title><g/></title>"),
    "cut short": within(PATH)[:-3],
    "an attribute twice": within('<path d="M0 0h1" fill="#C8262B" fill="#FFFFFF"/>'),
    "half a surrogate pair": within("<title>\ud800</title>"),
    "a colour outside the palette": within('<path d="M0 0h1" fill="#C8262C"/>'),
    "a lower-case colour": within('<path d="M0 0h1" fill="#c8262b"/>'),
    "a short colour": within('<path d="M0 0h1" fill="#FFF"/>'),
    "a named colour": within('<path d="M0 0h1" fill="white"/>'),
    "a functional colour": within('<path d="M0 0h1" fill="rgb(255,255,255)"/>'),
    "a paint server": within('<path d="M0 0h1" fill="url(#g)"/>'),
    "currentColor": within('<path d="M0 0h1" fill="currentColor"/>'),
    "inherit": within('<path d="M0 0h1" fill="inherit"/>'),
    "an empty colour": within('<path d="M0 0h1" fill=""/>'),
    "a colour and a space": within('<path d="M0 0h1" fill="#FFFFFF "/>'),
    "a stroke outside the palette": within('<path d="M0 0h1" fill="none" stroke="black"/>'),
    "a stroke outside the palette on a group": within('<g stroke="#000000"/>'),
    "a fill on the root": within("").replace(" viewBox", ' fill="#FFFFFF" viewBox'),
    "the default black": within('<path d="M0 0h8v8z"/>'),
    "the default black of a circle": within('<g><circle cx="1" cy="1" r="1"/></g>'),
    "a fill that ended with its group": within('<g fill="#FFFFFF"/><path d="M0 0h8v8z"/>'),
    "data-ink of another ink": within('<g data-ink="white" fill="#C8262B"/>'),
    "data-ink without a fill": within('<g data-ink="white"/>'),
    "an id twice": within('<g id="a"/><g id="a"/>'),
    "an id with markup": within('<g id="a&quot;&gt;"/>'),
    "another group mode": within('<g inkscape:groupmode="none"/>'),
    "no outline": within('<path fill="#C8262B"/>'),
    "an empty outline": within('<path d="" fill="#C8262B"/>'),
    "an outline without a start": within('<path d="h1" fill="#C8262B"/>'),
    "an outline with a number too few": within('<path d="M0 0c1 2 3 4 5" fill="#C8262B"/>'),
    "an outline with a number too many": within('<path d="M0 0h1zM1 2 3" fill="#C8262B"/>'),
    "an outline with an unknown letter": within('<path d="M0 0b1" fill="#C8262B"/>'),
    "an outline with a word": within('<path d="M0 0h1 javascript:alert(1)" fill="#C8262B"/>'),
    "an outline with NaN": within('<path d="M0 NaN" fill="#C8262B"/>'),
    "an outline with an exponent": within('<path d="M0 1e9" fill="#C8262B"/>'),
    "an outline with two commas": within('<path d="M0,,1" fill="#C8262B"/>'),
    "an outline with a leading comma": within('<path d="M,0 1" fill="#C8262B"/>'),
    "an outline with foreign digits": within('<path d="M0 \u0661" fill="#C8262B"/>'),
    "an arc with a false flag": within('<path d="M0 0a1 1 0 2 0 1 1" fill="#C8262B"/>'),
    "a negative radius": within('<circle cx="0" cy="0" r="-1" fill="#C8262B"/>'),
    "a circle without a radius": within('<circle cx="0" cy="0" fill="#C8262B"/>'),
    "a radius without end": within(f'<circle cx="0" cy="0" r="{"9" * 400}" fill="#C8262B"/>'),
    "a radius that is no number": within('<circle cx="0" cy="0" r="NaN" fill="#C8262B"/>'),
    "a radius with an exponent": within('<circle cx="0" cy="0" r="1e3" fill="#C8262B"/>'),
    "a radius in per cent": within('<circle cx="0" cy="0" r="5%" fill="#C8262B"/>'),
    "a centre without end": within(f'<ellipse cx="{"9" * 400}" cy="0" rx="1" ry="1" fill="#C8262B"/>'),
    "a circle of another colour": within('<g fill="#FFFFFF"><circle cx="1" cy="1" r="1" fill="#C8262C"/></g>'),
    "an ellipse of no colour": within('<ellipse cx="1" cy="1" rx="1" ry="2"/>'),
    "a circle with a path": within('<circle cx="1" cy="1" r="1" d="M0 0h1" fill="#C8262B"/>'),
    "a circle's radii": within('<circle cx="1" cy="1" r="1" rx="2" fill="#C8262B"/>'),
    "a turned circle": within('<circle cx="1" cy="1" r="1" transform="rotate(5 1 1)" fill="#C8262B"/>'),
    "a turned path": within('<path d="M0 0h1" transform="rotate(5 1 1)" fill="#C8262B"/>'),
    "a turned group": within('<g transform="rotate(5 1 1)"/>'),
    "a turn about the origin": turned("rotate(30)"),
    "a turn about another spot": turned("rotate(30 1.5 2)"),
    "a turn about a longer number": turned("rotate(30 11.5 -2)"),
    "a turn without end": turned(f"rotate({'9' * 400} 1.5 -2)"),
    "two turns": turned("rotate(30 1.5 -2) rotate(30 1.5 -2)"),
    "a moved ellipse": turned("translate(1.5 -2)"),
    "a matrix": turned("matrix(1 0 0 1 1.5 -2)"),
    "a shape-rendering": within('<path d="M0 0h1" fill="#C8262B" shape-rendering="crispEdges"/>'),
    "a shape-rendering of the root": within("").replace(" viewBox", ' shape-rendering="crispEdges" viewBox'),
    "a shape-rendering of a circle": within('<circle cx="1" cy="1" r="1" fill="#C8262B" shape-rendering="auto"/>'),
    "a style of a circle": within('<circle cx="1" cy="1" r="1" fill="#C8262B" style="fill:red"/>'),
    "a style of an ellipse": turned("rotate(30 1.5 -2)").replace("rx=", 'style="rx:9" rx='),
    "metadata in a group": within(f"<g>{CERTIFIED}</g>"),
    "metadata twice": within(CERTIFIED + CERTIFIED),
    "two certificates": within(CERTIFIED.replace("</metadata>", CERTIFIED.removeprefix("<metadata>"))),
    "a certificate outside metadata": within(f"<livery:certificate {STATED}/>"),
    "other metadata": within('<metadata><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/></metadata>'),
    "a drawing in metadata": within(f"<metadata>{PATH}</metadata>"),
    "text in metadata": within("<metadata>99.31 %</metadata>"),
    "text in a certificate": within(f"<metadata><livery:certificate {STATED}>1</livery:certificate></metadata>"),
    "an element in a certificate": within(
        f"<metadata><livery:certificate {STATED}><g/></livery:certificate></metadata>"
    ),
    "an attribute of metadata": within(CERTIFIED.replace("<metadata>", '<metadata id="m">')),
    "a certificate of another namespace": certified("certificate:1", "certificate:2"),
    "a certificate of no namespace": certified('xmlns:livery="urn:livery:certificate:1" ', ""),
    "a certificate under another prefix": within(CERTIFIED.replace("livery:", "l:").replace("xmlns:l:", "xmlns:l=")),
    "a certificate without a tolerance": certified(' tolerance_px=".8"', ""),
    "a certificate without an agreement": certified(' agreement_pct="99.31"', ""),
    "a certificate without its nodes": certified(' nodes="12"', ""),
    "a certificate without its paths": certified(' paths="3"', ""),
    "an agreement beyond 100 %": certified('"99.31"', '"100.01"'),
    "an agreement of one decimal": certified('"99.31"', '"99.3"'),
    "an agreement that is no number": certified('"99.31"', '"nan"'),
    "a negative tolerance": certified('".8"', '"-.8"'),
    "an infinite tolerance": certified('".8"', '"inf"'),
    "a tolerance without end": certified('".8"', f'"{"9" * 400}"'),
    "a count that is not whole": certified('"12"', '"12.5"'),
    "a count with a zero before it": certified('"12"', '"012"'),
    "a count below zero": certified('arcs="2"', 'arcs="-2"'),
    "a count of squares": certified('arcs="2"', 'squares="2"'),
    "a certificate with a reference": certified('arcs="2"', 'href="https://example.com"'),
    "a certificate with a paint": certified('arcs="2"', 'fill="#C8262B"'),
}


@pytest.mark.parametrize("svg", OFFENCES.values(), ids=OFFENCES.keys())
def test_the_audit_refuses(svg: str) -> None:
    with pytest.raises(SvgAuditError):
        audit_svg(svg, PALETTE)


def test_an_offence_names_its_line() -> None:
    with pytest.raises(SvgAuditError, match=r"^line 3: <rect> in <svg>$"):
        audit_svg(within("\n\n<rect/>"), PALETTE)


def test_a_path_of_a_million_numbers_is_audited_without_delay() -> None:
    """A hang guard: a grammar that backtracks would never come back from the false letter at the end."""
    with pytest.raises(SvgAuditError):
        audit_svg(within(f'<path d="M0 0{"l1 1 2-3" * 125_000}x" fill="#C8262B"/>'), PALETTE)
