"""The house's rules: who may import whom, how long a function may be, where errors may be swallowed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from pipeline import errors

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [
    ROOT / "handler.py",
    *(
        path
        for folder in ("pipeline", "models", "builder", "serve", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ),
]
PHASES = ("decode", "sanitize", "steer", "enforce", "vectorize")
OURS = ("handler", "pipeline", "models", "builder", "serve", "benchmarks", "tests")
MAY_IMPORT = {
    "handler": {"pipeline"},
    "pipeline": {"pipeline", "models"},
    "models": {"models"},
    "builder": {"builder", "models"},
    "serve": {"serve", "pipeline"},
    "benchmarks": {"benchmarks", "builder", "pipeline", "models", "tests"},
}
LEAVES = {"pipeline.errors", "pipeline.types"}
LONGEST_FUNCTION_LINES = 60


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or later, and every name it takes from one."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{path.name} imports relatively"
            assert node.level == 0, f"{path.name} imports relatively"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MODULES = {module_of(path): path for path in SOURCES}


@cache
def ours(module: str) -> frozenset[str]:
    """Every name of ours that a module imports: packages, modules, and what it takes from them."""
    return frozenset(name for name in imports_of(MODULES[module]) if name.split(".")[0] in OURS)


def reached(*starts: str) -> set[str]:
    """Modules that these import, at first or second hand; a start is among them only if the imports go round."""
    found: set[str] = set()
    ahead = list(starts)
    while ahead:
        new = {name for name in ours(ahead.pop()) if name in MODULES} - found
        found |= new
        ahead += new
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    allowed = MAY_IMPORT[module.split(".", maxsplit=1)[0]]
    for name in ours(module):
        leaf = any(f"{name}.".startswith(f"{leaf}.") for leaf in LEAVES)
        assert leaf or name.split(".")[0] in allowed, f"{module} imports {name}"


@pytest.mark.parametrize("module", MODULES)
def test_no_imports_go_round(module: str) -> None:
    assert module not in reached(module)


def test_the_leaves_import_nothing_of_ours() -> None:
    for leaf in LEAVES:
        assert not ours(leaf)
    assert MODULES["pipeline"].read_text() == ""


@pytest.mark.parametrize("phase", PHASES)
def test_phases_do_not_import_each_other_even_by_a_detour(phase: str) -> None:
    others = {f"pipeline.{other}" for other in PHASES if other != phase}
    assert not others & reached(f"pipeline.{phase}")


def test_torch_is_imported_in_models_and_where_random_weights_are_written_and_timed_only() -> None:
    heavy = {"torch", "torchvision", "diffusers", "transformers"}
    for path in SOURCES:
        if not module_of(path).startswith(("models", "builder.synthetic", "benchmarks.studio")):
            assert not heavy & {name.split(".")[0] for name in imports_of(path)}, path.name


def test_no_module_is_dead() -> None:
    # What only tests import is dead too.
    entries = {
        "handler",
        "benchmarks.studio",
        "benchmarks.studio.coldstart",
        "benchmarks.soak",
        *(module for module in MODULES if module.endswith(".__main__")),
    }
    packages = {module_of(path) for path in SOURCES if path.name == "__init__.py"}
    run_by_path = {"pipeline.trace.vtracer_child"}
    assert set(MODULES) == reached(*entries) | entries | packages | run_by_path


def test_functions_are_short() -> None:
    for path in SOURCES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                assert lines <= LONGEST_FUNCTION_LINES, f"{module_of(path)}.{node.name} has {lines} lines"


def compiled_functions(tree: ast.Module, decorators: set[str]) -> list[ast.FunctionDef]:
    return [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and decorators & {ast.unparse(mark) for mark in node.decorator_list}
    ]


def test_what_is_compiled_into_kernels_is_called_by_kernels_only() -> None:
    # Such a function has no wrapper for Python: a call from there ends the process.
    inlined = {
        f"{module}.{node.name}"
        for module, path in MODULES.items()
        for node in compiled_functions(tree_of(path), {"inlined"})
    }
    assert len(inlined) > 50
    for path in (*SOURCES, *sorted((ROOT / "tests").glob("*.py"))):
        tree, module = tree_of(path), module_of(path)
        taken = set(imports_of(path))
        known = {name.rpartition(".")[2] for name in inlined if name in taken or name.rpartition(".")[0] == module}
        compiled = [part for node in compiled_functions(tree, {"kernel", "inlined"}) for part in ast.walk(node)]
        for node in set(ast.walk(tree)) - set(compiled):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in known
            assert not called, f"{path.name} calls {ast.unparse(node)}"


def names_in(node: ast.expr | None) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)} if node is not None else set()


def test_the_only_broad_except_is_the_handler_s() -> None:
    broad = []
    for module, path in MODULES.items():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ExceptHandler):
                caught = names_in(node.type) if node.type is not None else {"BaseException"}
            elif isinstance(node, ast.Call) and "suppress" in ast.unparse(node.func):
                caught = set().union(*(names_in(argument) for argument in node.args))
            else:
                continue
            if caught & {"Exception", "BaseException"}:
                broad.append(module)
    assert broad == ["handler"]


def test_public_functions_say_what_they_do() -> None:
    for path in SOURCES:
        for node in tree_of(path).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and path.name != "handler.py":
                assert ast.get_docstring(node), f"{module_of(path)}.{node.name} has no docstring"


def requirements() -> dict[str, str]:
    """Each requirement's name and its version range."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    return dict(re.findall(r"^([\w-]+)(?:\[\w+\])?(.*)$", "\n".join(listed), re.MULTILINE))


def test_every_requirement_is_pinned() -> None:
    ranges = requirements()
    # A GPU's driver decides which torch serves it, so that one has a floor and a ceiling.
    assert re.fullmatch(r">=[\d.]+,<[\d.]+", ranges.pop("torch"))
    assert len(ranges) > 15
    for name, versions in ranges.items():
        assert re.fullmatch(r"==\d+(\.\d+)+", versions), name


DISTRIBUTIONS = {
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "pydantic_core": "pydantic",
    "pynvml": "nvidia-ml-py",
    "skia": "skia-python",
}


def test_every_import_is_a_requirement() -> None:
    tops = {name.split(".")[0] for path in SOURCES for name in imports_of(path)}
    foreign = tops - sys.stdlib_module_names - set(OURS)
    assert {DISTRIBUTIONS.get(name, name.replace("_", "-")) for name in foreign} <= set(requirements())


def test_error_codes_are_in_the_tree_s_picture() -> None:
    codes = [kind.__name__ for kind in errors.error_classes()]
    assert len(codes) == len(set(codes))
    assert errors.__doc__ is not None
    assert re.findall(r"(?m)^    [│├└─ ]*([A-Z]\w+)", errors.__doc__) == codes


FORBIDDEN = re.compile(r"/(?:home|root|Users|work)/|/tmp/\w")
BAIT = {"tests/test_palette.py", "tests/test_logs.py"}  # name such paths to see them kept out of messages


def test_no_file_names_a_machine() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    for name in listed.stdout.split("\0"):
        path = ROOT / name
        if name in BAIT or not path.is_file():
            continue
        text = path.read_bytes().decode("utf-8", "replace")
        found = None if "\0" in text else FORBIDDEN.search(text)
        assert found is None, f"{name}: {found and found[0]}"
