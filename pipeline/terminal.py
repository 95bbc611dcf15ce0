"""What the commands share: exit codes, lines on the terminal, and Ctrl-C as a question."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from tqdm import tqdm

from pipeline.errors import LiveryError

FINE, SOME_FAILED, UNUSABLE, INTERRUPTED = 0, 1, 2, 130

PROGRAM = "python -m pipeline"

GRACE_S = 0.5
"""How long a job may take to notice Ctrl-C."""


class Unusable(Exception):
    """What was asked for can't be begun; the message is one line for the user."""


def say(line: str) -> None:
    """Write a line to standard output."""
    with tqdm.external_write_mode(file=sys.stdout):  # a progress bar on the same terminal makes room
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def complain(line: str) -> None:
    """Write a line to standard error."""
    with tqdm.external_write_mode(file=sys.stderr):
        sys.stderr.write(line + "\n")


def refuse(*lines: str) -> int:
    """Complain of what can't be begun. Returns the exit code."""
    for line in lines:
        complain(f"error: {line}")
    return UNUSABLE


def subparser(command: str, description: str) -> argparse.ArgumentParser:
    """The parser of one command's options."""
    return argparse.ArgumentParser(prog=f"{PROGRAM} {command}", description=description)


def printable_name(path: Path) -> str:
    """A file's name as `printable` writes it."""
    return printable(path.name)


def printable(text: str) -> str:
    """`text` on one line: what doesn't print, and bytes that are no Unicode, as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def fault_line(name: str, fault: LiveryError) -> str:
    """What went wrong with a file, its code first."""
    return f"{name}: {fault.as_reply()['error']}"


def read_json(path: Path) -> Any:
    """A file's JSON value.

    Raises:
        Unusable: it can't be read, or isn't JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as fault:
        raise Unusable(f"{printable_name(path)}: {fault.strerror}") from None
    except (ValueError, RecursionError):
        raise Unusable(f"{printable_name(path)}: isn't JSON") from None


def make_folder(folder: Path) -> None:
    """Make sure that files can be written into `folder`.

    Raises:
        Unusable: they can't.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise Unusable(f"{printable(str(folder))}: can't be made a folder: {fault.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise Unusable(f"{printable(str(folder))}: can't be written to")


class Interrupt:
    """The first Ctrl-C as a question that a job asks; a second one is Python's own KeyboardInterrupt.

    It is not raised at once, because compiled kernels and libvips' callbacks have no way to hand an exception on. A
    job that is inside one of them for `GRACE_S` is ended with its process. Python runs a signal's handler only between
    two steps of the main thread, so a thread of our own hears of the signal through the wake-up socket.

    Args:
        farewell: what is said where the process is ended.
    """

    def __init__(self, farewell: str) -> None:
        self.noted = False
        self._farewell = farewell
        self._left = threading.Event()

    def __enter__(self) -> Interrupt:
        self._before = signal.signal(signal.SIGINT, self._note)
        self._heard, self._told = socket.socketpair()
        self._told.setblocking(False)
        signal.set_wakeup_fd(self._told.fileno())
        threading.Thread(target=self._watch, name="livery-interrupt", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, self._before)
        self._told.close()

    def _watch(self) -> None:
        with self._heard:
            if self._heard.recv(1) == b"":
                return
        self.noted = True
        if not self._left.wait(GRACE_S):
            os.write(sys.stderr.fileno(), f"\n{self._farewell}\n".encode())
            os._exit(INTERRUPTED)

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        self.noted = True
        signal.signal(signal.SIGINT, self._before)
