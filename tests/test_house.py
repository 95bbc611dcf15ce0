"""The house's rules: who may import whom, how long a function may be, where errors may be swallowed."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import errors

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [
    ROOT / "handler.py",
    *(
        path
        for folder in ("pipeline", "models", "builder", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ),
]
PHASES = ("decode", "sanitize", "steer", "enforce", "vectorize")
OURS = ("handler", "pipeline", "models", "builder", "benchmarks", "tests")
MAY_IMPORT = {
    "handler": {"pipeline"},
    "pipeline": {"pipeline", "models"},
    "models": {"models"},
    "builder": {"builder", "models"},
    "benchmarks": {"benchmarks", "pipeline", "models", "tests"},
}
LEAVES = {"pipeline.errors", "pipeline.types"}
LONGEST_FUNCTION_LINES = 60


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(path: Path) -> set[str]:
    return {name for name in imports_of(path) if name.split(".")[0] in OURS}


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_imports_point_one_way(path: Path) -> None:
    module = module_of(path)
    allowed = MAY_IMPORT[module.split(".")[0]] | ({"pipeline"} if module.startswith("builder") else set())
    for name in ours(path):
        assert name.split(".")[0] in allowed, f"{module} imports {name}"
        if module.startswith("builder"):
            assert name.split(".")[0] != "pipeline" or name.startswith(("pipeline.errors", "pipeline.types"))


def test_the_leaves_import_nothing_of_ours() -> None:
    for leaf in LEAVES:
        assert not ours(ROOT / f"{leaf.replace('.', '/')}.py")
    assert (ROOT / "pipeline/__init__.py").read_text() == ""


def test_phases_do_not_import_each_other() -> None:
    for phase in PHASES:
        others = {f"pipeline.{other}" for other in PHASES if other != phase}
        assert not others & set(imports_of(ROOT / f"pipeline/{phase}.py"))


def test_torch_is_imported_in_models_only() -> None:
    heavy = {"torch", "torchvision", "diffusers", "transformers"}
    for path in SOURCES:
        if not module_of(path).startswith("models"):
            assert not heavy & {name.split(".")[0] for name in imports_of(path)}, path.name


def test_no_module_is_dead() -> None:
    # Importing a module imports the packages above it.
    used = {name for path in [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))] for name in imports_of(path)}
    used |= {name.rpartition(".")[0] for name in used}
    entries = {"handler", "pipeline", "pipeline.__main__", "benchmarks", "benchmarks.__main__", "models", "builder"}
    run_by_path = {"pipeline.trace.vtracer_child"}
    for path in SOURCES:
        assert module_of(path) in used | entries | run_by_path, f"nothing imports {module_of(path)}"


def test_functions_are_short() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                assert lines <= LONGEST_FUNCTION_LINES, f"{module_of(path)}.{node.name} has {lines} lines"


def test_the_only_broad_except_is_the_handler_s() -> None:
    broad = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ExceptHandler):
                name = node.type.id if isinstance(node.type, ast.Name) else None
                if node.type is None or name in {"Exception", "BaseException"}:
                    broad.append(module_of(path))
    assert broad == ["handler"]


def test_public_functions_say_what_they_do() -> None:
    for path in SOURCES:
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and path.name != "handler.py":
                assert ast.get_docstring(node), f"{module_of(path)}.{node.name} has no docstring"


def test_every_requirement_is_pinned() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    listed = re.findall(r'^  "([a-z][^"]*)",$', text.split("[tool.")[0], re.MULTILINE)
    assert len(listed) > 15
    for requirement in listed:
        assert "==" in requirement or requirement.startswith("torch>="), requirement


def test_error_codes_are_in_the_tree_s_picture() -> None:
    codes = [kind.__name__ for kind in errors.error_classes()]
    assert len(codes) == len(set(codes))
    assert errors.__doc__ is not None
    assert re.findall(r"(?m)^    [│├└─ ]*([A-Z]\w+)", errors.__doc__) == codes


def test_no_file_names_a_machine() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    forbidden = re.compile(r"/(?:home|root|Users|work)/|/tmp/[a-z]")
    for name in listed.stdout.split():
        path = ROOT / name
        # Tests may name paths as bait for leaks.
        if path.suffix in {".py", ".md", ".toml", ".json"} and not name.startswith("test"):
            assert not forbidden.search(path.read_text("utf-8")), name
