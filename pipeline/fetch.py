"""Reading a photo from where `image_url` says: over https from anywhere public, or from the results' own bucket.

The address is a stranger's, so the worker must not become their hand inside its network, nor wait for them for ever:

- Only https, on the ports of `Reach`. The URL is read strictly (`pipeline.addresses`), and so is each redirect's.
- The name is resolved here, once a hop; every address that it has must be public, and the connection goes to an address
  that was checked, under the name that was asked for. A name that resolves to something else a moment later has no say.
- One deadline over everything, from the name's resolution to the last byte, and one limit on bytes, counted as they
  arrive. Encoded bodies are refused, so nothing inflates. No cookies, no credentials, no proxies: a proxy would resolve
  the name again, behind our back.
- `s3://bucket/key` names the configured bucket and no other. It is read with the bucket's credentials by a presigned
  link, and the store's address is trusted as the deployer set it.

`http.client` parses the responses, over a socket of ours (`pipeline.wire`). The libraries that come with the SDK bound
each read and not their sum, and connect by name; their guards would all have to be taken out.
"""

from __future__ import annotations

import logging
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from http.client import HTTPException, HTTPResponse
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, Final, cast
from urllib.parse import urljoin

from pipeline.addresses import IPAddress, IPNetwork, Target, is_public, parse_url
from pipeline.decode import MAX_BYTES
from pipeline.errors import FetchError, ImageTooLarge, LiveryError
from pipeline.settings import Bucket
from pipeline.storage import presigned_url
from pipeline.wire import POLL_S, Clock, OutOfTime, Wire

DEADLINE_S: Final = 20.0
"""Longest time for all of it."""

MAX_REDIRECTS: Final = 3
ATTEMPTS: Final = 3
"""How often a server is asked that fails or breaks off."""

PAUSE_S: Final = 0.5
"""Before the second attempt; twice as long before each further one."""

CONNECT_S: Final = 5.0
"""Longest time for one address of a host to answer, before the next one is tried."""

MAX_ADDRESSES: Final = 4
"""Of one host, that are tried."""

USER_AGENT: Final = "Livery"

_CHUNK_BYTES: Final = 64 * 1024
_LINK_S: Final = 60
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PASSING: Final = frozenset({429, 500, 502, 503, 504})
_EVERYWHERE: Final[tuple[IPNetwork, ...]] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))

Resolve = Callable[[str, int], Sequence[str]]
"""Host and port → its IP addresses as text. Raises OSError where it has none."""

log = logging.getLogger(__name__)


