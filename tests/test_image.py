"""The image: what the Dockerfile may and may not say, and its draft engine built and run in a clean Debian root."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pipeline.settings import PREFIX, Settings
from tests.image.dockerfile import ROOT, context_files, dockerfile, read_dockerfile
from tests.image.root import Builder, NoDebian, layer_sizes, why_impossible

FILE = dockerfile()
FINAL = ("draft", "worker")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
KERNELS = "/opt/kernels"
LARGEST_DRAFT_MB = 1000
"""Of the draft image's files; docs/deploy.md says what they are."""


def steps(*names: str) -> str:
    """The text of every RUN of these stages."""
    return "\n".join(step.operands for name in names or FILE.stages for step in FILE.stages[name].of("RUN"))


def test_a_linter_finds_nothing() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    if not linter.exists():
        pytest.skip("hadolint is not installed; it comes with the dev extra")
    done = subprocess.run(
        [linter, "--failure-threshold", "style", "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


UNREADABLE, UNPINNED = "DL1000", "DL3013"


def shell_scripts() -> list[Path]:
    """Every file of the checkout whose first line names a shell."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in files if path.is_file() and re.match(rb"#!.*\b(?:ba)?sh\s", path.read_bytes()[:80])]


def test_shellcheck_finds_nothing_in_shell_scripts() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    if not linter.exists():
        pytest.skip("hadolint, which holds ShellCheck, is not installed; it comes with the dev extra")
    scripts = shell_scripts()
    assert {path.name for path in scripts} >= {"run", "curl.sh"}
    for path in scripts:
        text = path.read_text("utf-8")
        shell = "bash" if "bash" in text.partition("\n")[0] else "sh"
        # The linter reads a script as the body of a RUN, and has rules for images that no script need keep.
        step = f'FROM scratch\nSHELL ["/bin/{shell}", "-c"]\nRUN <<"SCRIPT"\n{text}\nSCRIPT\n'
        lint: list[str | Path] = [linter, "--no-fail", "--format", "json", "-"]
        done = subprocess.run(lint, input=step, capture_output=True, text=True, check=True)
        codes = {fault["code"] for fault in json.loads(done.stdout)}
        found = {code for code in codes if code.startswith("SC") or code in {UNREADABLE, UNPINNED}}
        assert found == set(), path.name


def test_nothing_runs_as_root() -> None:
    for name in FINAL:
        user = FILE.last(name, "USER")
        assert user is not None
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user.operands), "a number, so that a platform can see it isn't root"
    # The code is root's, so what runs can't change it; the cache is the user's, since numba insists on writing there.
    for name in FINAL:
        owned = {copy.words[-1]: copy.flags.get("chown") for copy in FILE.stages[name].of("COPY")}
        assert {target for target, owner in owned.items() if owner is not None} == {KERNELS}


def test_nothing_installs_where_it_runs() -> None:
    lineage = {stage.name for name in FINAL for stage in FILE.lineage(name)}
    assert lineage == {"system", "runtime", *FINAL}
    assert "pip" not in steps(*lineage)
    assert re.findall(r"apt-get install[^&]*", steps(*lineage)) == [
        "apt-get install --yes --no-install-recommends ca-certificates python3     "
    ]


def test_bases_and_versions_are_pinned() -> None:
    assert [stage.base for stage in FILE.stages.values() if stage.base not in FILE.stages] == ["${BASE}"]
    assert re.fullmatch(r"[\w./-]+:(?!latest)[\w.-]+(@sha256:[0-9a-f]{64})?", FILE.arguments["BASE"])
    parts = [part for part in re.split(r"&&|\n", steps()) if re.search(r"\bpip\b.* install ", part)]
    assert len(parts) == 4
    for part in parts:
        assert re.search(r" torch==2\.11\.0$| --requirement core\.txt| --no-deps .* \.$", part.rstrip()), part
    # The requirement files are pyproject.toml's, which test_house checks; the image's torch lies in its range there.
    listed = next(line for line in PROJECT["optional-dependencies"]["studio"] if line.startswith("torch"))
    low, high = (tuple(map(int, version.split("."))) for version in re.findall(r"[\d.]+", listed))
    assert low <= tuple(map(int, re.findall(r"torch==([\d.]+)", steps("torch"))[0].split("."))) < high
    assert "https://download.pytorch.org/whl/cu128" in steps("torch")


def test_there_are_no_secrets() -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    for secret in ("TOKEN", "SECRET", "PASSWORD", "API_KEY", "BUCKET_KEY"):
        assert secret not in text.upper()


def test_commands_are_programs_not_shells() -> None:
    for name in FINAL:
        for keyword in ("CMD", "HEALTHCHECK"):
            found = FILE.last(name, keyword)
            assert found is not None
            assert found.operands.removeprefix("CMD ").startswith("["), "a shell would keep SIGTERM to itself"
        command = FILE.last(name, "CMD")
        assert command is not None
        assert command.words == ["python", "handler.py"]


def test_the_image_s_settings_exist_and_the_gpu_is_asked_for() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in FINAL:
        environment = FILE.environment(name)
        assert {key for key in environment if key.startswith(PREFIX)} <= known
        assert environment["NUMBA_CACHE_DIR"] == FILE.environment("core")["NUMBA_CACHE_DIR"] == KERNELS
    worker = FILE.environment("worker")
    assert (worker["NVIDIA_VISIBLE_DEVICES"], worker["NVIDIA_DRIVER_CAPABILITIES"]) == ("all", "compute,utility")
    assert worker["LIVERY_AUTO_ENGINE"] == "studio"
    assert list(FILE.stages)[-1] == "worker", "the platform builds the last stage"


def test_the_build_asserts_the_gpu_s_architecture() -> None:
    text = steps("studio")
    assert "assert 'sm_120' in" in text
    assert "get_arch_list" not in text, "it is empty on a builder without a GPU"


def test_what_is_copied_is_the_package_and_nothing_else() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    wanted = {name.split(".")[0] for name in tool["packages"]} | {f"{name}.py" for name in tool["py-modules"]}
    copied = {source for step in FILE.stages["core"].of("COPY") for source in step.words[:-1]}
    assert copied == wanted | {"pyproject.toml", "README.md", "test_input.json"}
    files = [path for source in copied for path in context_files(source)]
    assert "handler.py" in files
    assert not [path for path in files if not re.search(r"\.(py|json|md|toml)$", path)]
    for outside in ("tests", ".git", "out", "docs", "Makefile", ".env"):
        assert not context_files(outside)


def test_a_dockerfile_is_read_as_it_is_meant() -> None:
    text = """# c
ARG A=b:1
FROM ${A} AS one
ENV X=1 \\
    Y='2 3'
# c
RUN a \\
  && b
FROM one AS two
COPY --from=one --chown=1:2 /a /b
ENV X=4
"""
    read = read_dockerfile(text)
    assert read.arguments == {"A": "b:1"}
    assert read.environment("two") == {"X": "4", "Y": "2 3"}
    assert [step.operands for step in read.stages["one"].of("RUN")] == ["a   && b"]
    copy = read.stages["two"].of("COPY")[0]
    assert (copy.flags, copy.words) == ({"from": "one", "chown": "1:2"}, ["/a", "/b"])


@pytest.fixture(scope="module")
def builder() -> Builder:
    """The Dockerfile's steps in a root of their own, below IMAGE_ROOT, where what did not change is kept."""
    folder = os.environ.get("IMAGE_ROOT", "")
    if not folder:
        pytest.skip("IMAGE_ROOT names no folder: the Dockerfile's steps are not run here (make image-check runs them)")
    if (reason := why_impossible()) is not None:
        pytest.skip(f"the Dockerfile's steps can't be run here: {reason}")
    place = Path(folder).resolve()
    place.mkdir(parents=True, exist_ok=True)
    builder = Builder(FILE, place)
    try:
        builder.stage("draft")
    except NoDebian as fault:
        pytest.skip(f"the Dockerfile's steps can't be run here: debootstrap failed: {fault}")
    return builder


def draft(builder: Builder, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the draft image: read-only but for the kernels' cache, no network, an empty HOME, not root."""
    return builder.run("draft", command, environment, writable=KERNELS)


def test_the_handler_serves_jobs_in_a_clean_root(builder: Builder) -> None:
    for case in json.loads((ROOT / ".runpod/tests.json").read_text("utf-8"))["tests"]:
        done = draft(builder, ["python", "handler.py", "--test_input", json.dumps({"input": case["input"]})])
        assert done.returncode == 0, done.stderr[-3000:]
        said = {"ping": f"'livery': '{PROJECT['version']}'", "dry_run": "'estimate'", "draft": "<svg "}[case["name"]]
        assert said in done.stdout + done.stderr


def test_no_kernel_is_compiled_where_it_runs(builder: Builder) -> None:
    done = draft(builder, ["python", "-m", "pipeline", "compile"])
    assert (done.returncode, done.stdout.split(" (")[0]) == (0, "the kernels are in the cache"), done.stderr[-3000:]


def test_the_health_check_finds_a_ready_worker_and_a_failing_one(builder: Builder) -> None:
    check = FILE.last("draft", "HEALTHCHECK")
    assert check is not None
    command = json.loads(check.operands.removeprefix("CMD "))
    assert draft(builder, command).returncode == 0
    assert draft(builder, command, LIVERY_AUTO_ENGINE="studio").returncode == 1


def test_code_can_not_be_changed_and_nobody_is_root(builder: Builder) -> None:
    done = draft(
        builder,
        [
            "python",
            "-c",
            "import os; print(os.getuid(), [place for place in "
            "('/opt/livery', '/opt/packages', '/usr', '/etc') if os.access(place, os.W_OK)])",
        ],
    )
    assert done.stdout == "10001 []\n", done.stderr
    owners = {path.lstat().st_uid for path in (builder.stage("draft") / "opt/livery").rglob("*")}
    assert owners == {0}


def test_the_draft_image_is_small(builder: Builder) -> None:
    sizes = layer_sizes(builder, "draft")
    print({place: f"{size / 1e6:.1f} MB" for place, size in sizes.items()})
    assert sum(sizes.values()) < LARGEST_DRAFT_MB * 10**6
