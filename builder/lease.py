"""One builder at a time on a volume, also where several hosts share it.

Two things are held together. A *file lock* (flock) excludes every process of the same host, in other containers too,
and falls with its process, however that ends. A *lease*, a small file that is made exclusively and touched every few
seconds, excludes builders of other hosts where the network file system doesn't carry file locks between them.

What that guarantees: on one host, never two at once, and no wait after one was killed. Between hosts, a lease that was
not touched for `LEASE_S`, by the waiting host's own clock, counts as abandoned and is taken over. So two can overlap
only where one was stopped for that long and wakes up again; it finds out before it next moves a file into place, and
half-made files bear their owner's name, so that even then no file is ever a mixture of two.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from builder.volume import disk_faults, staging_of
from pipeline.errors import Cancelled

BEAT_S = 5.0
LEASE_S = 60.0

_POLL_S = 0.1
_UNSUPPORTED = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL, errno.EPERM, errno.EMLINK}


class BuilderLock:
    """The right to change a volume, while it is entered.

    Args:
        volume: its folder, which is made.
        wait_s: how long another builder is waited for, in seconds.
        on_wait: called once where another builder is at work.
        lease_s: after how long without a sign of life another host's builder counts as gone.
    """

    def __init__(self, volume: Path, wait_s: float, on_wait: Callable[[], None], lease_s: float = LEASE_S) -> None:
        self.owner = uuid.uuid4().hex
        self.took_over = False
        self._staging = staging_of(volume)
        self._lease = self._staging / "builder.lease"
        self._wait_s, self._on_wait, self._lease_s = wait_s, on_wait, lease_s
        self._left = threading.Event()
        self._handle = -1
        self._file_locked = False

    def __enter__(self) -> BuilderLock:
        with disk_faults():
            self._staging.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self._staging / "builder.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            with ExitStack() as where_it_fails:
                where_it_fails.callback(os.close, self._handle)
                self._acquire(time.monotonic() + self._wait_s)
                where_it_fails.pop_all()
        threading.Thread(target=self._beat, name="livery-lease", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        if self._holder() == self.owner:
            self._lease.unlink(missing_ok=True)
        os.close(self._handle)

    def check(self) -> None:
        """Make sure that nobody took over.

        Raises:
            Cancelled: somebody did.
        """
        if self._holder() != self.owner:
            raise Cancelled("another builder took over, since this one gave no sign of life; run the command again")

    def _acquire(self, deadline_s: float) -> None:
        """Wait for the file lock, then for the lease."""
        told, sign, seen_s = False, self._sign(), time.monotonic()
        while not (self._lock_file() and self._take(sign, time.monotonic() - seen_s)):
            if not told:
                told = True
                self._on_wait()
            if time.monotonic() > deadline_s:
                raise Cancelled("another builder is at work on this volume; wait longer with --wait")
            time.sleep(_POLL_S)
            if self._sign() != sign:
                sign, seen_s = self._sign(), time.monotonic()

    def _lock_file(self) -> bool:
        """Whether no other process of this host holds the volume, as far as the file system can tell."""
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as fault:
            if fault.errno not in _UNSUPPORTED:
                raise
            return True
        self._file_locked = True
        return True

    def _take(self, sign: object, unchanged_s: float) -> bool:
        """Make the lease ours, if there is none, its owner is known to be dead, or it was abandoned."""
        if sign is None:
            return self._create()
        dead = self._file_locked and self._entry().get("machine") == _machine()
        if not dead and unchanged_s < self._lease_s:
            return False
        if self._sign() != sign:
            return False
        self.took_over = not dead
        own = self._written()
        own.replace(self._lease)
        if self.took_over:
            time.sleep(10 * _POLL_S)  # another host that did the same at that moment has by now
        return self._holder() == self.owner

    def _create(self) -> bool:
        """Make the lease where there is none; of several hosts one succeeds."""
        own = self._written()
        try:
            os.link(own, self._lease)
        except FileExistsError:
            return False
        except OSError as fault:
            if fault.errno not in _UNSUPPORTED:
                raise
            try:
                with self._lease.open("x") as file:
                    file.write(own.read_text())
            except FileExistsError:
                return False
        finally:
            own.unlink(missing_ok=True)
        return True

    def _written(self) -> Path:
        own = self._staging / f"lease.{self.owner}.tmp"
        own.write_text(json.dumps({"owner": self.owner, "machine": _machine()}))
        return own

    def _beat(self) -> None:
        while not self._left.wait(min(BEAT_S, self._lease_s / 4)):
            if self._holder() == self.owner:
                with suppress(OSError):  # it may just have been given back; a beat that failed is one of many
                    os.utime(self._lease)

    def _sign(self) -> object:
        """What changes with every beat and every owner."""
        try:
            with self._lease.open("rb") as file:  # opening is what makes a network file system look again
                found = os.fstat(file.fileno())
                return found.st_ino, found.st_mtime_ns, file.read()
        except OSError:
            return None

    def _entry(self) -> dict[str, str]:
        try:
            entry = json.loads(self._lease.read_bytes())
        except (OSError, ValueError):
            return {}
        return entry if isinstance(entry, dict) else {}

    def _holder(self) -> str | None:
        return self._entry().get("owner")


def _machine() -> str:
    """The running kernel and the container's name: where both are the same, a file lock tells who is alive."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = "unknown"
    return f"{boot} {os.uname().nodename}"
