"""What tests of fetching share: a resolver of their own, a site that serves a photo, and every connection noted."""

from __future__ import annotations

import random
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.fetch import Reach, fetch_image
from tests.photo_server import Authority, PhotoServer, Talk, new_authority

DRAW = random.Random(7)
PHOTO = DRAW.randbytes(200_000)


HOST = "photos.test"

connects: list[object] = []
"""Addresses that this process tried to connect to, or to send to."""

sys.addaudithook(
    lambda event, given: connects.append(given[1]) if event in ("socket.connect", "socket.sendto") else None
)


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
"""Addresses that are not public, in the forms that hide it; the first 22 are of IPv4."""


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


@dataclass(frozen=True)
class Site:
    """An https server on loopback, and the authority behind its certificate."""

    server: PhotoServer
    authority: Authority

    def fresh(self) -> PhotoServer:
        """The server with its photo and nothing else; what it was asked before is forgotten."""
        self.server.routes = {"/photo.jpg": lambda talk: talk.send("200 OK", PHOTO, content_type="image/jpeg")}
        self.server.forget()
        connects.clear()
        return self.server

    def reach(self) -> Reach:
        """One address of loopback, and nothing else that is not public."""
        names = Names({HOST: [["127.0.0.1"]], "inner.test": [["127.0.0.2"]]})
        ports = frozenset({self.server.port})
        return Reach(names, (ip_network("127.0.0.1/32"),), ports, self.authority.trusting())


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """A site while the block runs; its certificate lies in `folder`."""
    authority = new_authority()
    names = (HOST, "inner.test", "xn--bcher-kva.test", "127.0.0.1")
    server = PhotoServer({}, authority.presenting(names, folder))
    yield Site(server, authority)
    server.close()


def url(server: PhotoServer, path: str = "/photo.jpg", host: str = HOST) -> str:
    return f"https://{host}:{server.port}{path}"


def refusal(address: str, reach: Reach, deadline_s: float = 3.0) -> InputError:
    with pytest.raises(InputError) as caught:
        fetch_image(address, reach=reach, deadline_s=deadline_s)
    assert caught.value.field == "image_url"
    return caught.value


def cut_short(talk: Talk) -> None:
    talk.send("200 OK", PHOTO[:1000], content_length=str(len(PHOTO)))
