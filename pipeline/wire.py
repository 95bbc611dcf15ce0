"""A connection that keeps to a deadline at every byte and can be given up at any moment.

Libraries bound each single read; a server that sends a byte every few seconds, in its headers or its body, then holds
them for hours. Here the socket never blocks: each wait, from connecting through the TLS handshake to the last byte, is
cut into pieces of `POLL_S`, and between them the clock is looked at.
"""

from __future__ import annotations

import errno
import io
import selectors
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

T = TypeVar("T")

POLL_S: Final = 0.05
"""Longest time until a deadline or a cancelled job is noticed."""


class OutOfTime(Exception):
    """The clock ran out."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Ends an exchange: at a time, or earlier where `check` raises.

    Attributes:
        end_s: in seconds of `time.monotonic`.
        check: asked at least every `POLL_S`.
    """

    end_s: float
    check: Callable[[], None]

    def left_s(self) -> float:
        """Seconds that are left.

        Raises:
            OutOfTime: none. Besides, whatever `check` raises.
        """
        self.check()
        left_s = self.end_s - time.monotonic()
        if left_s <= 0:
            raise OutOfTime
        return left_s

    def sleep(self, seconds: float) -> None:
        """Wait, as long as the clock allows."""
        wake_s = time.monotonic() + seconds
        while (ahead_s := wake_s - time.monotonic()) > 0:
            time.sleep(min(ahead_s, self.left_s(), POLL_S))

    def at_most(self, seconds: float) -> Clock:
        """This clock, ending `seconds` from now where that is earlier."""
        return Clock(min(self.end_s, time.monotonic() + seconds), self.check)


class Wire(io.RawIOBase):
    """A TCP connection, readable as a raw stream.

    Args:
        address, port: an IP address, never a name: what was checked is what is connected to.
        clock: of this exchange.
        connect_s: longest time for the connection to come about.

    Raises:
        OSError: nobody answers there, in time or at all.
        OutOfTime: `clock` ran out, here or in any method. Besides, whatever its `check` raises.
    """

    def __init__(self, address: str, port: int, clock: Clock, connect_s: float) -> None:
        super().__init__()
        self._clock = clock
        self._sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        with ExitStack() as undo:
            undo.callback(self.close)
            self._connect(address, port, connect_s)
            undo.pop_all()

    def secure(self, context: ssl.SSLContext, host: str) -> None:
        """Speak TLS from here on.

        Args:
            context: which certificates count.
            host: the name, or the address, that the certificate must be for.

        Raises:
            ssl.SSLError: the handshake failed (`ssl.SSLCertVerificationError`: over the certificate).
        """
        secured = context.wrap_socket(self._sock, server_hostname=host, do_handshake_on_connect=False)
        self._sock = secured
        self._until_done(secured.do_handshake, selectors.EVENT_READ)

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._until_done(partial(self._sock.send, rest), selectors.EVENT_WRITE) :]

    def readable(self) -> bool:
        """As every raw stream that can be read."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Read what is there, at least a byte; 0 at the end."""
        return self._until_done(partial(self._sock.recv_into, buffer), selectors.EVENT_READ)

    def makefile(self, mode: str) -> io.BufferedReader:
        """What `http.client` reads a response from."""
        if mode != "rb":
            raise ValueError(mode)
        return io.BufferedReader(self)

    def close(self) -> None:
        """Hang up."""
        self._sock.close()
        super().close()

    def _connect(self, address: str, port: int, connect_s: float) -> None:
        self._sock.setblocking(False)
        code = self._sock.connect_ex((address, port))
        if code == errno.EINPROGRESS:
            clock = self._clock.at_most(connect_s)
            try:
                self._wait(selectors.EVENT_WRITE, clock)
            except OutOfTime:
                self._clock.left_s()
                raise TimeoutError from None
            code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, errno.errorcode.get(code, ""))

    def _until_done(self, step: Callable[[], T], event: int) -> T:
        """`step`, again and again until it need not wait any more: for `event`, or for what TLS needs in between."""
        while True:
            self._clock.left_s()
            try:
                return step()
            except BlockingIOError:
                self._wait(event, self._clock)
            except ssl.SSLWantReadError:
                self._wait(selectors.EVENT_READ, self._clock)
            except ssl.SSLWantWriteError:
                self._wait(selectors.EVENT_WRITE, self._clock)

    def _wait(self, event: int, clock: Clock) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, event)
            while not selector.select(min(clock.left_s(), POLL_S)):
                pass
