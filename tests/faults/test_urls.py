"""Photos by address: what may not be reached is not, without a packet; what may be is held to its limits."""

from __future__ import annotations

import gzip
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_network

import pytest

from pipeline.decode import MAX_BYTES
from pipeline.errors import Cancelled, FetchError, ImageTooLarge
from pipeline.fetch import DEADLINE_S, PUBLIC, Reach, fetch_image
from tests.faults.conftest import Figure
from tests.fetching import DRAW, HOST, PHOTO, PRIVATE, Names, Site, connects, refusal, site, url
from tests.photo_server import PhotoServer, Serve, Talk

CANARY = "c4n4ry"


@pytest.fixture(scope="module")
def own_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("certificates")) as running:
        yield running


@pytest.fixture
def server(own_site: Site) -> PhotoServer:
    return own_site.fresh()


@pytest.fixture
def reach(own_site: Site, server: PhotoServer) -> Reach:
    return own_site.reach()


# ---- what is blocked

ODD_HOSTS = [
    *("0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "0X7F.1", "2130706433", "017700000001", "127.1", "127.0.1", "0", "0x"),
    *("127.0.0.1.", "127.0.0.0x1", "127.0.0.01", "256.256.256.256", "1.2.3.4.5", "127.0.0.1.2130706433", "08.8.8.8"),
    *(
        "１２７.０.０.１",
        "①②⑦.0.0.1",
        "127。0。0。1",
        "ⓛocalhost",
        "\u212aelvin.test",
        "localhoſt",
        "[::1%25lo]",
        "[::ffff:0x7f.1]",
        "[127.0.0.1]",
    ),
    *(
        "[::1",
        "::1",
        "[fe80::1%lo]",
        f"{HOST}@127.0.0.1",
        f"{HOST}:x@127.0.0.1",
        f"{HOST}\\@127.0.0.1",
        "%31%32%37.0.0.1",
    ),
    *(f"127.0.0.1\t.{HOST}", f"127.0.0.1\n.{HOST}", f"127.0.0.1 {HOST}", "127.0.0.1\0.test", "a..test", "-a.test", ""),
    *("bücher.test", "a" * 64 + ".test", ".".join(["a" * 60] * 5), "local\u00adhost", "loca\u200blhost", "*.test"),
]


ODD_URLS = [
    "http://127.0.0.1/x",
    "ftp://127.0.0.1/x",
    "file:///etc/passwd",
    "gopher://127.0.0.1/x",
    "//127.0.0.1/x",
    "https:127.0.0.1/x",
    "https:/127.0.0.1/x",
    "https:///127.0.0.1/x",
    "https:\\\\127.0.0.1/x",
    " https://127.0.0.1/x",
    "HTTPS://127.0.0.1/x",
    "data:image/png;base64,AAAA",
    "s3://",
    "s3://bucket/key",
    "s3://127.0.0.1/key",
    "",
    "x",
    "https://" + "a" * 9000,
    "https://photos.test:22/x",
    "https://photos.test:0/x",
    "https://photos.test:65536/x",
    "https://photos.test:99999999/x",
    "https://photos.test:/x",
    "https://photos.test:４４３/x",
    "https://photos.test:443:443/x",
    "https://photos.test/\ud800",
]


@dataclass(frozen=True)
class Blocked:
    """A case: an address, and what names resolve to."""

    address: str
    names: dict[str, list[list[str]]]
    asks: bool = False
    """Whether its host is looked up at all."""


def blocked_cases(port: int) -> list[Blocked]:
    def bracketed(text: str) -> str:
        return f"[{text}]" if ":" in text else text

    cases = [Blocked(f"https://{bracketed(text)}:{port}/x", {}) for text in PRIVATE]
    cases += [Blocked(f"https://{HOST}:{port}/x", {HOST: [[text]]}, asks=True) for text in PRIVATE]
    cases += [Blocked(f"https://{host}:{port}/x", {host: [["127.0.0.1"]]}) for host in ODD_HOSTS]
    cases += [Blocked(address, {HOST: [["127.0.0.1"]]}) for address in ODD_URLS]
    # One address out of reach rules out the name, wherever it stands, and in a form of the resolver's own.
    for answer in (["8.8.8.8", "127.0.0.1"], ["2606:4700::1111", "::1"], ["127.0.0.1", "8.8.8.8"], ["fe80::1%lo"], []):
        cases.append(Blocked(f"https://{HOST}:{port}/x", {HOST: [answer]}, asks=True))
    # Names that the machine's own resolver knows, which a resolver of our own stands for.
    for name in ("localhost", "localhost.", "LOCALHOST", "ip6-localhost", "metadata.google.internal", "a.localhost"):
        cases.append(Blocked(f"https://{name}:{port}/x", {name.lower().rstrip("."): [["127.0.0.1"]]}, asks=True))
    return cases


def test_every_address_that_is_not_public_is_blocked_without_a_packet(
    own_site: Site, server: PhotoServer, figure: Figure
) -> None:
    cases = blocked_cases(server.port)
    assert len(cases) >= 60
    for case in cases:
        names = Names(case.names)
        worker = Reach(names, (), frozenset({443, server.port}), own_site.authority.trusting())
        fault = refusal(case.address, worker)
        assert isinstance(fault, FetchError), case.address
        assert len(names.asked) == case.asks, case.address
    assert connects == []
    assert server.reached == []
    figure("image URLs", f"{len(cases)} of {len(cases)} addresses blocked, 0 connections", "100 % of 60, 0 packets")


def test_the_guard_is_what_blocks_them(server: PhotoServer, reach: Reach) -> None:
    # The same server answers as soon as loopback is in reach: the test above could fail.
    assert fetch_image(url(server, host="127.0.0.1"), reach=reach) == PHOTO
    assert server.reached == ["127.0.0.1"]
    assert connects == [("127.0.0.1", server.port)]


REDIRECTED = [*PRIVATE, "inner.test", "0177.0.0.1", "2130706433", f"{HOST}@127.0.0.1", "unknown.test"]


def test_redirects_to_such_addresses_are_blocked(server: PhotoServer, reach: Reach, figure: Figure) -> None:
    outside = replace(reach, allowed=(ip_network("127.0.0.3/32"),), resolve=Names({HOST: [["127.0.0.3"]], **inner()}))
    for host in REDIRECTED:
        target = f"https://{f'[{host}]' if ':' in host else host}:{server.port}/photo.jpg"
        server.routes["/go"] = lambda talk, target=target: talk.send("302 Found", location=target)  # type: ignore[misc]
        connects.clear()
        server.forget()
        assert isinstance(refusal(url(server, "/go"), outside), FetchError), host
        assert server.reached == ["127.0.0.3"]
        assert connects == [("127.0.0.3", server.port)]
    measured = f"{len(REDIRECTED)} of {len(REDIRECTED)} redirects blocked, 0 connections beyond the first"
    figure("image URLs", measured, "100 %, 0 packets")


def inner() -> dict[str, list[list[str]]]:
    return {"inner.test": [["127.0.0.2"]]}


NOT_SERVED = "is redirected to an address that is not served"


LOCATIONS = {
    f"http://{HOST}:PORT/photo.jpg": NOT_SERVED,
    f"ftp://{HOST}:PORT/photo.jpg": NOT_SERVED,
    "s3://pictures/photo.jpg": NOT_SERVED,
    "file:///etc/passwd": NOT_SERVED,
    "https://[": NOT_SERVED,
    f"https://{HOST}:22/photo.jpg": "must use port PORT",
    "//inner.test:PORT/photo.jpg": "leads to an address that is not public",
}


@pytest.mark.parametrize("location", LOCATIONS)
def test_redirects_keep_to_https_and_to_what_is_public(location: str, server: PhotoServer, reach: Reach) -> None:
    server.routes["/go"] = lambda talk: talk.send("301 Moved", location=location.replace("PORT", str(server.port)))
    fault = refusal(url(server, "/go"), reach)
    assert fault.message == LOCATIONS[location].replace("PORT", str(server.port))
    assert server.reached == ["127.0.0.1"]


def test_a_name_that_changes_between_check_and_use_is_connected_as_checked(
    server: PhotoServer, reach: Reach, figure: Figure
) -> None:
    names = Names({HOST: [["127.0.0.1"], ["127.0.0.2"]]})
    assert fetch_image(url(server), reach=replace(reach, resolve=names)) == PHOTO
    assert names.asked == [HOST]
    assert server.reached == ["127.0.0.1"]
    figure("image URLs", "a name that rebinds is asked once and connected as checked", "100 % blocked")


def test_a_name_that_changes_before_a_redirect_is_checked_anew(server: PhotoServer, reach: Reach) -> None:
    names = Names({HOST: [["127.0.0.1"], ["127.0.0.2"]]})
    server.routes["/go"] = lambda talk: talk.send("302 Found", location="/photo.jpg")
    fault = refusal(url(server, "/go"), replace(reach, resolve=names))
    assert fault.message == "leads to an address that is not public"
    assert names.asked == [HOST, HOST]
    assert server.reached == ["127.0.0.1"]


def test_production_reaches_the_public_only() -> None:
    assert PUBLIC.allowed == ()
    assert PUBLIC.ports == {443, 8443}
    assert PUBLIC.tls is None
    assert (DEADLINE_S, MAX_BYTES) == (20, 20 * 1024**2)
    fault = refusal("https://localhost/x", PUBLIC)
    assert fault.message == "leads to an address that is not public"
    assert [place for place in connects if isinstance(place, tuple) and place[:2] == ("127.0.0.1", 443)] == []


# ---- limits


def test_three_redirects_are_followed_and_a_fourth_is_not(server: PhotoServer, reach: Reach, figure: Figure) -> None:
    def hop(to: str, status: str) -> Serve:
        return lambda talk: talk.send(status, b"see there", location=to, set_cookie=f"a={CANARY}")

    server.routes |= {
        "/4": hop("/3", "301 Moved"),
        "/3": hop(url(server, "/2"), "302 Found"),
        "/2": hop("1?x=%20", "307 Temporary"),
        "/1": hop("photo.jpg", "308 Permanent"),
    }
    assert fetch_image(url(server, "/3"), reach=reach) == PHOTO
    assert len(server.talks) == 4
    assert not any("cookie" in talk.headers for talk in server.talks)
    server.forget()
    assert refusal(url(server, "/4"), reach).message == "is redirected more than 3 times"
    assert len(server.talks) == 4
    figure("image URLs", "3 redirects followed, a 4th refused", "≤ 3 redirects")


def test_as_many_bytes_as_allowed_come_and_no_more(server: PhotoServer, reach: Reach, figure: Figure) -> None:
    whole = DRAW.randbytes(1 << 20) * 20
    assert len(whole) == MAX_BYTES
    server.routes["/most"] = lambda talk: talk.send("200 OK", whole)
    server.routes["/more"] = lambda talk: talk.send("200 OK", whole + b"x")
    began_s = time.perf_counter()
    assert fetch_image(url(server, "/most"), reach=reach) == whole
    spent_s = time.perf_counter() - began_s
    assert isinstance(refusal(url(server, "/more"), reach), ImageTooLarge)
    figure("image URLs", f"20 MiB come in {spent_s:.2f} s, a byte more is refused", "≤ 20 MB")


def test_a_length_over_the_limit_is_refused_before_the_body(server: PhotoServer, reach: Reach) -> None:
    server.routes["/vast"] = lambda talk: talk.send("200 OK", b"x", content_length=str(10**12))
    assert isinstance(refusal(url(server, "/vast"), reach), ImageTooLarge)


@pytest.mark.parametrize("lie", ["", "-1", "many"])
def test_an_endless_body_is_cut_off_at_the_limit(lie: str, server: PhotoServer, reach: Reach) -> None:
    sent = [0]

    def pour(talk: Talk) -> None:
        talk.send("200 OK", content_length=lie)
        block = bytes(1 << 20)
        while sent[0] < 100 << 20:
            talk.connection.sendall(block)
            sent[0] += len(block)

    server.routes["/endless"] = pour
    assert isinstance(refusal(url(server, "/endless"), reach, DEADLINE_S), ImageTooLarge)
    time.sleep(0.2)
    assert sent[0] < 40 << 20


def test_an_endless_chunk_is_cut_off_at_the_limit(server: PhotoServer, reach: Reach) -> None:
    def pour(talk: Talk) -> None:
        talk.send("200 OK", b"fffffffff\r\n", transfer_encoding="chunked", content_length="")
        while True:
            talk.connection.sendall(bytes(1 << 20))

    server.routes["/endless"] = pour
    assert isinstance(refusal(url(server, "/endless"), reach, DEADLINE_S), ImageTooLarge)


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "gzip, identity", "x"])
def test_an_encoded_body_is_refused_so_nothing_inflates(encoding: str, server: PhotoServer, reach: Reach) -> None:
    bomb = gzip.compress(bytes(30 << 20))
    server.routes["/bomb"] = lambda talk: talk.send("200 OK", bomb, content_encoding=encoding)
    assert "Content-Encoding" in refusal(url(server, "/bomb"), reach).message
    server.routes["/bomb"] = lambda talk: talk.send("200 OK", bomb, transfer_encoding=f"{encoding}, chunked")
    assert "Transfer-Encoding" in refusal(url(server, "/bomb"), reach).message


