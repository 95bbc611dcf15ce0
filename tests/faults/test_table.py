"""Every fault of the table has a test that says what it reached."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.faults import FAULTS


def noted(path: Path) -> set[str]:
    """The faults that a file's tests note a figure for."""
    calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
    named = [call.args[0] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "figure"]
    return {str(fault.value) for fault in named if isinstance(fault, ast.Constant)}


def test_every_fault_has_a_figure() -> None:
    found = set[str]().union(*(noted(path) for path in Path(__file__).parent.glob("test_*.py")))
    assert found == set(FAULTS)
