"""The playground: the page in a real browser, driven as a person would; and what its server hands on, and what not."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from PIL import Image

from pipeline.export.audit import audit_svg
from pipeline.palette import DEFAULT_PALETTE
from pipeline.palette_files import MAX_FILE_BYTES, read_palette_file
from pipeline.presets import PRESETS
from pipeline.schema import Format, JobInput
from pipeline.types import Ink, Palette
from serve import playground
from serve.__main__ import main as serve_main
from serve.limits import RUN_BYTES
from serve.playground import ANSWER_BYTES, CLIENT, PAGE, POLICY, SAMPLE, playground_application
from tests.drive_playground import CHROMIUM, Page, browser
from tests.faulty_worker import BUSY, HANGS
from tests.images import exif
from tests.serving import ROOT, Server, server, until
from tests.test_palette import FILES

KEY = "rpa_a-key-of-this-test-alone"
NEVER = ("--port", "70000")
"""What keeps a server from starting that should have been refused."""

TOUCH_PX = 44
WIDE, PHONE = (1280, 800), (375, 812)

in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: the playground was not driven")


# ---- the page's files


class Markup(HTMLParser):
    """The attributes of each tag in the page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed((PAGE / "index.html").read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def values(self, name: str) -> list[str | None]:
        """What the controls of one name may say."""
        return [attributes.get("value") for _, attributes in self.tags if attributes.get("name") == name]

    def control(self, **wanted: str) -> dict[str, str | None]:
        return next(has for _, has in self.tags if wanted.items() <= has.items())


def test_the_page_needs_nothing_from_elsewhere_and_nothing_inline() -> None:
    known = {"http://www.w3.org/2000/svg"}
    for path in PAGE.iterdir():
        assert set(re.findall(r"https?://[^\s\"'`)]+", path.read_text("utf-8"))) <= known, path.name
    for tag, attributes in Markup().tags:
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        assert tag != "script" or attributes["src"]
    assert "unsafe" not in POLICY
    assert "*" not in POLICY


def test_the_page_offers_what_the_contract_takes() -> None:
    markup, fields, output = Markup(), JobInput.model_fields, JobInput().output
    for name in ("detail", "tone", "line_work"):
        has = markup.control(name=name)
        assert (has["min"], has["max"], float(has["value"] or "")) == ("0", "1", fields[name].default)
    tolerance = markup.control(name="tolerance_px")
    assert float(tolerance["value"] or "") == output.tolerance_px
    assert tolerance["min"] == "0.1"
    assert markup.values("engine") == list(get_args(fields["engine"].annotation))
    assert markup.values("mode") == list(get_args(fields["mode"].annotation))
    assert markup.values("formats") == list(get_args(Format))
    assert markup.values("seed") == [str(fields["seed"].default)]
    text = (PAGE / "index.html").read_text("utf-8")
    assert all(f".{suffix}" in text for suffix in ("gpl", "ase", "aco", "csv", "json", "txt", "hex"))


def test_every_control_has_a_name() -> None:
    markup = Markup()
    labelled = {has["for"] for tag, has in markup.tags if tag == "label" and "for" in has}
    text = (PAGE / "index.html").read_text("utf-8")
    inside = re.findall(r"<label.*?</label>", text, re.DOTALL)
    wrapped = {name for label in inside for name in re.findall(r'(?:id|name)="([^"]+)"', label)}
    for tag, has in markup.tags:
        if tag in ("input", "select", "textarea"):
            assert "aria-label" in has or {has.get("id"), has.get("name")} & (labelled | wrapped), has


# ---- the server of the page


@asynccontextmanager
async def page_before(upstream: web.Application | None, key: str | None = KEY) -> AsyncIterator[TestClient[Any, Any]]:
    """The page's server in front of an endpoint; None for one that doesn't answer."""
    async with TestServer(upstream or web.Application()) as endpoint:
        url = str(endpoint.make_url("/v2/abc"))
        if upstream is None:
            await endpoint.close()
        async with TestClient(TestServer(playground_application(url, key))) as client:
            yield client


class Upstream:
    """An endpoint that notes what it is asked, and answers each job's status as it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str | None, bytes]] = []
        self.answer = web.json_response({"id": "j-1", "status": "IN_QUEUE"})
        self.application = web.Application(client_max_size=RUN_BYTES * 2)
        self.application.router.add_route("*", "/{path:.*}", self.take)

    async def take(self, request: web.Request) -> web.StreamResponse:
        told = request.headers.get("Authorization"), await request.read()
        self.asked.append((request.method, request.path, *told))
        return self.answer


def test_a_server_in_front_of_an_endpoint_adds_the_key_and_tells_it_to_nobody() -> None:
    async def go() -> None:
        upstream = Upstream()
        async with page_before(upstream.application) as client:
            answers = []
            for method, path, body in (
                ("POST", "/run", b'{"input": {}}'),
                ("GET", "/status/j-1", b""),
                ("POST", "/cancel/j-1", b"{}"),
                ("GET", "/health", b""),
            ):
                kind = {"Content-Type": "application/json"} if body else {}
                upstream.answer = web.json_response({"id": "j-1", "status": "IN_QUEUE"})
                answer = await client.request(method, path, data=body or None, headers=kind)
                assert answer.status == 200, path
                answers.append(str(answer.headers) + await answer.text())
            assert [(method, path) for method, path, _, _ in upstream.asked] == [
                ("POST", "/v2/abc/run"),
                ("GET", "/v2/abc/status/j-1"),
                ("POST", "/v2/abc/cancel/j-1"),
                ("GET", "/v2/abc/health"),
            ]
            assert {told for _, _, told, _ in upstream.asked} == {f"Bearer {KEY}"}
            assert upstream.asked[0][3] == b'{"input": {}}'
            pages = ("/", "/playground/facts.json", "/playground/app.js")
            answers += [await (await client.get(path)).text() for path in pages]
            assert not any(KEY in answer for answer in answers)

    asyncio.run(go())


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {"Host": "rebound.test"}, 403),
        ("POST", "/run", {"Origin": "https://elsewhere.test", "Content-Type": "application/json"}, 403),
        ("POST", "/run", {"Content-Type": "text/plain"}, 415),
        ("POST", "/runsync", {"Content-Type": "application/json"}, 404),
        ("POST", "/purge-queue", {}, 404),
        ("GET", "/run", {}, 405),
        ("GET", "/status/..%2f..%2fother", {}, 404),
        ("GET", "/status/a%3fkey", {}, 404),
        ("GET", "/playground/..%2fserve%2flimits.py", {}, 404),
        ("GET", "/playground/%2e%2e/README.md", {}, 404),
        ("GET", "/README.md", {}, 404),
        ("GET", "/v2/abc/health", {}, 404),
    ],
)
def test_nothing_else_is_reached(method: str, path: str, headers: dict[str, str], status: int) -> None:
    async def go() -> None:
        upstream = Upstream()
        async with page_before(upstream.application) as client:
            reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
            told = {"Host": f"127.0.0.1:{client.port}", "Connection": "close", "Content-Length": "2", **headers}
            lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
            writer.write(f"{method} {path} HTTP/1.1\r\n{lines}\r\n{{}}".encode())
            answer = await reader.read()
            writer.close()
            assert answer.split()[1] == str(status).encode(), answer[:200]
            assert upstream.asked == []

    asyncio.run(go())


@pytest.mark.parametrize(
    ("answer", "status", "sentence"),
    [
        (web.HTTPUnauthorized, 403, "the endpoint refuses the key: check --key-file"),
        (web.HTTPForbidden, 403, "the endpoint refuses the key: check --key-file"),
        (lambda: web.HTTPFound("/v2/b"), 502, "the endpoint answers with a redirect: check --endpoint"),
        (web.HTTPNotFound, 404, "the endpoint answers with HTTP 404"),
        (web.HTTPTooManyRequests, 429, "the endpoint answers with HTTP 429"),
        (web.HTTPBadGateway, 502, "the endpoint answers with HTTP 502"),
        (lambda: web.Response(body=b" " * (ANSWER_BYTES + 1)), 502, "the endpoint's answer is larger than 32 MB"),
    ],
)
def test_what_an_endpoint_refuses_comes_back_as_a_sentence(answer: Any, status: int, sentence: str) -> None:
    async def go() -> None:
        upstream = Upstream()
        upstream.answer = answer()
        async with page_before(upstream.application) as client:
            got = await client.get("/status/j-1")
            told = await got.json()
            assert (got.status, told["error"].split(": ", 1)[1]) == (status, sentence)
            assert told["retryable"] is (status in (429, 502) and "HTTP" in sentence)

    asyncio.run(go())


def test_an_endpoint_that_does_not_answer_is_an_error_to_retry() -> None:
    async def go() -> None:
        async with page_before(None) as client:
            got = await client.get("/health")
            assert (got.status, (await got.json())["code"]) == (502, "Unreachable")

    asyncio.run(go())


def test_requests_and_palettes_have_their_limits() -> None:
    async def go() -> None:
        upstream = Upstream()
        async with page_before(upstream.application) as client:
            kind = {"Content-Type": "application/json"}
            assert (await client.post("/run", data=b" " * (RUN_BYTES + 1), headers=kind)).status == 413
            assert (await client.post("/palette", data=b" " * (MAX_FILE_BYTES + 1))).status == 413
            assert upstream.asked == []

    asyncio.run(go())


@pytest.mark.parametrize("name", FILES)
def test_palette_files_are_read_as_the_command_line_reads_them(name: str) -> None:
    async def go() -> None:
        async with page_before(None) as client:
            answer = await client.post("/palette", params={"name": name}, data=FILES[name])
            inks = [{"hex": ink.hex, "name": ink.name} for ink in read_palette_file(FILES[name], name).inks]
            assert await answer.json() == inks

    asyncio.run(go())


@pytest.mark.parametrize(
    ("name", "data", "error"),
    [
        (None, b"#111 #zzz", 'palette[1]: "#zzz" is not a hex colour'),
        (None, b"https://colours.test/111111-222222", '"colours.test" is not a palette site'),
        (None, b"\xff\xfe", "palette: is not UTF-8 text"),
        (None, b"", "palette: needs 2 to 64 colours, not 0"),
        ("a.gpl", b"x", 'a.gpl line 1: does not begin with "GIMP Palette"'),
        ("../../secret/b.ase", b"ASEX", "b.ase: is not an Adobe Swatch Exchange file"),
        ("", b"", "is not a palette format"),
    ],
)
def test_a_palette_that_cannot_be_read_is_an_error_with_its_place(name: str | None, data: bytes, error: str) -> None:
    async def go() -> None:
        async with page_before(None) as client:
            answer = await client.post("/palette", params={} if name is None else {"name": name}, data=data)
            told = await answer.json()
            assert (answer.status, told["code"]) == (400, "PaletteError")
            assert error in told["error"]
            assert "secret" not in told["error"]

    asyncio.run(go())


def test_the_page_is_told_the_contract_s_own_values() -> None:
    async def go() -> None:
        async with page_before(None) as client:
            facts = await (await client.get("/playground/facts.json")).json()
            assert facts["remote"] is True
            assert [ink["hex"] for ink in facts["palette"]] == list(DEFAULT_PALETTE.hexes)
            assert facts["presets"] == json.loads(json.dumps(PRESETS))
            sample = await (await client.get("/playground/sample.jpg")).read()
            assert sample == base64.b64decode(json.loads(SAMPLE.read_text())["input"]["image"])
            served = await (await client.get("/playground/livery.mjs")).read()
            assert served == CLIENT.read_bytes()

    asyncio.run(go())


@pytest.mark.parametrize(
    "address",
    [
        "http://api.test/v2/a",
        "ftp://api.test",
        "https://",
        "https://me:pw@api.test/",
        "https://api.test/?a=b",
        "https://[",
    ],
)
def test_an_endpoint_that_a_key_must_not_go_to_is_refused_at_start(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["playground", "--endpoint", address, *NEVER])
    with pytest.raises(SystemExit):
        playground.main()
    assert "--endpoint: " in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"two words", b"\xffkey", None])
def test_a_key_file_that_holds_no_key_is_refused_and_not_repeated(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setattr(
        sys, "argv", ["playground", "--endpoint", "https://api.test/v2/a", "--key-file", str(file), *NEVER]
    )
    with pytest.raises(SystemExit):
        playground.main()
    told = capsys.readouterr().err
    assert "--key-file: " in told
    assert "words" not in told


def test_a_server_with_a_key_serves_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text(KEY)
    monkeypatch.setattr(sys, "argv", ["serve", "--playground", "--key-file", str(tmp_path / "key")])
    with pytest.raises(SystemExit):
        serve_main()
    assert "--playground: " in capsys.readouterr().err


# ---- a person at the page


@pytest.fixture(scope="module")
def local() -> Iterator[Server]:
    """The page on top of a server; its worker is the real one but where a seed names a defect."""
    with server("--playground", "--worker", str(ROOT / "tests" / "faulty_worker.py"), LIVERY_THREADS="1") as running:
        yield running


@pytest.fixture(scope="module")
def tab() -> Iterator[Page]:
    with browser() as page:
        yield page


@pytest.fixture
def page(local: Server, tab: Page) -> Iterator[Page]:
    """The page as it is first seen, on a wide screen; whatever it complains of fails the test."""
    tab.look_through(*WIDE)
    tab.faults.clear()
    tab.addresses.clear()
    open_page(tab, local)
    yield tab
    assert tab.faults == []
    inside = (f"http://127.0.0.1:{local.port}/", f"blob:http://127.0.0.1:{local.port}/", "data:")
    assert [address for address in tab.addresses if not address.startswith(inside)] == []


def open_page(tab: Page, local: Server) -> None:
    tab.open(f"http://127.0.0.1:{local.port}/")
    tab.wait_for("document.querySelectorAll('#preset option').length > 1")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photo of test_input.json at a size that is quick to draw, as a telephone stores it: turned, with EXIF."""
    sample = base64.b64decode(json.loads(SAMPLE.read_text())["input"]["image"])
    upright = Image.open(io.BytesIO(sample)).resize((480, 320))
    path = tmp_path_factory.mktemp("photos") / "my car.jpg"
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    turned.save(path, "JPEG", quality=90, exif=b"Exif\0\0" + exif(6))
    return path


def drop(page: Page, photo: Path) -> None:
    page.choose_files("#photo-file", photo)
    drawn(page)


def drawn(page: Page, said: str = "Preview ready") -> None:
    """Wait until the drawing and its files are there."""
    page.wait_for(f"document.querySelector('#doing').textContent.startsWith({json.dumps(said)})")


def drawn_after(page: Page, act: Callable[[], None]) -> None:
    """Do something, and wait for the drawing that comes of it."""
    page.evaluate("document.querySelector('#doing').textContent = ''")
    act()
    drawn(page)


def report_of(page: Page) -> dict[str, Any]:
    """The report, downloaded."""
    (page.downloads / "my car.json").unlink(missing_ok=True)
    page.click("#files a[download='my car.json']")
    return dict(json.loads(page.downloaded("my car.json")))


def slide(page: Page, name: str, key: str, times: int) -> None:
    page.evaluate(f"document.querySelector('[name={name}]').focus()")
    page.press(key, times)


def palette_of(report: dict[str, Any]) -> Palette:
    return Palette(tuple(Ink(ink["hex"], ink["name"]) for ink in report["palette"]))


@in_a_browser
def test_a_photo_becomes_a_preview_with_its_legend(page: Page, photo: Path) -> None:
    assert "Choose a photo" in page.text("#doing")
    assert page.evaluate("document.querySelector('#make').disabled") is True
    drop(page, photo)
    report = report_of(page)
    assert report["engine"] == "draft"
    assert page.text("#badge") == "Draft preview"
    rows = page.evaluate("[...document.querySelectorAll('#legend li')].map((row) => row.innerText)")
    assert len(rows) == len(report["palette"]) == 15
    for row, ink in zip(rows, report["palette"], strict=True):
        assert ink["name"] in row
        assert (f"{ink['coverage_pct']:.1f} %" in row) or "< 0.1 %" in row
    fills = page.evaluate("[...document.querySelectorAll('#drawing g')].map((layer) => layer.getAttribute('fill'))")
    assert set(fills) == {ink["hex"] for ink in report["palette"] if ink["paths"]}


@in_a_browser
def test_a_slider_moved_by_keys_draws_anew(page: Page, photo: Path) -> None:
    drop(page, photo)
    before = report_of(page)["nodes"]
    drawn_after(page, lambda: slide(page, "detail", "ArrowLeft", 6))
    report = report_of(page)
    assert report["options"]["detail"] == pytest.approx(0.2)
    assert report["nodes"] < before
    drawn_after(page, lambda: slide(page, "line_work", "End", 1))
    assert report_of(page)["options"]["line_work"] == 1


@in_a_browser
def test_a_change_stops_the_preview_that_it_makes_pointless(page: Page, local: Server, photo: Path) -> None:
    drop(page, photo)
    before = cancelled(local)
    slide(page, "detail", "Home", 1)
    until(lambda: local.ask("GET", "/health").json["jobs"]["inProgress"] or None)
    drawn_after(page, lambda: slide(page, "detail", "ArrowRight", 1))
    assert report_of(page)["options"]["detail"] == pytest.approx(0.05)
    assert cancelled(local) == before + 1


def cancelled(local: Server) -> int:
    """Jobs that were cancelled so far."""
    found = re.search(r'livery_jobs_total\{outcome="cancelled"\} (\d+)', local.ask("GET", "/metrics").body.decode())
    assert found is not None
    return int(found[1])


@in_a_browser
def test_a_preview_leaves_out_what_the_studio_engine_alone_knows(page: Page, photo: Path) -> None:
    page.click("#engine-group summary")
    page.click("[name=mode][value=faithful]")
    drop(page, photo)
    assert report_of(page)["engine"] == "draft"


@in_a_browser
def test_a_palette_is_pasted(page: Page, photo: Path) -> None:
    drop(page, photo)
    page.click("[name=source][value=text]")
    page.click("#palette-text")
    page.write("https://coolors.co/111318-5b6770-e9ecee-d7263d")
    drawn_after(page, lambda: page.click("#use-text"))
    assert palette_of(report_of(page)).hexes == ("#111318", "#5B6770", "#E9ECEE", "#D7263D")
    assert page.text("#palette-note") == "4 inks from the text."
    assert page.evaluate("document.querySelectorAll('#swatches .swatch:not(.add)').length") == 4


@in_a_browser
def test_a_palette_that_cannot_be_read_is_said_where_it_stands(page: Page, photo: Path) -> None:
    drop(page, photo)
    page.click("[name=source][value=text]")
    page.click("#palette-text")
    page.write("#111318, #5B6770, nothing")
    page.click("#use-text")
    told = page.wait_for("document.querySelector('#palette-fault').textContent")
    assert told == '"nothing" is not a hex colour'
    assert page.text("#alert") == f"Ink 3: {told}"
    assert page.evaluate("document.querySelector('#palette').getAttribute('aria-invalid')") == "true"
    assert page.faults == ["Failed to load resource: the server responded with a status of 400 (Bad Request)"]
    page.faults.clear()
    page.click("[name=source][value=inks]")
    drawn(page)
    assert not page.shown("#palette-fault")
    assert not page.shown("#alert")


@in_a_browser
@pytest.mark.parametrize("name", ["p.gpl", "p.ase"])
def test_a_palette_file_is_read(name: str, page: Page, photo: Path, tmp_path: Path) -> None:
    drop(page, photo)
    (tmp_path / name).write_bytes(FILES[name])
    page.click("[name=source][value=file]")
    drawn_after(page, lambda: page.choose_files("#palette-file", tmp_path / name))
    assert palette_of(report_of(page)) == read_palette_file(FILES[name], name)


@in_a_browser
def test_inks_are_taken_from_the_photo_and_kept(page: Page, photo: Path) -> None:
    drop(page, photo)
    drawn_after(page, lambda: page.click("[name=source][value=photo]"))
    page.evaluate("document.querySelector('#extract').focus()")
    page.press("Home")
    drawn_after(page, lambda: page.press("ArrowRight", 3))
    taken = palette_of(report_of(page))
    assert len(taken) == 5
    drawn_after(page, lambda: page.click("#keep-inks"))
    report = report_of(page)
    assert report["options"]["palette"] == [{"hex": ink.hex, "name": ink.hex} for ink in taken.inks]


@in_a_browser
def test_an_ink_is_changed_named_added_and_removed(page: Page, photo: Path) -> None:
    drop(page, photo)
    page.click("#swatches .swatch:nth-child(9)")
    assert page.evaluate("document.querySelector('#ink-name').value") == "Signal red"
    page.click("#ink-hex")
    page.evaluate("document.querySelector('#ink-hex').select()")
    page.write("#0055aa")
    drawn_after(page, lambda: page.press("Tab"))
    assert Ink("#0055AA", "Signal red") in palette_of(report_of(page)).inks
    drawn_after(page, lambda: page.click("#ink-remove"))
    assert len(palette_of(report_of(page))) == 14
    drawn_after(page, lambda: page.click(".add"))
    assert palette_of(report_of(page)).hexes[-1] == "#808080"


def seen_layers(page: Page, picture: str) -> set[int]:
    # checkVisibility says nothing of shapes.
    widths = "map((layer) => layer.getBoundingClientRect().width)"
    layers = page.evaluate(f"[...document.querySelectorAll('{picture} g')].{widths}")
    return {i for i, width in enumerate(layers) if width > 0}


@in_a_browser
def test_a_layer_is_hidden_and_shown(page: Page, photo: Path) -> None:
    drop(page, photo)
    page.click("#show-nodes")
    red = DEFAULT_PALETTE.hexes.index("#C8262B")
    layers = page.evaluate("[...document.querySelectorAll('#drawing g')].map((layer) => layer.getAttribute('fill'))")
    reds = [i for i, fill in enumerate(layers) if fill == "#C8262B"]
    everything = set(range(len(layers)))
    assert seen_layers(page, "#drawing") == seen_layers(page, "#nodes") == everything
    page.click(f"#legend li:nth-child({red + 1}) label")
    assert seen_layers(page, "#drawing") == seen_layers(page, "#nodes") == everything - set(reds)
    page.click("#all-off")
    assert seen_layers(page, "#drawing") == set()
    page.click("#all-on")
    assert seen_layers(page, "#drawing") == everything


@in_a_browser
def test_photo_and_illustration_are_compared_by_mouse_and_by_keys(page: Page, photo: Path) -> None:
    drop(page, photo)
    cut = "getComputedStyle(document.querySelector('#photo')).clipPath"
    assert page.evaluate(cut) == "inset(0px 50% 0px 0px)"
    page.drag("#stage", 0.5, 0.2)
    assert page.evaluate(cut) == "inset(0px 80% 0px 0px)"
    page.tab_to("#cut")
    page.press("End")
    assert page.evaluate(cut) == "inset(0px 0% 0px 0px)"
    page.press("ArrowLeft", 10)
    assert page.evaluate(cut) == "inset(0px 10% 0px 0px)"
    width = "document.querySelector('#stage').clientWidth"
    fit = page.evaluate(width)
    page.click("[data-zoom='4']")
    assert page.evaluate(width) == pytest.approx(4 * fit, abs=60)  # scroll bars take some


@in_a_browser
def test_the_node_view_has_a_dot_for_each_node(page: Page, photo: Path) -> None:
    drop(page, photo)
    page.click("#show-nodes")
    report = report_of(page)
    data = page.evaluate("[...document.querySelectorAll('#nodes .dot')].map((dots) => dots.getAttribute('d')).join('')")
    ovals = page.evaluate("document.querySelectorAll('#drawing circle, #drawing ellipse').length")
    assert data.count("M") == report["nodes"] - ovals  # an oval's outline starts and ends at one dot
    places = [(float(x), float(y)) for x, y in re.findall(r"M(\S+) (\S+)h0", data)]
    size = report["size"]
    assert all(-2 <= x <= size["width"] + 2 and -2 <= y <= size["height"] + 2 for x, y in places)
    page.click("#show-nodes")
    assert not page.shown("#nodes")


@in_a_browser
def test_more_nodes_than_can_be_shown_are_counted(page: Page, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (320, 480, 3), np.uint8)
    Image.fromarray(noise).resize((960, 640), Image.Resampling.NEAREST).save(tmp_path / "my car.png")
    slide(page, "detail", "End", 1)
    page.click("#output-group summary")
    slide(page, "tolerance_px", "Home", 1)
    drop(page, tmp_path / "my car.png")
    page.click("#show-nodes")
    assert report_of(page)["nodes"] > 20_000
    assert "at most 20,000 are shown" in page.text("#view-note")
    assert not page.shown("#nodes")
    page.click("#show-nodes")
    assert not page.shown("#view-note")


@in_a_browser
def test_the_vehicle_is_named_by_a_click_in_pixels_of_the_upright_photo(page: Page, photo: Path) -> None:
    drop(page, photo)
    page.click("[name=subject][value=point]")
    assert "Click the vehicle" in page.text("#subject-note")
    drawn_after(page, lambda: page.click("#stage", 0.4, 0.7))
    point = report_of(page)["options"]["subject"]["point"]
    assert point == pytest.approx([0.4 * 480, 0.7 * 320], abs=1)
    assert page.shown("#pin")
    drawn_after(page, lambda: page.click("[name=subject][value=auto]"))
    assert report_of(page)["options"]["subject"] == "auto"
    assert not page.shown("#pin")


@in_a_browser
def test_the_vehicle_is_named_by_keys(page: Page, photo: Path) -> None:
    drop(page, photo)
    page.click("[name=subject][value=point]")
    page.press("ArrowLeft", 5)
    page.press("ArrowDown", 10)
    drawn_after(page, lambda: page.press("Enter"))
    assert report_of(page)["options"]["subject"]["point"] == pytest.approx([0.4 * 480, 0.7 * 320], abs=1)
    page.click("[name=subject][value=auto]")
    page.click("[name=subject][value=point]")
    page.press("Escape")
    assert page.evaluate("document.querySelector('[name=subject][value=auto]').checked") is True


@in_a_browser
def test_a_drawing_is_made_and_every_file_downloaded(page: Page, photo: Path) -> None:
    drop(page, photo)
    page.click("#output-group summary")
    for name in ("pdf", "dxf", "separations"):
        page.click(f"[name=formats][value={name}]")
    page.click("#make")
    drawn(page, "Drawing ready")
    assert page.text("#badge") == "Draft drawing"
    report = report_of(page)
    names = page.evaluate("[...document.querySelectorAll('#files a')].map((link) => link.download)")
    used = sum(1 for ink in report["palette"] if ink["paths"])
    assert len(names) == 5 + used
    for name in ("my car.svg", "my car-2048.png", "my car.pdf", "my car.dxf", "my car-Signal-red.pdf"):
        page.click(f"#files a[download='{name}']")
    svg = page.downloaded("my car.svg").decode()
    audit_svg(svg, palette_of(report))
    assert set(re.findall(r'fill="([^"]+)"', svg)) <= set(DEFAULT_PALETTE.hexes)
    assert page.downloaded("my car-2048.png").startswith(b"\x89PNG")
    assert page.downloaded("my car.pdf").startswith(b"%PDF")
    assert b"ENTITIES" in page.downloaded("my car.dxf")
    assert page.downloaded("my car-Signal-red.pdf").startswith(b"%PDF")
    assert json.loads(page.downloaded("my car.json")) == report


@in_a_browser
def test_a_preset_shows_what_it_sets(page: Page, photo: Path) -> None:
    drop(page, photo)
    page.click("#output-group summary")
    page.evaluate("document.querySelector('#preset').focus()")
    drawn_after(page, lambda: page.press("ArrowDown", 4))
    assert page.evaluate("document.querySelector('#preset').value") == "vinyl"
    assert page.text("#preset-note") == "600 mm wide · nothing narrower than 1 mm · shapes meet edge to edge"
    chosen = "[...document.querySelectorAll('[name=formats]:checked')].map((box) => box.value)"
    assert page.evaluate(chosen) == ["svg", "dxf"]
    output = report_of(page)["options"]["output"]
    assert (output["preset"], output["min_feature_mm"], output["stacking"]) == ("vinyl", 1.0, "abutting")


@in_a_browser
def test_a_fault_is_said_at_its_field(page: Page, photo: Path) -> None:
    drop(page, photo)
    page.click("#output-group summary")
    page.click("[name=width_mm]")
    page.write("-5")
    place = "[data-field^='output.width_mm']"
    told = page.wait_for(f'document.querySelector("{place} .fault").textContent')
    assert told == "Must be more than 0.0, not -5"
    assert page.evaluate("document.querySelector('[name=width_mm]').getAttribute('aria-invalid')") == "true"
    assert page.text("#alert") == f"Width of the piece in mm: {told}"
    page.press("Home")
    page.evaluate("document.querySelector('[name=width_mm]').select()")
    drawn_after(page, lambda: page.write("400"))
    assert report_of(page)["options"]["output"]["width_mm"] == 400
    assert not page.shown("#alert")


@in_a_browser
def test_a_run_tells_of_its_phases_and_is_cancelled(page: Page, local: Server, photo: Path) -> None:
    drop(page, photo)
    page.click("#engine-group summary")
    page.click("[name=seed]")
    page.evaluate("document.querySelector('[name=seed]').select()")
    page.write(str(HANGS))
    page.click("#make")
    page.wait_for("document.querySelector('#doing').textContent === 'Taking off what is not the vehicle\\'s own'")
    assert page.evaluate("document.querySelector('#progress').value") == 15
    assert page.evaluate("document.activeElement.id") == "cancel"
    assert page.evaluate("document.querySelector('#all-options').disabled") is True
    page.press("Enter")
    page.wait_for("document.querySelector('#doing').textContent === 'Cancelled.'")
    assert local.ask("GET", "/health").json["jobs"]["inProgress"] == 0
    assert page.shown("#make")
    assert not page.shown("#progress")
    drawn_after(page, lambda: slide(page, "detail", "ArrowLeft", 1))


@in_a_browser
def test_a_job_that_fails_says_why(page: Page, photo: Path) -> None:
    drop(page, photo)
    page.click("#engine-group summary")
    page.click("[name=seed]")
    page.evaluate("document.querySelector('[name=seed]').select()")
    page.write(str(BUSY))
    page.click("#make")
    page.wait_for("!document.querySelector('#alert').hidden")
    assert page.text("#alert") == "Nothing to see"
    page.click("[name=engine][value=studio]")
    page.evaluate("document.querySelector('[name=seed]').value = '42'")
    page.click("#make")
    page.wait_for("document.querySelector('#alert').textContent.length > 20")
    assert page.shown("#make")


@in_a_browser
def test_what_is_no_photo_is_refused_before_it_is_sent(page: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.pdf").write_bytes(b"%PDF")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    page.choose_files("#photo-file", tmp_path / "notes.pdf")
    told = page.wait_for("document.querySelector('#image-fault').textContent")
    assert told == "notes.pdf is not a JPEG, PNG or WebP."
    page.choose_files("#photo-file", tmp_path / "broken.jpg")
    page.wait_for("document.querySelector('#image-fault').textContent.startsWith('broken.jpg is damaged')")
    assert page.evaluate("document.querySelector('#make').disabled") is True


@in_a_browser
@pytest.mark.parametrize("missing", ["facts.json", "sample.jpg"])
def test_a_server_that_went_away_is_said_where_the_page_needs_it(missing: str, tab: Page, local: Server) -> None:
    tab.call("Network.setBlockedURLs", urls=[f"*/playground/{missing}"])
    try:
        tab.open(f"http://127.0.0.1:{local.port}/")
        if missing == "sample.jpg":
            tab.wait_for("document.querySelectorAll('#preset option').length > 1")
            tab.click("#sample")
        tab.wait_for("!document.querySelector('#alert').hidden")
        assert tab.text("#alert").startswith("The server doesn't give the page what it needs.")
    finally:
        tab.call("Network.setBlockedURLs", urls=[])


@in_a_browser
def test_keys_alone_are_enough(page: Page) -> None:
    page.tab_to("#sample")
    page.press("Enter")
    drawn(page)
    page.tab_to("#cut")
    page.press("ArrowRight")
    page.tab_to("#show-nodes")
    page.press(" ")
    page.tab_to("[name=tone]")
    drawn_after(page, lambda: page.press("ArrowRight"))
    page.tab_to("#make")
    page.press("Enter")
    drawn(page, "Drawing ready")
    page.tab_to("#legend input")
    page.press(" ")
    assert page.evaluate("document.querySelectorAll('#drawing .off').length") > 0
    page.tab_to("#files a[download='sample.svg']")
    page.press("Enter")
    assert page.downloaded("sample.svg").startswith(b"<svg")


HOSTILE = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9" onload="hit()">
<script>hit()</script><style>@import 'https://elsewhere.test/a.css';</style>
<foreignObject><iframe xmlns="http://www.w3.org/1999/xhtml" src="javascript:hit()"/></foreignObject>
<image href="https://elsewhere.test/a.png" onerror="hit()"/><use href="#a"/>
<a href="javascript:hit()"><path d="m0 0z"/></a>
<g id="drop" data-ink="x" fill="url(https://elsewhere.test/b)" style="background:url(https://elsewhere.test/c)">
<path id="a" d="m1 1h2v2z" onclick="hit()" fill="#FF0000"><animate attributeName="d" onbegin="hit()"/></path>
</g></svg>"""


@in_a_browser
def test_nothing_in_a_drawing_can_run_or_load(page: Page) -> None:
    kept = page.evaluate(
        f"""(async () => {{
          globalThis.hits = 0;
          globalThis.hit = () => {{ hits += 1; }};
          const {{ pictureOf }} = await import("/playground/picture.js");
          const picture = pictureOf({json.dumps(HOSTILE)});
          document.querySelector("#drawing").append(picture);
          picture.querySelector("path").dispatchEvent(new Event("click"));
          await new Promise((resolve) => setTimeout(resolve, 100));
          return [hits, picture.outerHTML];
        }})()"""
    )
    drawing = '<g data-ink="x"><path d="m1 1h2v2z" fill="#FF0000"></path></g>'
    assert kept == [
        0,
        f'<svg viewBox="0 0 9 9" preserveAspectRatio="none">{drawing}</svg>',
    ]
    with pytest.raises(AssertionError, match="can't be read"):
        page.evaluate("import('/playground/picture.js').then(({ pictureOf }) => pictureOf('<svg'))")
    # The policy holds in the parsed text too; Chromium's own words on what it can't parse are styled as well.
    until(lambda: page.evaluate("1") if len(page.faults) >= 4 else page.evaluate("null"))
    assert all("Applying inline style violates" in fault for fault in page.faults)
    page.faults.clear()


@in_a_browser
@pytest.mark.parametrize(
    ("data", "nodes"),
    [
        ("m1 2 3 4h5v-6l.5.5z", [[1, 2], [4, 6], [9, 6], [9, 0], [9.5, 0.5]]),
        ("M10-5L20,5zm1 1", [[10, -5], [20, 5], [11, -4]]),
        ("M0 0c1 1 2 2 3 3-1-1-2-2-3-3", [[0, 0], [3, 3], [0, 0]]),
        ("M0 0a5 5 0 01.5.5 5 5 0 1 0-1-1", [[0, 0], [0.5, 0.5], [-0.5, -0.5]]),
        ("M0 0Q1 1 2 2t2 2S1 1 9 9", [[0, 0], [2, 2], [4, 4], [9, 9]]),
    ],
)
def test_path_data_is_read_as_svg_has_it(data: str, nodes: list[list[float]], page: Page) -> None:
    found = page.evaluate(f"import('/playground/picture.js').then((m) => m.nodesOfPath({json.dumps(data)}))")
    assert found == [pytest.approx(node) for node in nodes]


CONTROLS = "button, select, summary, input, textarea, .button, .segments label, .checks label, .check, #legend label"


@in_a_browser
@pytest.mark.parametrize("dark", [False, True])
def test_a_telephone_shows_it_all(dark: bool, page: Page, local: Server, photo: Path, tmp_path: Path) -> None:
    page.look_through(*PHONE, dark=dark, finger=True)
    open_page(page, local)
    drop(page, photo)
    for group in ("#output-group", "#engine-group"):
        page.evaluate(f"document.querySelector('{group}').open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
    small = page.evaluate(
        f"""[...document.querySelectorAll({json.dumps(CONTROLS)})]
          .filter((control) => control.checkVisibility() && !control.matches(".unseen"))
          .map((control) => control.closest("label") ?? control)
          .filter((control) => control.getBoundingClientRect().height < {TOUCH_PX})
          .map((control) => control.outerHTML.slice(0, 80))"""
    )
    assert small == []
    assert page.shown("#make")
    page.screenshot(tmp_path / "phone.png", whole=True)


CONTRAST = """(() => {
  const channel = (value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const parsed = (text) => text.match(/[\\d.]+/g).map(Number);
  const shares = [0.2126, 0.7152, 0.0722];
  const light = (rgb) => shares.reduce((sum, share, i) => sum + share * channel(rgb[i] / 255), 0);
  const ground = (element) => {
    for (let at = element; at !== null; at = at.parentElement) {
      const colour = parsed(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("body *")].filter((element) =>
    element.checkVisibility() && [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim() !== "")
    && element.closest("[disabled], .unused, #stage, .badge, .unseen, option") === null).map((element) => {
      const [a, b] = [light(parsed(getComputedStyle(element).color)), light(ground(element))].sort((x, y) => y - x);
      return [(a + 0.05) / (b + 0.05), element.outerHTML.slice(0, 90)];
    }).filter(([ratio]) => ratio < 4.5);
})()"""


@in_a_browser
@pytest.mark.parametrize("dark", [False, True])
def test_texts_stand_out_from_their_ground(dark: bool, page: Page, photo: Path) -> None:
    page.look_through(*WIDE, dark=dark)
    drop(page, photo)
    page.evaluate("document.querySelectorAll('details').forEach((group) => { group.open = true; })")
    assert page.evaluate(CONTRAST) == []
