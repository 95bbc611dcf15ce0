"""Fetching photos by address: what is blocked, without a packet, and what comes through, within its limits."""

from __future__ import annotations

import gzip
import ipaddress
import logging
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import fetch
from pipeline.addresses import is_public, parse_url
from pipeline.decode import MAX_BYTES
from pipeline.errors import Cancelled, FetchError, ImageTooLarge, InputError
from pipeline.fetch import ATTEMPTS, DEADLINE_S, PUBLIC, Reach, fetch_image
from tests import s3_server
from tests.photo_server import Authority, PhotoServer, Serve, Talk, new_authority
from tests.s3_server import SECRET, Store

ROOT = Path(__file__).resolve().parent.parent
DRAW = random.Random(7)
PHOTO = DRAW.randbytes(200_000)
HOST = "photos.test"
CANARY = "c4n4ry"

connects: list[object] = []
"""Addresses that this process tried to connect to, or to send to."""

sys.addaudithook(
    lambda event, given: connects.append(given[1]) if event in ("socket.connect", "socket.sendto") else None
)


@dataclass
class Names:
    """A resolver that knows these names alone, and notes what it was asked.

    Attributes:
        known: addresses of each name, one list for each time that it is asked; the last one stays.
    """

    known: dict[str, list[list[str]]]
    asked: list[str] = field(default_factory=list)

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        answers = self.known.get(host)
        if answers is None:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return new_authority()


@pytest.fixture(scope="module")
def running(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhotoServer]:
    names = (HOST, "inner.test", "xn--bcher-kva.test", "127.0.0.1")
    server = PhotoServer({}, authority.presenting(names, tmp_path_factory.mktemp("certificates")))
    yield server
    server.close()


@pytest.fixture
def server(running: PhotoServer) -> PhotoServer:
    running.routes = {"/photo.jpg": lambda talk: talk.send("200 OK", PHOTO, content_type="image/jpeg")}
    running.forget()
    connects.clear()
    return running


def own_names() -> Names:
    return Names({HOST: [["127.0.0.1"]], "inner.test": [["127.0.0.2"]]})


@pytest.fixture
def reach(server: PhotoServer, authority: Authority) -> Reach:
    """One address of loopback, and nothing else that is not public."""
    return Reach(own_names(), (ip_network("127.0.0.1/32"),), frozenset({server.port}), authority.trusting())


def url(server: PhotoServer, path: str = "/photo.jpg", host: str = HOST) -> str:
    return f"https://{host}:{server.port}{path}"


def refusal(address: str, reach: Reach, deadline_s: float = 3.0) -> InputError:
    with pytest.raises(InputError) as caught:
        fetch_image(address, reach=reach, deadline_s=deadline_s)
    assert caught.value.field == "image_url"
    return caught.value


# ---- what is blocked

