"""The command line: photos in; SVG, PNG, report and before/after page out.

    python -m pipeline PHOTO… --palette … -o OUT/     illustrate photos, or folders of them
    python -m pipeline demo REQUEST.json -o OUT/      run a request file as the handler would, and write its files
    python -m pipeline compile                        compile the kernels into the cache, once
    python -m pipeline schema [--write]               print schema.json, or write it
    python -m pipeline errors                         print the error list as a table

Exit codes: 0 all fine; 1 some photo failed; 2 the options or the palette can't be used; 130 interrupted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipeline.errors import Cancelled, LiveryError, PaletteError, SchemaError, error_classes
from pipeline.export.page import render_page
from pipeline.palette import DEFAULT_PALETTE
from pipeline.palette_files import read_palette_file
from pipeline.run import JobResult, Progress, dry_run, run
from pipeline.schema import JobInput, parse_request, schema_text
from pipeline.settings import Settings, SettingsError, load_settings
from pipeline.types import Palette
from pipeline.warm import warm_kernels

FINE, SOME_FAILED, UNUSABLE, INTERRUPTED = 0, 1, 2, 130

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
PALETTE_SUFFIXES = frozenset({".gpl", ".ase", ".aco", ".csv", ".json", ".txt", ".hex"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    commands = {"compile": _compile, "demo": _demo, "schema": _schema, "errors": _errors}
    if given and given[0] in commands:
        return commands[given[0]](given[1:])
    return _illustrate(given)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _refuse(line: str) -> int:
    sys.stderr.write(f"error: {line}\n")
    return UNUSABLE


def _compile(given: Sequence[str]) -> int:
    argparse.ArgumentParser(prog="python -m pipeline compile", description=warm_kernels.__doc__).parse_args(given)
    began_s = time.perf_counter()
    compiled = warm_kernels()
    spent_s = time.perf_counter() - began_s
    what = f"compiled {compiled} kernels into the cache" if compiled else "the kernels are in the cache"
    _say(f"{what} ({spent_s:.1f} s)")
    return FINE


def _schema(given: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipeline schema", description="The JSON schema of a job.")
    parser.add_argument("--write", action="store_true", help="write schema.json in the current folder")
    if parser.parse_args(given).write:
        Path("schema.json").write_text(schema_text(), encoding="utf-8")
    else:
        sys.stdout.write(schema_text())
    return FINE


def _errors(given: Sequence[str]) -> int:
    argparse.ArgumentParser(prog="python -m pipeline errors", description="The error list.").parse_args(given)
    sys.stdout.write(error_table())
    return FINE


def error_table() -> str:
    """The error codes as a Markdown table, from the tree itself. Groups are left out: no reply carries them."""
    rows = [kind for kind in error_classes() if not kind.__subclasses__()]
    lines = [f"| `{kind.__name__}` | {'yes' if kind.retryable else 'no'} | {kind.summary} |" for kind in rows]
    return "\n".join(["| code | retryable | meaning |", "|---|---|---|", *lines]) + "\n"


def _demo(given: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipeline demo", description="Run a request file.")
    parser.add_argument("request", type=Path, help='JSON with the job under "input"')
    parser.add_argument("-o", "--output", type=Path, default=Path("out"), help="folder for the files (default: out)")
    options = parser.parse_args(given)
    try:
        result = run(parse_request(json.loads(options.request.read_text("utf-8"))["input"]), load_settings())
    except (LiveryError, SettingsError) as fault:
        return _refuse(_line(fault))
    options.output.mkdir(parents=True, exist_ok=True)
    files = write_files(result, options.output, options.request.stem, options.request.name)
    seconds = result.report.timings_ms.total / 1000
    _say(f"{result.drawing.paths} paths in {seconds:.2f} s")
    for kind in ("page", "svg", "png"):
        for file in files[kind]:
            _say(f"{kind.upper():4}  {file}")
    return FINE


def _line(fault: LiveryError | SettingsError) -> str:
    return str(fault.as_reply()["error"]) if isinstance(fault, LiveryError) else str(fault)


def write_files(result: JobResult, folder: Path, stem: str, title: str) -> dict[str, list[Path]]:
    """Write a result's files, each whole or not at all, the report last.

    Args:
        result: of one job.
        folder: existing.
        stem: file names start with it.
        title: of the page.

    Returns:
        Paths by kind: `svg`, `png`, `page`, `report`.
    """
    formats = result.report.options.output.formats
    files: dict[str, list[Path]] = {"svg": [], "png": [], "page": [], "report": []}
    if "svg" in formats:
        files["svg"].append(_write(folder / f"{stem}.svg", result.drawing.svg.encode()))
    for png in result.pngs:
        files["png"].append(_write(folder / f"{stem}-{png.width_px}.png", png.data))
    page = render_page(title, result.photo.rgb, result.drawing.svg, result.report)
    files["page"].append(_write(folder / f"{stem}.html", page.encode()))
    report = json.dumps(result.report.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"
    files["report"].append(_write(folder / f"{stem}.json", report.encode()))
    return files


def _write(path: Path, data: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline",
        description="Turn vehicle photos into palette-exact vector illustrations.",
        epilog=(
            "examples:  python -m pipeline car.jpg --palette brand.gpl -o out/   |   "
            "python -m pipeline photos/ --palette extract:8 --json -o out/   |   "
            "other commands: compile, demo, schema, errors (a photo of that name is given as ./compile).   "
            "exit codes: 0 all fine, 1 some photo failed, 2 unusable options or palette, 130 interrupted."
        ),
    )
    parser.add_argument(
        "photos", nargs="+", type=Path, metavar="PHOTO", help="a JPEG, PNG or WebP, or a folder of them"
    )
    parser.add_argument(
        "--palette", help="hex list, coolors link, extract:N, or a .gpl .ase .aco .csv .json .txt .hex file"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("out"), help="folder for the files (default: out)")
    parser.add_argument("--detail", type=float, help="how many regions survive, 0 to 1 (default 0.5)")
    parser.add_argument("--tone", type=float, help="strength of the tone mapping, 0 to 1 (default 0.5)")
    parser.add_argument("--line-work", type=float, help="strength of the line work, 0 to 1 (default 0)")
    parser.add_argument("--background", help="keep (default), remove, or a colour of the palette")
    parser.add_argument("--subject", help="auto (default), whole, X,Y or X0,Y0,X1,Y1 in pixels of the upright photo")
    parser.add_argument("--remove", action="append", metavar="X0,Y0,X1,Y1", help="fill this region in (repeatable)")
    parser.add_argument("--protect", action="append", metavar="X0,Y0,X1,Y1", help="never touch this one (repeatable)")
    parser.add_argument(
        "--width", action="append", type=int, help="width of a PNG in pixels (repeatable, default 2048)"
    )
    parser.add_argument("--engine", help="auto (default), draft or studio")
    parser.add_argument("--seed", type=int, help="seed of the studio engine")
    parser.add_argument("--json", action="store_true", help="print one line of JSON for each photo: the whole report")
    parser.add_argument("--dry-run", action="store_true", help="check and estimate only; write nothing")
    parser.add_argument("--resume", action="store_true", help="skip photos whose report matches photo and options")
    return parser


def _numbers(text: str, counts: tuple[int, ...], field: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in counts:
        raise SchemaError(f"takes {' or '.join(map(str, counts))} numbers with commas between them", field=field)
    return numbers


def _palette_of(text: str | None) -> Palette | dict[str, int] | str:
    """The `palette` of the request: a file's inks, an extraction, or the text as it is."""
    if text is None:
        return DEFAULT_PALETTE
    if text.startswith("extract:") and text[8:].isascii() and text[8:].isdigit():
        return {"extract": int(text[8:])}
    path = Path(text)
    if path.suffix.lower() not in PALETTE_SUFFIXES:
        return text
    try:
        return read_palette_file(path.read_bytes(), path.name)
    except OSError:
        raise PaletteError(f"{path.name} can't be read", field="palette") from None


