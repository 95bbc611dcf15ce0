"""Fetching photos by address: what counts as public, what comes through, and what is told of what does not."""

from __future__ import annotations

import ipaddress
import logging
import random
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import fetch
from pipeline.addresses import is_public, parse_url
from pipeline.errors import FetchError, ImageTooLarge
from pipeline.fetch import ATTEMPTS, PUBLIC, Reach, fetch_image
from tests import s3_server
from tests.fetching import HOST, PHOTO, PRIVATE, Names, Site, connects, cut_short, refusal, site, url
from tests.photo_server import PhotoServer, Serve, Talk
from tests.s3_server import SECRET, Store

ROOT = Path(__file__).resolve().parent.parent
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


# ---- what is public


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


def test_only_a_certificate_for_the_name_counts(server: PhotoServer, reach: Reach) -> None:
    stranger = replace(reach, resolve=Names({"stranger.test": [["127.0.0.1"]]}))
    assert "certificate" in refusal(url(server, host="stranger.test"), stranger).message
    assert "certificate" in refusal(url(server), replace(reach, tls=None)).message
    assert server.talks == []


# ---- servers that fail


def in_turn(*serves: Serve) -> Serve:
    left = list(serves)

    def serve(talk: Talk) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(talk)

    return serve


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
