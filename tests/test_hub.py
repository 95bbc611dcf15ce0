"""Deployment: the Hub's files are the code's own and its tests pass; the guide and the release name what there is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from pipeline.errors import error_classes
from pipeline.settings import PREFIX, Settings, load_settings
from pipeline.types import Phase
from tests.image.dockerfile import dockerfile
from tests.make_hub import FOLDER, SHOWN, hub, hub_tests, text_of

ROOT = Path(__file__).resolve().parent.parent
TESTS = json.loads((FOLDER / "tests.json").read_text("utf-8"))
ENTRIES = {entry["key"]: entry["input"] for entry in hub()["config"]["env"]}
MOST_BYTES = 200_000
"""Of tests.json: it is in every checkout."""


@pytest.mark.parametrize(("name", "make"), [("hub.json", hub), ("tests.json", hub_tests)])
def test_the_files_are_up_to_date(name: str, make: Callable[[], dict[str, Any]]) -> None:
    assert (FOLDER / name).read_text("utf-8") == text_of(make()), "run: python -m tests.make_hub"


def test_every_setting_is_a_field_of_the_form() -> None:
    assert list(ENTRIES) == [PREFIX + name.upper() for name in Settings.model_fields]
    assert set(Settings.model_fields) >= SHOWN
    assert {kind for entry in ENTRIES.values() for kind in [entry["type"]]} == {"string", "number", "boolean"}
    assert all(entry["name"] and entry["description"] for entry in ENTRIES.values())
    assert len({entry["name"] for entry in ENTRIES.values()}) == len(ENTRIES)
    for key, kind in (("WEIGHTS_MB", "number"), ("PRICE_USD_PER_S", "number"), ("ALLOW_SYNTHETIC", "boolean")):
        assert ENTRIES[f"LIVERY_{key}"]["type"] == kind
    assert [option["value"] for option in ENTRIES["LIVERY_AUTO_ENGINE"]["options"]] == ["auto", "draft", "studio"]


def as_variable(value: object) -> str:
    """How a form hands on what it holds; an untouched field without a default is empty."""
    return "" if value is None else json.dumps(value) if isinstance(value, bool | float | int) else str(value)


def test_the_form_s_defaults_are_the_image_s(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    for name, value in dockerfile().environment("worker").items():
        if name.startswith(PREFIX):
            monkeypatch.setenv(name, value)
    image = load_settings()
    assert image.auto_engine == "studio"
    for key, entry in ENTRIES.items():
        monkeypatch.setenv(key, as_variable(entry.get("default")))
    assert load_settings() == image


def test_presets_and_tests_name_settings() -> None:
    presets = hub()["config"]["presets"]
    assert len({preset["name"] for preset in presets}) == len(presets)
    named = [key for preset in presets for key in preset["defaults"]]
    named += [entry["key"] for entry in TESTS["config"]["env"]]
    assert set(named) <= set(ENTRIES)


def test_the_hub_finds_what_it_demands() -> None:
    for name in ("handler.py", "Dockerfile", "README.md"):
        assert (ROOT / name).is_file()
    assert hub()["type"] == "serverless"
    assert (FOLDER / "tests.json").stat().st_size < MOST_BYTES


@pytest.mark.parametrize("case", TESTS["tests"], ids=lambda case: case["name"])
def test_the_platform_s_tests_pass_without_a_volume(case: dict[str, Any], tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    given = {entry["key"]: entry["value"] for entry in TESTS["config"]["env"]}
    volume = {"LIVERY_VOLUME": str(tmp_path / "none")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "handler.py"), "--test_input", json.dumps({"input": case["input"]})],
        cwd=tmp_path,
        env={**clean, **given, **volume, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=case["timeout"] / 1000,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = {"ping": "'status': 'ready'", "dry_run": "'estimate'", "draft": "<svg "}[case["name"]]
    assert said in done.stdout + done.stderr


GUIDE = (ROOT / "docs/deploy.md").read_text("utf-8")


def test_the_guide_has_every_error_code() -> None:
    leaves = [kind.__name__ for kind in error_classes() if not kind.__subclasses__()]
    assert re.findall(r"^\| `([A-Z]\w+)` \|", GUIDE, re.MULTILINE) == leaves


def test_the_guide_names_settings_fields_and_files_that_exist() -> None:
    named = set(re.findall(r"LIVERY_[A-Z_]+\b(?!…)", GUIDE))
    assert named <= set(ENTRIES) | {"LIVERY_STUDIO_DEADLINE_", "LIVERY_BUCKET_"}
    for link in re.findall(r"\]\((\.\./[^)#]+)", GUIDE):
        assert (ROOT / "docs" / link).exists(), link


def test_the_guide_s_commands_are_the_builder_s() -> None:
    pins: dict[str, str] = dict(re.findall(r"([a-z0-9-]+)==([\d.]+)", GUIDE))
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["studio"]
    assert pins
    assert {f"{name}=={version}" for name, version in pins.items()} <= set(listed)
    commands = [line.split("#")[0].split()[3:] for line in GUIDE.splitlines() if " -m builder " in line]
    assert [words[0] for words in commands] == ["warm", "verify", "compile"]
    for words in commands:
        program = [
            sys.executable,
            "-c",
            "import sys; from builder.__main__ import _parser; _parser().parse_args(sys.argv[1:])",
        ]
        assert subprocess.run([*program, *words], cwd=ROOT, check=False).returncode == 0, words


def test_livery_s_own_deadlines_come_before_the_platform_s() -> None:
    settings = Settings.model_construct()
    own_s = sum(settings.deadline_s(phase, "studio") for phase in get_args(Phase))
    named_s = re.search(r"Execution timeout \| (\d+) s", GUIDE)
    assert named_s is not None
    assert own_s < int(named_s[1])


def test_the_release_workflow_calls_what_there_is() -> None:
    workflow = (ROOT / ".github/workflows/release.yml").read_text("utf-8")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = re.findall(r"run: make (.+)", workflow)[0].split()
    assert targets == ["lint", "types", "test"]
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    assert re.findall(r"--target (\w+)", workflow) == ["draft"]
    assert "draft" in dockerfile().stages
    assert TESTS["tests"][-1]["input"]["engine"] == "draft"
