"""The before/after page: whole in itself, and no ink name can break out of it."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from pipeline.export.page import render_page
from pipeline.request import parse_request
from pipeline.run import JobResult, run
from pipeline.settings import Settings
from pipeline.worker import Worker

HOSTILE = [
    "<script>alert(1)</script>",
    '"><svg onload=alert(1)>',
    "</title><img src=x onerror=alert(1)>",
    "javascript:alert(1)",
    "' autofocus onfocus='alert(1)",
    "&quot;&#x3C;b&gt;",
    "]]> --> {{7*7}}",
]


KNOWN_TAGS = {
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "main",
    "header",
    "h1",
    "p",
    "section",
    "div",
    "svg",
    "g",
    "path",
    "circle",
    "ellipse",
    "metadata",
    "livery:certificate",
    "rect",
    "img",
    "i",
    "label",
    "input",
    "span",
    "button",
    "aside",
    "h2",
    "ul",
    "li",
    "small",
    "data",
    "script",
}


class Reader(HTMLParser):
    """Collects tags, attributes and scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts.append(data)


def job(names: list[str]) -> JobResult:
    y, x = np.mgrid[0:64, 0:96]
    rgb = np.stack([x * 2, y * 3, 255 - x], axis=2).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG")
    palette = [{"hex": f"#{i * 30:02X}{200 - i * 20:02X}{i * 10:02X}", "name": name} for i, name in enumerate(names)]
    return run(
        parse_request({"palette": palette, "output": {"formats": ["svg"]}}), Worker(Settings()), data=file.getvalue()
    )


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


@pytest.fixture(scope="module")
def result() -> JobResult:
    return job(HOSTILE)


@pytest.fixture(scope="module")
def page(result: JobResult) -> str:
    return render_page('<b>"car" & co</b>.jpg', result.photo.rgb, result.drawing.svg, result.report)


def test_the_page_loads_nothing(page: str) -> None:
    for _, attributes in read(page).tags:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert (attributes.get(name) or "data:").startswith("data:image/jpeg;base64,") or name not in attributes
    assert not re.search(r"@import|url\(", page)


def test_the_policy_allows_the_page_s_own_script_and_no_other(page: str) -> None:
    reader = read(page)
    digest = base64.b64encode(hashlib.sha256("".join(reader.scripts).encode()).digest()).decode()
    policy = next(attributes["content"] for tag, attributes in reader.tags if "http-equiv" in attributes and tag)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert f"script-src 'sha256-{digest}'" in policy
    assert [tag for tag, _ in reader.tags].count("script") == 1


def test_hostile_names_stay_text(page: str) -> None:
    reader = read(page)
    assert not [name for _, attributes in reader.tags for name in attributes if name.startswith("on")]
    assert {tag for tag, _ in reader.tags} <= KNOWN_TAGS
    layers = [attributes["data-layer"] for _, attributes in reader.tags if "data-layer" in attributes]
    assert layers == HOSTILE


def test_the_legend_has_every_ink_and_switches_the_drawn_ones(page: str, result: JobResult) -> None:
    boxes = {a["data-layer"]: a for _, a in read(page).tags if "data-layer" in a}
    drawn = {a["data-ink"] for _, a in read(page).tags if "data-ink" in a}
    for ink in result.report.palette:
        assert ("disabled" in boxes[ink.name]) == (not ink.paths)
        assert (ink.name in drawn) == bool(ink.paths)


def test_photo_and_svg_are_inside(page: str, result: JobResult) -> None:
    assert result.drawing.svg in page
    assert "data:image/jpeg;base64," in page


def test_the_policy_allows_the_page_s_own_style_and_no_other(page: str) -> None:
    reader = read(page)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = next(attributes["content"] for _, attributes in reader.tags if "http-equiv" in attributes)
    assert policy is not None
    assert f"style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert not [tag for tag, attributes in reader.tags if "style" in attributes]


def test_the_page_adds_little_to_photo_and_svg(page: str, result: JobResult) -> None:
    photo = re.findall(r"data:image/jpeg;base64,[^\"]*", page)[0]
    assert len(page) - len(photo) - len(result.drawing.svg) < 12_000


def test_the_summary_and_the_legend_speak_of_the_drawing_s_kind(result: JobResult) -> None:
    stated = result.report.certificate
    assert stated is not None
    made = render_page("car.jpg", result.photo.rgb, result.drawing.svg, result.report)
    assert f'agreement_pct="{re.findall(r"([0-9.]+) % true to its map", made)[0]}"' in result.drawing.svg
    assert "Layers are stacked" in made
    nearly = result.report.model_copy(update={"certificate": stated.model_copy(update={"agreement_pct": 99.9999})})
    made = render_page("car.jpg", result.photo.rgb, result.drawing.svg, nearly)
    assert "99.99 % true to its map" in made
    output = result.report.options.output.model_copy(update={"stacking": "abutting"})
    options = result.report.options.model_copy(update={"output": output})
    report = result.report.model_copy(update={"certificate": None, "options": options})
    made = render_page("car.jpg", result.photo.rgb, result.drawing.svg, report)
    assert "true to its map" not in made
    assert "Layers meet edge to edge" in made


def test_the_photo_is_the_working_frame_s(page: str, result: JobResult) -> None:
    data = base64.b64decode(re.findall(r"data:image/jpeg;base64,([^\"]*)", page)[0], validate=True)
    shown = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.int16)
    assert shown.shape == result.photo.rgb.shape
    assert np.abs(shown - result.photo.rgb).mean() < 6


def test_a_share_too_small_to_show_is_not_shown_as_none(result: JobResult) -> None:
    tiny = result.report.palette[0].model_copy(update={"coverage_pct": 0.01, "paths": 1, "name": "Speck"})
    report = result.report.model_copy(update={"palette": (tiny,)})
    made = render_page("car.jpg", result.photo.rgb, result.drawing.svg, report)
    assert "<data>&lt; 0.1 %</data>" in made
    assert "1 path</small>" in made
