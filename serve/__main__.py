"""A RunPod endpoint on this machine: `python -m serve`.

Starts the worker (`python handler.py`) and serves RunPod's routes in front of it. It listens on 127.0.0.1 unless told
otherwise, and anywhere else only with a key.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from serve.bell import Bell
from serve.client_side import Door, client_application, is_loopback
from serve.limits import Rate
from serve.platform import Platform
from serve.supervisor import Supervisor
from serve.worker_side import worker_application

KEY_VARIABLE = "SERVE_KEY"
"""Environment variable that holds the key, where no file does. The worker doesn't get it."""

LEAST_KEY_CHARACTERS = 16

TICK_S = 0.25
"""How often time is looked at: for jobs that ran out of it, and for workers that hold on to them."""

log = logging.getLogger("serve")


@dataclass(frozen=True, slots=True)
class Options:
    """How the server was started."""

    host: str
    port: int
    key: str | None
    origins: frozenset[str]
    rate: float
    worker: Path
    playground: bool


def main() -> int:
    """Serve until told to end. Returns an exit code."""
    options = _options()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)-7s %(name)s: %(message)s")
    log.setLevel(logging.INFO)
    try:
        asyncio.run(_serve(options))
    except OSError as fault:
        log.error("can't listen on %s port %d: %s", options.host, options.port, fault.strerror)  # noqa: TRY400
        return 1
    return 0


async def _serve(options: Options) -> None:
    platform, bell, secret = Platform(), Bell(), secrets.token_urlsafe(32)
    inside, inside_port = await _listen(worker_application(platform, bell, secret), "127.0.0.1", 0)
    inherited = {name: value for name, value in os.environ.items() if _is_for_worker(name)}
    address = f"http://127.0.0.1:{inside_port}"
    supervisor = Supervisor(platform, bell, options.worker, address, secret, inherited)
    door = Door(options.key, options.origins, Rate(options.rate))
    clients = client_application(platform, bell, door, lambda: supervisor.restarts)
    if options.playground:
        from serve.playground import Page  # noqa: PLC0415 - what reads palettes takes a second to import

        Page(remote=False).add_to(clients)
    try:
        outside, port = await _listen(clients, options.host, options.port)
        try:
            log.info("listening on http://%s:%d", f"[{options.host}]" if ":" in options.host else options.host, port)
            await _until_told(platform, bell, supervisor)
        finally:
            await outside.cleanup()
    finally:
        await inside.cleanup()


def _is_for_worker(variable: str) -> bool:
    """Not the key, and nothing of RunPod's, should this machine be one of theirs, but how much its SDK logs."""
    if variable.startswith("RUNPOD_"):
        return variable in ("RUNPOD_LOG_LEVEL", "RUNPOD_DEBUG_LEVEL")
    return variable != KEY_VARIABLE


async def _until_told(platform: Platform, bell: Bell, supervisor: Supervisor) -> None:
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    keeping = asyncio.create_task(supervisor.run())
    ticking = asyncio.create_task(_tick(platform, bell, supervisor))
    ends = asyncio.create_task(told.wait())
    await asyncio.wait({keeping, ticking, ends}, return_when=asyncio.FIRST_COMPLETED)
    log.info("ending; the running job has 10 s")
    platform.ending = True
    ticking.cancel()
    await supervisor.end()
    await keeping


async def _tick(platform: Platform, bell: Bell, supervisor: Supervisor) -> None:
    while True:
        await asyncio.sleep(TICK_S)
        if platform.expire():
            bell.ring()
        for worker in platform.stuck():
            log.error("%s: holds on to a job that was stopped: killed", worker)
            supervisor.kill()


async def _listen(application: web.Application, host: str, port: int) -> tuple[web.AppRunner, int]:
    """The running application, and the port it got."""
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner, int(runner.addresses[0][1])


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="python -m serve", description="A RunPod endpoint on this machine.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; other than loopback needs a key")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument("--key-file", type=Path, help=f"file with the key that clients send; or set {KEY_VARIABLE}")
    parser.add_argument("--origin", action="append", default=[], help="origin of a page that may call; repeatable")
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second that each client may make")
    parser.add_argument("--worker", type=Path, default=Path(__file__).resolve().parent.parent / "handler.py")
    parser.add_argument("--playground", action="store_true", help="serve the playground page too, at /")
    given = parser.parse_args()
    key = os.environ.get(KEY_VARIABLE) or None
    if given.key_file is not None:
        try:
            key = given.key_file.read_text("ascii").strip()
        except (OSError, ValueError):
            parser.error("--key-file: can't be read as ASCII text")
    if key is not None and (len(key) < LEAST_KEY_CHARACTERS or not key.isascii() or not key.isprintable()):
        parser.error(f"the key must have at least {LEAST_KEY_CHARACTERS} printable ASCII characters")
    if key is None and not is_loopback(given.host):
        parser.error(f"--host {given.host} is open to others: set --key-file or {KEY_VARIABLE}")
    if key is not None and given.playground:
        parser.error("--playground: a page has no key; start python -m serve.playground in front of this server")
    if not 0 <= given.port <= 65535:
        parser.error("--port: must be 0 to 65535")
    if not 0.5 <= given.rate <= 1e6:
        parser.error("--rate: must be 0.5 to 1000000")
    if not given.worker.is_file():
        parser.error("--worker: there is no such file")
    return Options(given.host, given.port, key, frozenset(given.origin), given.rate, given.worker, given.playground)


if __name__ == "__main__":
    sys.exit(main())
