"""Running the builder as its users do: a process of its own, against the stand-in of the Hub."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.pins import read_lock
from tests.hub_server import ROOT, Hub


@dataclass(frozen=True)
class Builder:
    """One volume, and the Hub that it is fetched from."""

    hub: Hub
    volume: Path
    home: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "LIVERY_"))}
        environment |= {"HF_ENDPOINT": self.hub.endpoint, "HF_HOME": str(self.home), "LIVERY_VOLUME": str(self.volume)}
        return subprocess.Popen(
            [sys.executable, "-m", "builder", *arguments],
            cwd=ROOT,
            env=environment | dict(self.variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def run(self, *arguments: str, **options: Any) -> Run:
        process = self.start(*arguments, **options)
        out, err = process.communicate(timeout=120)
        return Run(process.returncode, out, err)

    def json(self, *arguments: str, expect: int = 0, **options: Any) -> dict[str, Any]:
        """A command's report."""
        ended = self.run(*arguments, "--json", **options)
        assert ended.code == expect, ended
        report = json.loads(ended.out)
        assert report["ok"] is (expect == 0)
        return dict(report)


@dataclass(frozen=True)
class Run:
    code: int
    out: str
    err: str


def finals(volume: Path) -> dict[str, Path]:
    """Every file under `models/`, by row/revision/path."""
    models = volume / "models"
    return {str(path.relative_to(models)): path for path in sorted(models.rglob("*")) if path.is_file()}


def pinned_sha256(volume: Path) -> dict[str, str]:
    """What every file under `models/` must hash to."""
    return {
        f"{name}/{pin.revision}/{file.path}": file.sha256
        for name, pin in read_lock(volume / "lock.json").items()
        for file in pin.files
    }


class Watch:
    """Hashes every file under `models/` over and over, and notes those that are not what is pinned."""

    def __init__(self, volume: Path) -> None:
        self.volume, self.expected = volume, pinned_sha256(volume)
        self.wrong: set[str] = set()
        self.looks = 0
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join()
        self.look()

    def look(self) -> None:
        self.looks += 1
        for name, path in finals(self.volume).items():
            if hashlib.sha256(path.read_bytes()).hexdigest() != self.expected.get(name):
                self.wrong.add(name)

    def _look(self) -> None:
        while not self._left.wait(0.02):
            self.look()
