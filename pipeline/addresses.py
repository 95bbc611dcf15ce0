"""Which addresses strangers may send a worker to: the one reading of a URL, and what counts as public.

A photo's address comes from a caller, and the worker stands inside somebody's network: a metadata service, a database
or the host's own ports are one request away. So an address is read here strictly, in one spelling for each thing, and
what a name resolves to is held against the IANA special-purpose registries (RFC 6890 and its successors). The tables
are ours, since `ipaddress.is_global` answers differently in the Python versions that Livery runs on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, Literal
from urllib.parse import quote

from pipeline.errors import FetchError

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network
Scheme = Literal["http", "https"]

MAX_URL_CHARS: Final = 8192

NOT_PUBLIC_IPV4: Final = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",
        "100.64.0.0/10",  # between a carrier and its customers; a cloud's metadata
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's own services to its machines, at an address that looks public
        "169.254.0.0/16",  # link-local, and most clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)

PUBLIC_IPV6: Final = IPv6Network("2000::/3")
"""All that is given out. Outside lie ::, ::1, mapped and compatible IPv4, NAT64, local, link-local and multicast."""

NOT_PUBLIC_IPV6: Final = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocols, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address is inside
        "2620:4f:8000::/48",
        "3fff::/20",  # documentation
    )
)

_ISATAP: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})
"""The third quarter of an IPv6 address whose last quarter is an IPv4 address of a tunnel."""


def is_public(address: IPAddress) -> bool:
    """Whether anybody on the internet can be at this address."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in NOT_PUBLIC_IPV4)
    if address not in PUBLIC_IPV6 or (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
        return False
    return not any(address in network for network in NOT_PUBLIC_IPV6)


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL names, ready to be asked for.

    Attributes:
        scheme: http or https.
        host: a lower-case ASCII name, or an IP address without brackets.
        port: where.
        path: with the query, ASCII only, beginning with a slash.
        literal: the host, where it is an address and no name.
    """

    scheme: Scheme
    host: str
    port: int
    path: str
    literal: IPAddress | None

    @property
    def authority(self) -> str:
        """Host and port as a URL and the Host header write them."""
        host = f"[{self.host}]" if isinstance(self.literal, IPv6Address) else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole, to resolve a redirect against."""
        return f"{self.scheme}://{self.authority}{self.path}"


_DEFAULT_PORTS: Final[dict[Scheme, int]] = {"http": 80, "https": 443}
_URL: Final = re.compile(r"(?P<scheme>[a-z]+)://(?P<authority>[^/?#]*)(?P<path>[^#]*)(?:#.*)?", re.IGNORECASE)
_AUTHORITY: Final = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[^:\[\]]+)(?::(?P<port>[0-9]{1,5}))?", re.IGNORECASE)
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?", re.IGNORECASE)
_LOOKS_NUMERIC: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?", re.IGNORECASE)
"""A last label of digits makes resolvers read the whole as IPv4, in octal, in hexadecimal or with parts left out."""
_PLAIN_NAMES: Final = "must name its host by ASCII letters, digits and hyphens; other names in their xn-- form"
_PATH_SAFE: Final = "/?%:@!$&'()*+,;=~[]"


def parse_url(url: str, *, schemes: tuple[Scheme, ...] = ("https",)) -> Target:
    """Read an address strictly: what two programs could read in two ways is refused.

    A name beyond ASCII must come in its `xn--` form, an IPv4 address as four plain numbers, and nothing may stand
    before an `@`. Non-ASCII characters of the path are percent-encoded as UTF-8. The port is the caller's to judge.

    Raises:
        FetchError: without a field, with a sentence that repeats nothing of the address.
    """
    if len(url) > MAX_URL_CHARS:
        raise FetchError(f"must be at most {MAX_URL_CHARS} characters")
    if re.search(r"[\x00-\x20\x7f-\xa0\\\ud800-\udfff]", url):
        raise FetchError("holds a space, a backslash or a character that no address has")
    parts = _URL.fullmatch(url)
    scheme = next((known for known in schemes if parts is not None and parts["scheme"].lower() == known), None)
    if parts is None or scheme is None:
        raise FetchError(f"must begin with {' or '.join(f'{known}://' for known in schemes)}")
    host, port, literal = _parse_authority(parts["authority"])
    path = quote(parts["path"], safe=_PATH_SAFE)
    return Target(
        scheme=scheme,
        host=host,
        port=_DEFAULT_PORTS[scheme] if port is None else port,
        path=path if path.startswith("/") else f"/{path}",
        literal=literal,
    )


def _parse_authority(authority: str) -> tuple[str, int | None, IPAddress | None]:
    if "@" in authority:
        raise FetchError("must not hold a user name or a password")
    # Some letters beyond ASCII turn into ASCII ones where they are lowered, so this comes first.
    if not authority.isascii():
        raise FetchError(_PLAIN_NAMES)
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None or (parts["port"] is not None and not 0 < int(parts["port"]) < 65536):
        raise FetchError("has no host, or a port that is none")
    host, port = parts["host"].lower(), None if parts["port"] is None else int(parts["port"])
    if host.startswith("["):
        literal: IPAddress | None = _literal(host[1:-1])
    elif _LOOKS_NUMERIC.fullmatch(host):
        literal = _literal(host)
    elif _NAME.fullmatch(host) and len(host) <= 253:
        literal = None
    else:
        raise FetchError(_PLAIN_NAMES)
    return host.removesuffix(".") if literal is None else str(literal), port, literal


def _literal(text: str) -> IPAddress:
    try:
        return IPv6Address(text) if ":" in text else IPv4Address(text)
    except AddressValueError:
        raise FetchError("names its host by an IP address in an unusual spelling") from None