def request_of(options: argparse.Namespace) -> JobInput:
    """The request that the options stand for, without its photo; checked as the handler checks it.

    Raises:
        SchemaError, PaletteError: as for any request.
    """
    palette = _palette_of(options.palette)
    if isinstance(palette, Palette):
        palette_json: Any = [{"hex": ink.hex, "name": ink.name} for ink in palette.inks]
    else:
        palette_json = palette
    request: dict[str, Any] = {"palette": palette_json}
    for name in ("detail", "tone", "line_work", "background", "engine", "seed"):
        if getattr(options, name) is not None:
            request[name] = getattr(options, name)
    if options.subject is not None:
        request["subject"] = _subject_of(options.subject)
    request["sanitize"] = {
        field: [_numbers(text, (4,), f"sanitize.{field}[{i}]") for i, text in enumerate(given)]
        for field, given in (("regions", options.remove), ("protect", options.protect))
        if given is not None
    }
    if options.width is not None:
        request["output"] = {"png_widths": options.width}
    return parse_request(request)


def _subject_of(text: str) -> str | dict[str, list[float]]:
    if text in ("auto", "whole"):
        return text
    numbers = _numbers(text, (2, 4), "subject")
    return {"point": numbers} if len(numbers) == 2 else {"box": numbers}


@dataclass(frozen=True, slots=True)
class _Task:
    """One photo and the stem of its files."""

    photo: Path
    stem: str


def _tasks(given: Sequence[Path]) -> list[_Task]:
    """Photos in order, folders opened; where two have one stem, the suffix joins it, then a number."""
    photos: list[Path] = []
    for path in given:
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES) if path.is_dir() else [path]
        photos += [photo for photo in inside if photo not in photos]
    stems = Counter(photo.stem for photo in photos)
    named = [p.stem if stems[p.stem] == 1 else p.name.replace(".", "-") for p in photos]
    seen: Counter[str] = Counter()
    tasks = []
    for photo, stem in zip(photos, named, strict=True):
        seen[stem] += 1
        tasks.append(_Task(photo, stem if seen[stem] == 1 else f"{stem}-{seen[stem]}"))
    return tasks