def drip(talk: Talk, data: bytes) -> None:
    for at in range(len(data)):
        talk.connection.sendall(data[at : at + 1])
        time.sleep(0.02)


def drip_body(talk: Talk) -> None:
    talk.send("200 OK", content_length="9000")
    drip(talk, b"x" * 9000)


def drip_chunks(talk: Talk) -> None:
    talk.send("200 OK", transfer_encoding="chunked", content_length="")
    drip(talk, b"1\r\nx\r\n" * 9000)


def flood(talk: Talk) -> None:
    while True:
        talk.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 4000)


def hop_slowly(talk: Talk) -> None:
    time.sleep(0.25)
    talk.send("302 Found", location="/hop")


def resolve_slowly(host: str, port: int) -> list[str]:
    time.sleep(3)
    return ["127.0.0.1"]


SLOW: dict[str, Serve] = {
    "headers that drip": lambda talk: drip(talk, b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 5000),
    "headers without an end": lambda talk: drip(talk, b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 5000),
    "interim answers without an end": lambda talk: drip(talk, b"HTTP/1.1 100 Continue\r\n\r\n" * 5000),
    "interim answers as fast as they are read": flood,
    "a body that drips": drip_body,
    "chunks that drip": drip_chunks,
    "silence": lambda talk: time.sleep(3),
}