PRIVATE = [
    *("0.0.0.0", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "168.63.129.16"),
    *("169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1"),
    *("192.168.0.1", "198.18.0.1", "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.250", "240.0.0.1"),
    *("255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:169.254.169.254", "::127.0.0.1"),
    *("::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "2002:7f00:1::"),
    *("2002:a9fe:a9fe::1", "2001:0:4136:e378:8000:63bf:80ff:fffe", "2001:20::1", "2001:db8::1", "3fff::1", "5f00::1"),
    *("100::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "2606:4700::5efe:7f00:1"),
    *("2606:4700::200:5efe:10.0.0.1", "4000::1"),
]
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
    server: PhotoServer, authority: Authority
) -> None:
    cases = blocked_cases(server.port)
    assert len(cases) >= 60
    for case in cases:
        names = Names(case.names)
        worker = Reach(names, (), frozenset({443, server.port}), authority.trusting())
        fault = refusal(case.address, worker)
        assert isinstance(fault, FetchError), case.address
        assert len(names.asked) == case.asks, case.address
    assert connects == []
    assert server.reached == []
    print(f"{len(cases)} of {len(cases)} addresses blocked, 0 connections")


def test_the_guard_is_what_blocks_them(server: PhotoServer, reach: Reach) -> None:
    # The same server answers as soon as loopback is in reach: the test above could fail.
    assert fetch_image(url(server, host="127.0.0.1"), reach=reach) == PHOTO
    assert server.reached == ["127.0.0.1"]
    assert connects == [("127.0.0.1", server.port)]


@pytest.mark.parametrize(
    "host", [*PRIVATE, "inner.test", "0177.0.0.1", "2130706433", f"{HOST}@127.0.0.1", "unknown.test"]
)
def test_redirects_to_such_addresses_are_blocked(host: str, server: PhotoServer, reach: Reach) -> None:
    outside = replace(reach, allowed=(ip_network("127.0.0.3/32"),), resolve=Names({HOST: [["127.0.0.3"]], **inner()}))
    target = f"https://{f'[{host}]' if ':' in host else host}:{server.port}/photo.jpg"
    server.routes["/go"] = lambda talk: talk.send("302 Found", location=target)
    assert isinstance(refusal(url(server, "/go"), outside), FetchError)
    assert server.reached == ["127.0.0.3"]
    assert connects == [("127.0.0.3", server.port)]


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


def test_a_name_that_changes_between_check_and_use_is_connected_as_checked(server: PhotoServer, reach: Reach) -> None:
    names = Names({HOST: [["127.0.0.1"], ["127.0.0.2"]]})
    assert fetch_image(url(server), reach=replace(reach, resolve=names)) == PHOTO
    assert names.asked == [HOST]
    assert server.reached == ["127.0.0.1"]


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


@given(st.sampled_from([network for text in PRIVATE[:22] if (network := ip_address(text)).version == 4]), st.data())
def test_no_private_ipv4_address_is_public_inside_any_ipv6_form(inside: IPv4Address, data: st.DataObject) -> None:
    value = int(inside)
    low = data.draw(st.integers(0, (1 << 32) - 1))
    forms = (
        value,
        (0xFFFF << 32) | value,
        (0xFFFF << 48) | value,
        (0x0064FF9B << 96) | value,
        (0x2002 << 112) | (value << 80) | low,
        (0x20010000 << 96) | (low << 64) | (value ^ 0xFFFFFFFF),
        (0x2606_4700 << 96) | (0x5EFE << 32) | value,
    )
    assert not is_public(inside)
    assert not any(is_public(IPv6Address(form)) for form in forms)


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_what_counts_as_public_is_global_to_the_standard_library_too(address: IPv4Address | IPv6Address) -> None:
    if is_public(address):
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_reserved


@pytest.mark.parametrize(
    "text", ["1.1.1.1", "8.8.8.8", "99.255.255.255", "223.255.255.255", "2606:4700::1111", "2a00:1450::1"]
)
def test_public_addresses_are_public(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


# ---- what comes through


def test_a_photo_comes_with_a_plain_request(server: PhotoServer, reach: Reach) -> None:
    assert fetch_image(url(server, "/photo.jpg?a=1&b=%2F#part"), reach=reach) == PHOTO
    (talk,) = server.talks
    assert talk.path == "/photo.jpg?a=1&b=%2F"
    assert talk.headers == {
        "host": f"{HOST}:{server.port}",
        "user-agent": "Livery",
        "accept": "image/jpeg, image/png, image/webp",
        "accept-encoding": "identity",
        "connection": "close",
    }


def test_names_in_their_plain_form_and_paths_in_any_are_served(server: PhotoServer, reach: Reach) -> None:
    names = Names({"xn--bcher-kva.test": [["127.0.0.1"]]})
    server.routes["/%C3%BC/%2520x"] = server.routes["/photo.jpg"]
    address = url(server, "/ü/%2520x?q=ß", "XN--BCHER-KVA.test.")
    assert fetch_image(address, reach=replace(reach, resolve=names)) == PHOTO
    assert server.talks[0].path == "/%C3%BC/%2520x?q=%C3%9F"
    assert server.talks[0].headers["host"] == f"xn--bcher-kva.test:{server.port}"


def test_the_next_address_is_tried_where_one_is_silent(server: PhotoServer, reach: Reach) -> None:
    everywhere = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    names = Names({HOST: [["::1", "127.0.0.1"]]})
    assert fetch_image(url(server), reach=replace(reach, resolve=names, allowed=everywhere)) == PHOTO
    assert len(connects) == 2


def test_three_redirects_are_followed_and_a_fourth_is_not(server: PhotoServer, reach: Reach) -> None:
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


def test_a_chunked_photo_comes_whole(server: PhotoServer, reach: Reach) -> None:
    server.routes["/chunked"] = lambda talk: talk.send(
        "200 OK", b"".join(chunks(PHOTO)) + b"0\r\n\r\n", transfer_encoding="chunked", content_length=""
    )
    assert fetch_image(url(server, "/chunked"), reach=reach) == PHOTO


def chunks(data: bytes, size: int = 5000) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        part = data[at : at + size]
        yield f"{len(part):x}\r\n".encode() + part + b"\r\n"


def test_a_body_until_the_end_of_the_connection_comes_whole(server: PhotoServer, reach: Reach) -> None:
    server.routes["/until"] = lambda talk: talk.send("200 OK", PHOTO, content_length="")
    assert fetch_image(url(server, "/until"), reach=reach) == PHOTO


def test_proxies_of_the_environment_have_no_say(
    server: PhotoServer, reach: Reach, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.2:9")
    assert fetch_image(url(server), reach=reach) == PHOTO
    assert connects == [("127.0.0.1", server.port)]


def test_only_a_certificate_for_the_name_counts(
    server: PhotoServer, reach: Reach, authority: Authority, tmp_path: Path
) -> None:
    stranger = replace(reach, resolve=Names({"stranger.test": [["127.0.0.1"]]}))
    assert "certificate" in refusal(url(server, host="stranger.test"), stranger).message
    assert "certificate" in refusal(url(server), replace(reach, tls=None)).message
    assert server.talks == []


# ---- limits


def test_as_many_bytes_as_allowed_come_and_no_more(server: PhotoServer, reach: Reach) -> None:
    whole = DRAW.randbytes(1 << 20) * 20
    assert len(whole) == MAX_BYTES
    server.routes["/most"] = lambda talk: talk.send("200 OK", whole)
    server.routes["/more"] = lambda talk: talk.send("200 OK", whole + b"x")
    began_s = time.perf_counter()
    assert fetch_image(url(server, "/most"), reach=reach) == whole
    print(f"20 MiB fetched in {time.perf_counter() - began_s:.2f} s")
    assert isinstance(refusal(url(server, "/more"), reach), ImageTooLarge)


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


@pytest.mark.parametrize("case", SLOW)
def test_the_deadline_holds_against(case: str, server: PhotoServer, reach: Reach) -> None:
    server.routes["/slow"] = SLOW[case]
    began_s = time.perf_counter()
    fault = refusal(url(server, "/slow"), reach, 0.6)
    assert fault.message == "took longer than 0.6 s to fetch"
    assert time.perf_counter() - began_s < 1.5


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


# ---- servers that fail


def in_turn(*serves: Serve) -> Serve:
    left = list(serves)

    def serve(talk: Talk) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(talk)

    return serve


def cut_short(talk: Talk) -> None:
    talk.send("200 OK", PHOTO[:1000], content_length=str(len(PHOTO)))


@pytest.mark.parametrize(
    "bad", [cut_short, lambda talk: talk.send("503 Busy"), lambda talk: talk.send("429 Slow"), lambda talk: None]
)
def test_a_failure_that_passes_is_tried_again(bad: Serve, server: PhotoServer, reach: Reach) -> None:
    server.routes["/once"] = in_turn(bad, server.routes["/photo.jpg"])
    assert fetch_image(url(server, "/once"), reach=reach) == PHOTO
    assert len(server.talks) == 2
    server.forget()
    server.routes["/ever"] = bad
    refusal(url(server, "/ever"), reach, 5)
    assert len(server.talks) == ATTEMPTS


@pytest.mark.parametrize(
    "status", ["404 Not Found", "403 Forbidden", "204 No Content", "206 Partial", "304 Not Modified"]
)
def test_any_other_answer_is_final(status: str, server: PhotoServer, reach: Reach) -> None:
    server.routes["/no"] = lambda talk: talk.send(status, b"")
    assert refusal(url(server, "/no"), reach).message == f"leads to a server that answered {status[:3]}"
    assert len(server.talks) == 1


NOT_HTTP = [
    b"",
    b"\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"HTTP/1.1 abc OK\r\n\r\n",
    b"HTTP/9.9 200 OK\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 200 + b"\r\n",
    b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 100_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\xff\xfe\0: \x80\r\n: \r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nxxxxx",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 100_000,
    b"HTTP/1.1 302 Found\r\nLocation: https://[::1\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: \xff\xfe\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
]


def test_servers_that_speak_no_http_are_an_error_of_ours(
    server: PhotoServer, reach: Reach, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "PAUSE_S", 0.0)
    good = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    draw = random.Random(11)
    mutated = [bytes(b if draw.random() > 0.04 else draw.randrange(256) for b in good) for _ in range(60)]
    for answer in (*NOT_HTTP, *mutated):
        server.routes["/raw"] = lambda talk, answer=answer: talk.connection.sendall(answer)  # type: ignore[misc]
        with suppress(FetchError, ImageTooLarge):
            assert len(fetch_image(url(server, "/raw"), reach=reach, deadline_s=5)) < 100_000


# ---- s3


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    store = s3_server.start()
    yield store
    store.stop()


@pytest.mark.parametrize("key", ["car.jpg", "a/b c/ü?x=1&y#z %41+.jpg", "../x", "//x", "车"])
def test_a_photo_of_the_worker_s_own_bucket_is_read_with_its_credentials(key: str, store: Store) -> None:
    store.client.put_object(Bucket=s3_server.NAME, Key=key, Body=PHOTO)
    bucket = store.bucket()
    assert fetch_image(f"s3://{bucket.name}/{key}", bucket=bucket) == PHOTO
    assert fetch_image(f"S3://{bucket.name}/{key}", bucket=bucket) == PHOTO


def test_what_else_s3_names_is_refused(store: Store) -> None:
    bucket = store.bucket()
    wanted = {
        "s3://pictures": "must be s3://bucket/key",
        "s3://pictures/": "must be s3://bucket/key",
        "s3://pictures/a\nb": "must be s3://bucket/key",
        f"s3://pictures/{'a' * 1025}": "must be s3://bucket/key",
        "s3://pictures/\ud800": "must be s3://bucket/key",
        "s3://others/car.jpg": "names another bucket than this worker's own",
        "s3://pictures@others/car.jpg": "names another bucket than this worker's own",
        "s3://pictures/none.jpg": "leads to a server that answered 404",
    }
    for address, message in wanted.items():
        with pytest.raises(FetchError) as caught:
            fetch_image(address, bucket=bucket)
        assert (caught.value.message, caught.value.field) == (message, "image_url")
    with pytest.raises(FetchError, match="this worker has none"):
        fetch_image("s3://pictures/car.jpg")


def test_the_bucket_s_own_address_stays_out_of_reach_for_https(store: Store) -> None:
    connects.clear()
    refusal(f"{store.bucket().endpoint.replace('http:', 'https:')}/pictures/car.jpg", PUBLIC)
    refusal(f"https://127.0.0.1:{store.port}/pictures/car.jpg", replace(PUBLIC, ports=frozenset({store.port})))
    assert connects == []


# ---- what errors tell


def test_no_error_or_log_line_repeats_the_address_or_what_it_resolved_to(
    server: PhotoServer, reach: Reach, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "pipeline")
    server.routes |= {
        "/cut": cut_short,
        "/go": lambda talk: talk.send("302 Found", location=url(server, "/", f"{CANARY}.test")),
    }
    said: list[str] = []
    for address in (
        *(url(server, f"/{path}?X-Amz-Signature={CANARY}") for path in ("cut", "go", "none")),
        url(server, f"/?{CANARY}", f"{CANARY}.test"),
        url(server, f"/?{CANARY}", "inner.test"),
        url(server, "/photo.jpg", f"{CANARY}:{CANARY}@{HOST}"),
        f"{CANARY}://x",
        f"s3://{CANARY}/{CANARY}",
        f"s3://pictures/{CANARY}",
    ):
        with pytest.raises(FetchError) as caught:
            fetch_image(address, reach=reach, bucket=store.bucket())
        said += [*traceback.format_exception(caught.value), str(caught.value.as_reply())]
    text = "".join(said) + caplog.text
    assert "attempt 1 of 3" in text
    for secret in (CANARY, SECRET, "127.0.0.", str(server.port), HOST, "X-Amz"):
        assert secret not in text


def test_fetching_costs_no_boto3_and_leaves_no_descriptor_open(server: PhotoServer, reach: Reach) -> None:
    code = "import sys, pipeline.fetch; sys.exit(bool({'boto3', 'botocore', 'aiohttp', 'requests'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
    server.routes["/cut"] = cut_short
    open_before = -1
    for turn in range(30):
        for path in ("/photo.jpg", "/cut", "/none"):
            with suppress(FetchError):
                fetch_image(url(server, path), reach=reach, deadline_s=0.3)
        if turn == 4:
            open_before = own_descriptors(server)
    assert own_descriptors(server) <= open_before + 2


def own_descriptors(server: PhotoServer) -> int:
    # The server's threads close theirs a moment later.
    end_s = time.monotonic() + 5
    while threading.active_count() > 4 and time.monotonic() < end_s:
        time.sleep(0.02)
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0


def test_addresses_are_read_in_one_way_only() -> None:
    target = parse_url("HTTPS://Photos.TEST./a%20b/é?q=[1]&r=a'b#frag@x")
    assert (target.host, target.port, target.path) == ("photos.test", 443, "/a%20b/%C3%A9?q=[1]&r=a'b")
    assert (target.authority, target.url) == ("photos.test", f"https://photos.test{target.path}")
    assert parse_url("https://[2606:4700::1111]:8443?x").url == "https://[2606:4700::1111]:8443/?x"
    assert parse_url("https://1.1.1.1").literal == IPv4Address("1.1.1.1")


def test_the_system_s_certificates_are_checked_by_default() -> None:
    context = fetch._system_tls()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
