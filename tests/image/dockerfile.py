"""The Dockerfile as stages and instructions, and .dockerignore as the files that it lets through."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its keyword in upper case, and the rest with its line breaks taken out."""

    keyword: str
    text: str

    @property
    def flags(self) -> dict[str, str]:
        """`--name=value` before the operands."""
        return dict(re.findall(r"--([a-z-]+)=(\S+)", re.match(r"(?:--\S+\s+)*", self.text)[0]))  # type: ignore[index]

    @property
    def operands(self) -> str:
        """What follows the flags."""
        return re.sub(r"^(?:--\S+\s+)*", "", self.text)

    @property
    def words(self) -> list[str]:
        """The operands of an exec form, or as a shell splits them."""
        if self.operands.startswith("["):
            return [str(word) for word in json.loads(self.operands)]
        return shlex.split(self.operands)


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: `base` is another stage's name or, for the first, a reference to an image."""

    name: str
    base: str
    instructions: tuple[Instruction, ...]

    def of(self, keyword: str) -> list[Instruction]:
        return [instruction for instruction in self.instructions if instruction.keyword == keyword]


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """The stages by name, in order; the last is what `docker build` makes."""

    stages: Mapping[str, Stage]
    arguments: Mapping[str, str]

    def lineage(self, name: str) -> list[Stage]:
        """The stage and those it stands on, the first one first."""
        stage = self.stages[name]
        return [*(self.lineage(stage.base) if stage.base in self.stages else []), stage]

    def environment(self, name: str) -> dict[str, str]:
        """Every `ENV` that holds at the end of a stage."""
        found: dict[str, str] = {}
        for stage in self.lineage(name):
            for instruction in stage.of("ENV"):
                found |= dict(word.split("=", 1) for word in instruction.words)
        return found

    def last(self, name: str, keyword: str) -> Instruction | None:
        """The instruction of that kind which holds at the end of a stage."""
        found = [instruction for stage in self.lineage(name) for instruction in stage.of(keyword)]
        return found[-1] if found else None


def _instructions(text: str) -> Iterator[Instruction]:
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    whole = re.sub(r"\\\n", "", "\n".join(lines))
    for line in filter(str.strip, whole.splitlines()):
        keyword, _, rest = line.strip().partition(" ")
        yield Instruction(keyword.upper(), rest.strip())


def read_dockerfile(text: str) -> Dockerfile:
    """Parse the part of the language that the project uses: no heredocs, every stage named."""
    stages: dict[str, Stage] = {}
    arguments: dict[str, str] = {}
    name = ""
    for instruction in _instructions(text):
        if instruction.keyword == "FROM":
            base, word, name = instruction.operands.split()
            assert word.upper() == "AS", instruction
            stages[name] = Stage(name, base, ())
        elif not stages:
            assert instruction.keyword == "ARG", f"{instruction.keyword} before the first FROM"
            key, _, value = instruction.text.partition("=")
            arguments[key] = value
        else:
            stage = stages[name]
            stages[name] = Stage(name, stage.base, (*stage.instructions, instruction))
    return Dockerfile(stages, arguments)


def dockerfile() -> Dockerfile:
    """The project's own."""
    return read_dockerfile((ROOT / "Dockerfile").read_text("utf-8"))


def ignore_rules() -> list[str]:
    """The rules of .dockerignore, in order."""
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def context_files(name: str) -> list[str]:
    """The files that `COPY name` would take, as paths from the repository's root.

    Of .dockerignore's language only what the project's file uses is known: `*`, `!name` and `**/name`.
    """
    source = ROOT / name
    found = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    return [path.relative_to(ROOT).as_posix() for path in found if not _ignored(path.relative_to(ROOT))]


def _ignored(path: Path) -> bool:
    ignored = False
    for rule in ignore_rules():
        body = rule.removeprefix("!")
        assert body == "*" or re.fullmatch(r"(\*\*/)?[\w.-]+", body), f"{rule} in .dockerignore isn't known here"
        parts = path.parts if body.startswith("**/") else path.parts[:1]
        if any(fnmatch(part, body.removeprefix("**/")) for part in parts):
            ignored = not rule.startswith("!")
    return ignored