def _illustrate(given: Sequence[str]) -> int:
    parser = _parser()
    if not given:
        parser.print_help(sys.stderr)
        return UNUSABLE
    options = parser.parse_args(given)
    try:
        job, settings = request_of(options), load_settings()
        options.output.mkdir(parents=True, exist_ok=True)
    except (LiveryError, SettingsError) as fault:
        return _refuse(_line(fault))
    except OSError:
        return _refuse(f"{options.output.name}: can't be made a folder")
    return _Batch(job, settings, options).work(_tasks(options.photos))


class _Interrupt:
    """Ctrl-C as a question that a job asks; a second Ctrl-C kills the process as usual."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> _Interrupt:
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, *_: object) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, self._before)


class _Batch:
    """Photos, one after the other, with one request."""

    def __init__(self, job: JobInput, settings: Settings, options: argparse.Namespace) -> None:
        self._job, self._settings, self._options = job, settings, options
        self._wanted = job.options().model_dump(mode="json")
        self._failed = 0

    def work(self, tasks: Sequence[_Task]) -> int:
        """Serve them all. Returns the exit code."""
        quiet = not sys.stderr.isatty()
        with _Interrupt() as interrupt, tqdm(total=100 * len(tasks), disable=quiet, bar_format=_BAR) as bar:
            for number, task in enumerate(tasks):
                bar.n = 100 * number
                self._serve(task, bar, interrupt)
                if interrupt.asked:
                    sys.stderr.write("interrupted; finished photos are kept\n")
                    return INTERRUPTED
            bar.n = bar.total
        return SOME_FAILED if self._failed else FINE

    def _serve(self, task: _Task, bar: tqdm[Any], interrupt: _Interrupt) -> None:
        first = bar.n

        def progress(step: Progress) -> None:
            bar.n = first + step.percent
            bar.set_description_str(f"{task.photo.name}: {step.phase}")

        try:
            data = task.photo.read_bytes()
        except OSError:
            return self._fail(task, {"error": "can't be read", "code": "Unreadable", "field": None, "retryable": False})
        try:
            if self._options.dry_run:
                return self._tell(task, dry_run(self._job, self._settings, data=data).model_dump(mode="json"), {})
            if self._options.resume and (done := self._finished(task, data)) is not None:
                return self._tell(task, done, {}, note="finished before")
            result = run(self._job, self._settings, data=data, progress=progress, cancelled=lambda: interrupt.asked)
            if interrupt.asked:
                raise Cancelled("interrupted")
            files = write_files(result, self._options.output, task.stem, task.photo.name)
        except LiveryError as fault:
            # The tracer's process gets the same Ctrl-C, so its end is not a fault of its own.
            return None if interrupt.asked else self._fail(task, fault.as_reply())
        except OSError:
            return self._fail(task, {"error": "the files can't be written", "code": "Unwritable", "field": None})
        return self._tell(task, result.report.model_dump(mode="json"), files)

    def _finished(self, task: _Task, data: bytes) -> dict[str, Any] | None:
        """The report of an earlier run with this photo and these options, whose files are all there."""
        folder = self._options.output
        try:
            report = json.loads((folder / f"{task.stem}.json").read_text("utf-8"))
            same = report["input_sha256"] == hashlib.sha256(data).hexdigest() and report["options"] == self._wanted
            names = [f"{task.stem}.svg", f"{task.stem}.html"]
            names += [f"{task.stem}-{width}.png" for width in self._job.output.png_widths]
            return report if same and all((folder / name).is_file() for name in names) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _tell(self, task: _Task, report: dict[str, Any], files: dict[str, list[Path]], note: str | None = None) -> None:
        if self._options.json:
            named = {kind: [str(path) for path in paths] for kind, paths in files.items()}
            return _say(json.dumps({"photo": task.photo.name, "files": named, **report}, ensure_ascii=False))
        if note is not None or self._options.dry_run:
            return _say(f"{task.photo.name}: {note if note is not None else 'would run'}")
        _say(f"{task.photo.name}: {report['paths']} paths, {report['timings_ms']['total'] / 1000:.2f} s")
        for path in [path for kind in ("svg", "png", "page") for path in files[kind]]:
            _say(f"  {path}")
        for warning in report["warnings"]:
            _say(f"  {warning['code']}: {warning['message']}")
        return None

    def _fail(self, task: _Task, reply: dict[str, Any]) -> None:
        self._failed += 1
        if self._options.json:
            return _say(json.dumps({"photo": task.photo.name, **reply}, ensure_ascii=False))
        sys.stderr.write(f"{task.photo.name}: {reply['error']}\n")
        return None


_BAR = "{desc}  {percentage:3.0f}% |{bar}| {elapsed}"
