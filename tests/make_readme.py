"""Writes the generated parts of the docs, tables of what the code holds: `python -m tests.make_readme`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from benchmarks.studio.coldstart import coldstart_table
from benchmarks.studio.table import compared_table, floors_table, results_table, targets_table
from pipeline.command import error_table
from pipeline.presets import PRESETS
from pipeline.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
SPEED = ROOT / "docs" / "studio-speed.md"


def settings_table() -> str:
    """The `LIVERY_*` variables as a Markdown table."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{field.default}`"
        rows.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows]) + "\n"


def presets_table() -> str:
    """The presets as a Markdown table."""
    rows = [
        f"| `{name}` | {', '.join(_said(*field) for field in fields.items())} |" for name, fields in PRESETS.items()
    ]
    return "\n".join(["| preset | sets |", "|---|---|", *rows]) + "\n"


def _said(field: str, value: object) -> str:
    if isinstance(value, tuple):
        return " and ".join(f"`{part}`" for part in value)
    return f"`{field}` {str(value).lower() if isinstance(value, bool | str) else f'{value:g}'}"


def render_readme(text: str) -> str:
    """The README with what stands between its markers made anew."""
    return _made_anew(text, {"settings": settings_table(), "errors": error_table(), "presets": presets_table()})


def render_speed(text: str) -> str:
    """The same of docs/studio-speed.md."""
    tables = {"measured": results_table(), "targets": targets_table(), "compared": compared_table()}
    tables["coldstart"] = coldstart_table()
    return _made_anew(text, {"floors": floors_table(), **tables})


def _made_anew(text: str, tables: Mapping[str, str]) -> str:
    for name, table in tables.items():
        pattern = rf"<!-- {name} -->\n.*?(?=<!-- end -->)"
        text = re.sub(pattern, lambda _, made=f"<!-- {name} -->\n{table}": made, text, flags=re.DOTALL)  # type: ignore[misc]
    return text


def main() -> None:
    """Bring both up to date."""
    README.write_text(render_readme(README.read_text("utf-8")), encoding="utf-8")
    SPEED.write_text(render_speed(SPEED.read_text("utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