def test_the_deadline_holds_however_a_server_drags_on(server: PhotoServer, reach: Reach, figure: Figure) -> None:
    slowest_s = 0.0
    for case, serve in SLOW.items():
        server.routes["/slow"] = serve
        began_s = time.perf_counter()
        fault = refusal(url(server, "/slow"), reach, 0.6)
        spent_s = time.perf_counter() - began_s
        assert fault.message == "took longer than 0.6 s to fetch", case
        assert spent_s < 1.5, case
        slowest_s = max(slowest_s, spent_s)
    figure("image URLs", f"{len(SLOW)} slow servers: {slowest_s:.2f} s of the 0.6 s given here", "≤ 20 s (DEADLINE_S)")


@pytest.mark.parametrize(
    "case", ["a name that takes long to resolve", "a handshake that never comes", "many slow hops"]
)
def test_the_deadline_holds_before_the_first_byte_too(case: str, server: PhotoServer, reach: Reach) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    if case == "a name that takes long to resolve":
        worker, address = replace(reach, resolve=resolve_slowly), url(server)
    elif case == "a handshake that never comes":
        worker = replace(reach, ports=frozenset({silent.getsockname()[1]}))
        address = f"https://{HOST}:{silent.getsockname()[1]}/x"
    else:
        server.routes["/hop"] = hop_slowly
        worker, address = reach, url(server, "/hop")
    began_s = time.perf_counter()
    assert refusal(address, worker, 0.6).message == "took longer than 0.6 s to fetch"
    assert time.perf_counter() - began_s < 1.5
    silent.close()


@pytest.mark.parametrize("case", [*SLOW, "a name that takes long to resolve"])
def test_a_cancelled_job_stops_at_once(case: str, server: PhotoServer, reach: Reach) -> None:
    if case in SLOW:
        server.routes["/slow"] = SLOW[case]
    else:
        reach = replace(reach, resolve=resolve_slowly)
    began_s = time.perf_counter()

    def check() -> None:
        if time.perf_counter() - began_s > 0.3:
            raise Cancelled("the job was cancelled")

    with pytest.raises(Cancelled):
        fetch_image(url(server, "/slow"), reach=reach, check=check)
    assert time.perf_counter() - began_s < 1
