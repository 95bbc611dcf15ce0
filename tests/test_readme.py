"""The README keeps its word: its examples run, its tables are the code's own."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.studio.table import floors_table
from pipeline.command import error_table
from pipeline.settings import Settings
from tests.make_readme import README, SPEED, render_readme, render_speed

ROOT = README.parent


def block(name: str) -> str:
    """The code block after `<!-- example: name -->`."""
    found = re.search(rf"<!-- example: {name} -->\n```\w+\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return found.group(1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """What `make serve` starts."""
    number = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "serve", "--port", str(number)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", number)) == 0:
                    break
            time.sleep(0.1)
        else:
            pytest.fail("the local server did not start")
        yield number
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_the_python_example_runs(port: int, tmp_path: Path) -> None:
    (tmp_path / "test_input.json").write_bytes((ROOT / "test_input.json").read_bytes())
    program = block("python").replace("localhost:8000", f"127.0.0.1:{port}")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d+ paths in 4 inks\n", done.stdout)
    assert (tmp_path / "illustration.svg").read_text().startswith("<svg ")
    assert (tmp_path / "illustration.png").read_bytes().startswith(b"\x89PNG")


def test_the_curl_example_runs(port: int) -> None:
    words = shlex.split(block("curl").replace("localhost:8000", f"127.0.0.1:{port}"))
    if subprocess.run(["sh", "-c", "command -v curl"], capture_output=True, check=False).returncode != 0:
        pytest.skip("curl is not installed")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '"status":"COMPLETED"' in done.stdout.replace(" ", "")
    assert '"svg":"<svg ' in done.stdout.replace('": "', '":"')


def test_the_generated_parts_are_up_to_date() -> None:
    assert README.read_text("utf-8") == render_readme(README.read_text("utf-8"))
    assert SPEED.read_text("utf-8") == render_speed(SPEED.read_text("utf-8"))
    assert floors_table() in SPEED.read_text("utf-8")
    assert error_table() in README.read_text("utf-8")
    for name in Settings.model_fields:
        assert f"`LIVERY_{name.upper()}`" in README.read_text("utf-8")


def test_every_pinned_package_has_its_reason() -> None:
    text = README.read_text("utf-8")
    project = (ROOT / "pyproject.toml").read_text().split("[tool.")[0]
    needed = project.split("dev = [")[0]
    for name in re.findall(r'^  "([a-z0-9-]+)', needed, re.MULTILINE):
        assert re.search(rf"^\|.*\b{name}\b.*\|.+\|", text, re.MULTILINE), name


def test_every_path_it_links_to_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README.read_text("utf-8")):
        assert target.startswith("http") or (ROOT / target).exists(), target