def system_addresses(host: str, port: int) -> list[str]:
    """What the machine's own resolver says."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


@dataclass(frozen=True, slots=True)
class Reach:
    """What a fetch may reach. A worker takes `PUBLIC`; the other values are for tests and for allow-lists of one's own.

    Attributes:
        resolve: names to addresses.
        allowed: networks that are in reach though they are not public.
        ports: that may be asked.
        tls: which certificates count; None: those that the system trusts.
    """

    resolve: Resolve = system_addresses
    allowed: tuple[IPNetwork, ...] = ()
    ports: frozenset[int] = frozenset({443, 8443})
    tls: ssl.SSLContext | None = None

    def permits(self, address: IPAddress) -> bool:
        """Whether a connection may go there."""
        return is_public(address) or any(address in network for network in self.allowed)


PUBLIC: Final = Reach()


class _Passing(Exception):
    """A failure that may be gone a moment later. Its text is for the caller."""


def fetch_image(
    url: str,
    *,
    bucket: Bucket | None = None,
    deadline_s: float = DEADLINE_S,
    check: Callable[[], None] = lambda: None,
    reach: Reach = PUBLIC,
    field: str = "image_url",
) -> bytes:
    """Fetch an encoded photo.

    Args:
        url: `https://…`, or `s3://bucket/key` in `bucket`.
        bucket: the configured one.
        deadline_s: seconds for all of it; at most `DEADLINE_S` count.
        check: asked at least every 50 ms; what it raises ends the fetch.
        reach: what may be reached.
        field: request field that errors name.

    Returns:
        The bytes as they came, at most `pipeline.decode.MAX_BYTES`. What they are is for `decode_bytes` to say.

    Raises:
        FetchError: the address is none that is served, or nothing usable came from it. No message repeats any part of
            the address, which may hold a signature, or tells what a name resolved to.
        ImageTooLarge: the server announced, or sent, more bytes than the limit.
    """
    allowed_s = min(deadline_s, DEADLINE_S)
    clock = Clock(time.monotonic() + allowed_s, check)
    try:
        target, reach = _target(url, bucket, reach)
        return _persist(target, reach, clock)
    except OutOfTime:
        raise FetchError(f"took longer than {allowed_s:g} s to fetch", field=field) from None
    except (FetchError, ImageTooLarge) as fault:
        raise type(fault)(fault.message, field=field) from None


def _target(url: str, bucket: Bucket | None, reach: Reach) -> tuple[Target, Reach]:
    """What to ask, and what may be reached on the way."""
    scheme = url.partition("://")[0].lower()
    if scheme not in ("https", "s3"):
        raise FetchError("must begin with https:// or s3://")
    if scheme == "https":
        return parse_url(url), reach
    name, _, key = url[5:].partition("/")
    if bucket is None:
        raise FetchError("names a bucket, and this worker has none; send an https:// address")
    if name != bucket.name:
        raise FetchError("names another bucket than this worker's own")
    if not key or len(key.encode("utf-8", "replace")) > 1024 or not key.isprintable():
        raise FetchError("must be s3://bucket/key")
    target = parse_url(presigned_url(bucket, key, _LINK_S), schemes=("http", "https"))
    return target, replace(reach, allowed=_EVERYWHERE, ports=frozenset({target.port}))


def _persist(target: Target, reach: Reach, clock: Clock) -> bytes:
    """Ask again where a server fails in a way that may pass."""
    attempt = 1
    while True:
        try:
            return _follow(target, reach, clock)
        except _Passing as fault:
            log.info("image_url, attempt %d of %d: %s", attempt, ATTEMPTS, fault)
            if attempt == ATTEMPTS:
                raise FetchError(str(fault)) from None
        clock.sleep(PAUSE_S * 2 ** (attempt - 1))
        attempt += 1


def _follow(target: Target, reach: Reach, clock: Clock) -> bytes:
    for _ in range(MAX_REDIRECTS + 1):
        addresses = _checked_addresses(target, reach, clock)
        with _connect(target, addresses, clock) as wire:
            if target.scheme == "https":
                _secure(wire, target.host, reach.tls)
            answer = _ask(target, wire)
        if isinstance(answer, bytes):
            return answer
        target = _redirected(target, answer)
    raise FetchError(f"is redirected more than {MAX_REDIRECTS} times")


def _redirected(target: Target, location: str) -> Target:
    # http.client reads headers as Latin-1; addresses beyond ASCII are sent as UTF-8.
    text = location.encode("latin-1", "replace").decode("utf-8", "replace")
    try:
        return parse_url(urljoin(target.url, text))
    except (FetchError, ValueError):
        raise FetchError("is redirected to an address that is not served") from None


def _checked_addresses(target: Target, reach: Reach, clock: Clock) -> list[str]:
    """Where to connect to. One address out of reach rules out the whole name: which one is taken is not up to it."""
    if target.port not in reach.ports:
        raise FetchError(f"must use port {' or '.join(str(port) for port in sorted(reach.ports))}")
    if target.literal is not None:
        addresses = [target.literal]
    else:
        addresses = [_parsed(text) for text in _resolved(target, reach.resolve, clock)]
    if not addresses:
        raise FetchError("names a host that can't be found")
    if not all(reach.permits(address) for address in addresses):
        raise FetchError("leads to an address that is not public")
    return [str(address) for address in dict.fromkeys(addresses)][:MAX_ADDRESSES]


def _parsed(text: str) -> IPAddress:
    try:
        return ip_address(text)
    except ValueError:
        raise FetchError("names a host that can't be found") from None


def _resolved(target: Target, resolve: Resolve, clock: Clock) -> Sequence[str]:
    """The host's addresses. The system's resolver can't be told to hurry, so it works on a thread that can be left."""
    answers: queue.SimpleQueue[Sequence[str] | OSError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(resolve(target.host, target.port))
        except (OSError, UnicodeError) as fault:
            answers.put(fault if isinstance(fault, OSError) else OSError(str(fault)))

    threading.Thread(target=ask, name="livery-resolve", daemon=True).start()
    while True:
        try:
            answer = answers.get(timeout=min(clock.left_s(), POLL_S))
        except queue.Empty:
            continue
        if not isinstance(answer, OSError):
            return answer
        if isinstance(answer, socket.gaierror) and answer.errno == socket.EAI_AGAIN:
            raise _Passing("names a host that can't be found at the moment")
        raise FetchError("names a host that can't be found")


def _connect(target: Target, addresses: Sequence[str], clock: Clock) -> Wire:
    """A connection to the first address that answers."""
    for address in addresses:
        try:
            return Wire(address, target.port, clock, CONNECT_S)
        except OSError as fault:
            log.info("image_url: an address did not answer: %s", type(fault).__name__)
    raise _Passing("names a host that does not answer")


def _secure(wire: Wire, host: str, tls: ssl.SSLContext | None) -> None:
    try:
        wire.secure(_system_tls() if tls is None else tls, host)
    except ssl.SSLCertVerificationError:
        raise FetchError("names a host without a valid certificate") from None
    except (OSError, ValueError):
        raise _Passing("names a host that does not speak TLS as it should") from None


@lru_cache(maxsize=1)
def _system_tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _ask(target: Target, wire: Wire) -> bytes | str:
    """The body, or where a redirect leads."""
    lines = (
        f"GET {target.path} HTTP/1.1",
        f"Host: {target.authority}",
        f"User-Agent: {USER_AGENT}",
        "Accept: image/jpeg, image/png, image/webp",
        "Accept-Encoding: identity",
        "Connection: close",
    )
    try:
        wire.send("\r\n".join((*lines, "", "")).encode("ascii"))
        response = HTTPResponse(cast("Any", wire), method="GET")
        response.begin()
        location = response.getheader("Location")
        if response.status in _REDIRECTS and location is not None:
            return location
        return _body(response)
    except (HTTPException, OSError):
        raise _Passing("leads to a server that broke off") from None
    except (ValueError, LookupError):
        # http.client's parsers on headers that are none.
        raise FetchError("leads to a server that does not speak HTTP as it should") from None


def _body(response: HTTPResponse) -> bytes:
    if response.status in _PASSING:
        raise _Passing(f"leads to a server that answered {response.status}")
    if response.status != 200:
        raise FetchError(f"leads to a server that answered {response.status}")
    for name, plain in (("Content-Encoding", {"", "identity"}), ("Transfer-Encoding", {"", "identity", "chunked"})):
        if {value.strip().lower() for value in response.headers.get_all(name, [])} - plain:
            raise FetchError(f"leads to a server that encodes the picture; it must be sent without {name}")
    declared = response.length
    if declared is not None and declared > MAX_BYTES:
        raise _too_large()
    body = bytearray()
    while chunk := response.read(_CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_BYTES:
            raise _too_large()
    if declared is not None and len(body) < declared:
        raise _Passing("leads to a server that broke off")
    return bytes(body)


def _too_large() -> LiveryError:
    return ImageTooLarge(f"the picture has more than {MAX_BYTES // 1024**2} MiB")
