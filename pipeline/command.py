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
import io
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tqdm import tqdm

from pipeline.decode import MAX_BYTES
from pipeline.errors import Cancelled, FetchError, LiveryError, PaletteError, SchemaError, VolumeFull, error_classes
from pipeline.files import OutputFiles, output_files, write_files
from pipeline.palette import quoted
from pipeline.palette_files import MAX_FILE_BYTES, read_palette_file
from pipeline.run import JobResult, Progress, choose_engine, dry_run, run
from pipeline.schema import JobInput, parse_request, schema_text
from pipeline.settings import Settings, SettingsError, load_settings
from pipeline.warm import warm_kernels

FINE, SOME_FAILED, UNUSABLE, INTERRUPTED = 0, 1, 2, 130

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})

PROGRAM = "python -m pipeline"
EPILOG = f"""\
A palette is a list of hex colours, a coolors link (read, never fetched), extract:N for N colours of the photo itself,
or a file: .gpl (GIMP), .ase or .aco (Adobe), .csv, .json, .txt or .hex.

For each photo NAME the folder gets NAME.svg, NAME-2048.png (one for each width), NAME.html (before and after, in one
file) and NAME.json (the report). Where two photos share a name, their suffix joins it: NAME-jpg.svg.

examples:
  {PROGRAM} car.jpg --palette brand.gpl -o out/
  {PROGRAM} photos/ --palette extract:8 --json -o out/ > reports.jsonl
  {PROGRAM} car.jpg --palette "#111318 #5B6770 #E9ECEE #D7263D" --background remove --width 1024 --width 4096
  {PROGRAM} car.jpg --subject 120,80,900,610 --remove 400,520,560,560

other commands (a photo of that name is given as ./compile):
  {PROGRAM} compile                  compile the kernels into the cache, once
  {PROGRAM} demo REQUEST.json -o OUT run a request file as the handler would
  {PROGRAM} schema [--write]         print schema.json, or write it
  {PROGRAM} errors                   print the error list as a table

exit codes: 0 all fine; 1 some photo failed; 2 the options or the palette can't be used; 130 interrupted
"""
GRACE_S = 0.5
"""How long a job may take to notice Ctrl-C."""

_INTERRUPTED_LINE = "interrupted; what was finished is kept, and --resume goes on from there"
_BAR = "{desc}  {percentage:3.0f}% |{bar}| {elapsed}"


class Unusable(Exception):
    """What was asked for can't be begun; the message is one line for the user."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code; argparse itself exits with 2 for options that it can't read."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name may hold what the terminal's encoding can't
            stream.reconfigure(errors="backslashreplace")
    commands = {"compile": _compile, "demo": _demo, "schema": _schema, "errors": _errors}
    try:
        if given and given[0] in commands:
            return commands[given[0]](given[1:])
        return _illustrate(given)
    except SettingsError as fault:
        return _refuse(*fault.faults)
    except Unusable as fault:
        return _refuse(str(fault))


def _say(line: str) -> None:
    with tqdm.external_write_mode(file=sys.stdout):  # a progress bar on the same terminal makes room
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _complain(line: str) -> None:
    with tqdm.external_write_mode(file=sys.stderr):
        sys.stderr.write(line + "\n")


def _refuse(*lines: str) -> int:
    for line in lines:
        _complain(f"error: {line}")
    return UNUSABLE


def _subparser(command: str, description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"{PROGRAM} {command}", description=description)


def _compile(given: Sequence[str]) -> int:
    _subparser("compile", "Compile every kernel into the cache on disk, so that no job waits.").parse_args(given)
    began_s = time.perf_counter()
    compiled = warm_kernels()
    spent_s = time.perf_counter() - began_s
    what = f"compiled {compiled} kernels into the cache" if compiled else "the kernels are in the cache"
    _say(f"{what} ({spent_s:.1f} s)")
    return FINE


def _schema(given: Sequence[str]) -> int:
    parser = _subparser("schema", "Print the JSON schema of a job's input and output.")
    parser.add_argument("--write", action="store_true", help="write schema.json in the current folder instead")
    if parser.parse_args(given).write:
        Path("schema.json").write_text(schema_text(), encoding="utf-8")
    else:
        sys.stdout.write(schema_text())
    return FINE


def _errors(given: Sequence[str]) -> int:
    _subparser("errors", "Print the error list as a Markdown table.").parse_args(given)
    sys.stdout.write(error_table())
    return FINE


def error_table() -> str:
    """The error codes as a Markdown table, from the tree itself. Groups are left out: no reply carries them."""
    rows = [kind for kind in error_classes() if not kind.__subclasses__()]
    lines = [f"| `{kind.__name__}` | {'yes' if kind.retryable else 'no'} | {kind.summary} |" for kind in rows]
    return "\n".join(["| code | retryable | meaning |", "|---|---|---|", *lines]) + "\n"


def _demo(given: Sequence[str]) -> int:
    parser = _subparser("demo", "Run a request file as the handler would, and write its files.")
    parser.add_argument("request", type=Path, metavar="REQUEST.json", help='JSON with the job under "input"')
    parser.add_argument("-o", "--output", type=Path, default=Path("out"), help="folder for the files (default: out)")
    options = parser.parse_args(given)
    job, settings = _requested(options.request), load_settings()
    files = output_files(options.output, options.request.stem, job.output)
    _check_sources([options.request], [files])
    _make_folder(options.output)
    name = printable_name(options.request)
    try:
        result = run(job, settings)
        _deliver(result, files, name)
    except LiveryError as fault:
        _complain(_fault_line(name, fault))
        return SOME_FAILED
    _say(f"{name}: {result.drawing.paths} paths, {result.report.timings_ms.total / 1000:.2f} s")
    _say(f"PAGE  {_printable(str(files.page))}")
    for path in files.pictures():
        _say(f"{path.suffix[1:].upper()}   {_printable(str(path))}")
    return FINE


def _requested(path: Path) -> JobInput:
    """The checked request of a job's file. Raises Unusable."""
    name = printable_name(path)
    try:
        document = json.loads(path.read_text("utf-8"))
    except OSError as fault:
        raise Unusable(f"{name}: {fault.strerror}") from None
    except (ValueError, RecursionError):
        raise Unusable(f"{name}: isn't JSON") from None
    if not isinstance(document, dict) or "input" not in document:
        raise Unusable(f'{name}: must be an object with "input"')
    try:
        job = parse_request(document["input"])
    except LiveryError as fault:
        raise Unusable(_fault_line(name, fault)) from None
    if job.action != "illustrate":
        raise Unusable(f'{name}: asks for action "{job.action}", which makes no files')
    return job


def printable_name(path: Path) -> str:
    """A file's name as `_printable` writes it."""
    return _printable(path.name)


def _printable(text: str) -> str:
    """`text` on one line: what doesn't print, and bytes that are no Unicode, as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _fault_line(name: str, fault: LiveryError) -> str:
    return f"{name}: {fault.as_reply()['error']}"


def _deliver(result: JobResult, files: OutputFiles, title: str) -> None:
    try:
        write_files(result, files, title)
    except OSError as fault:
        raise VolumeFull(f"the files can't be written: {fault.strerror}") from None


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise Unusable(f"{folder}: can't be made a folder: {fault.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise Unusable(f"{folder}: can't be written to")


def _check_sources(sources: Sequence[Path], targets: Sequence[OutputFiles]) -> None:
    """Refuse a job that would write over what it reads."""
    read = {source.resolve() for source in sources}
    for path in (path for files in targets for path in files.all()):
        if path.resolve() in read:
            raise Unusable(f"{path}: would be overwritten, and is read itself; name another folder with -o")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Turn vehicle photos into palette-exact vector illustrations.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, box = parser.add_argument, "X0,Y0,X1,Y1"
    add("photos", nargs="+", type=Path, metavar="PHOTO", help="a JPEG, PNG or WebP, or a folder of them")
    add("-o", "--output", type=Path, default=Path("out"), metavar="OUT", help="folder for the files (default: out)")
    add("--palette", help="colours, link, file or extract:N (default: fifteen inks)")
    add("--detail", type=float, help="how many regions survive, 0 to 1 (default 0.5)")
    add("--tone", type=float, help="strength of the tone mapping into the palette, 0 to 1 (default 0.5)")
    add("--line-work", type=float, help="strength of the line work in the darkest ink, 0 to 1 (default 0)")
    add("--background", help="keep (default), remove, or a colour of the palette")
    add("--subject", help="the vehicle: auto (default), whole, X,Y or X0,Y0,X1,Y1, in pixels of the upright photo")
    add("--remove", action="append", metavar=box, help="fill in what this box holds (repeatable)")
    add("--protect", action="append", metavar=box, help="never touch what this box holds (repeatable)")
    add("--width", action="append", type=int, help="width of a PNG in pixels (repeatable, default 2048)")
    add("--engine", help="auto (default), draft or studio")
    add("--seed", type=int, help="seed of the studio engine")
    add("--json", action="store_true", help="one line of JSON for each photo: its report, or its error")
    add("--dry-run", action="store_true", help="check photos and options, write nothing")
    add("--resume", action="store_true", help="skip photos whose report here matches their bytes and these options")
    return parser


def request_of(options: argparse.Namespace) -> JobInput:
    """The request that the options stand for, without its photo; checked as the handler checks it.

    Raises:
        SchemaError, PaletteError: as for any request.
    """
    request: dict[str, Any] = {}
    for name in ("detail", "tone", "line_work", "background", "engine", "seed"):
        if getattr(options, name) is not None:
            request[name] = getattr(options, name)
    if options.palette is not None:
        request["palette"] = _palette_of(options.palette)
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


def _palette_of(text: str) -> object:
    """The `palette` of the request: an extraction, a file's inks, or the text as it is. Raises PaletteError."""
    if text.startswith("extract:"):
        if re.fullmatch(r"extract:[0-9]{1,4}", text, re.ASCII) is None:
            raise PaletteError(f"{quoted(text)} is not extract:N with a whole number N", field="palette")
        return {"extract": int(text.removeprefix("extract:"))}
    path = _palette_path(text)
    if path is None:
        return text
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as fault:
        raise PaletteError(f"can't be read: {fault.strerror}", field=printable_name(path)) from None
    return [{"hex": ink.hex, "name": ink.name} for ink in read_palette_file(data, path.name).inks]


def _palette_path(text: str | None) -> Path | None:
    """The file that `--palette` names; no list of colours has a suffix, and a link says its scheme or holds none."""
    if text is None or "://" in text or Path(text).suffix == "":
        return None
    return Path(text)


def _subject_of(text: str) -> str | dict[str, list[float]]:
    if re.fullmatch(r"[a-z]+", text):
        return text
    numbers = _numbers(text, (2, 4), "subject")
    return {"point": numbers} if len(numbers) == 2 else {"box": numbers}


def _numbers(text: str, counts: tuple[int, ...], field: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in counts:
        raise SchemaError(f"takes {' or '.join(map(str, counts))} numbers with commas between them", field=field)
    return numbers


def photos_of(given: Sequence[Path]) -> list[Path]:
    """The photos in order, each once; a folder stands for the pictures right inside it, by name.

    Raises:
        Unusable: a folder can't be listed or holds no picture.
    """
    photos: dict[Path, None] = {}
    for path in given:
        inside = _pictures_in(path) if path.is_dir() else [path]
        if not inside:
            raise Unusable(f"{path}: the folder holds no .jpg, .jpeg, .png or .webp")
        photos.update(dict.fromkeys(inside))
    return list(photos)


def _pictures_in(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES and p.is_file())
    except OSError as fault:
        raise Unusable(f"{folder}: {fault.strerror}") from None


def stems_of(photos: Sequence[Path]) -> list[str]:
    """What each photo's files are called, all different, also where a file system takes `A` and `a` for the same.

    A photo's own stem; where several have it, the suffix joins it; where that is taken too, a number.
    """
    sharing = Counter(photo.stem.casefold() for photo in photos)
    taken = {stem for stem, count in sharing.items() if count == 1}
    stems = []
    for photo in photos:
        stem = photo.stem
        if sharing[stem.casefold()] > 1:
            wanted = stem = f"{photo.stem}{photo.suffix.replace('.', '-')}"
            number = 1
            while stem.casefold() in taken:
                number += 1
                stem = f"{wanted}-{number}"
            taken.add(stem.casefold())
        stems.append(stem)
    return stems


def _illustrate(given: Sequence[str]) -> int:
    options = _parser().parse_args(given)
    try:
        job = request_of(options)
    except LiveryError as fault:
        raise Unusable(str(fault.as_reply()["error"])) from None
    settings = load_settings()
    photos = photos_of(options.photos)
    files = [output_files(options.output, stem, job.output) for stem in stems_of(photos)]
    if not options.dry_run:
        palette = _palette_path(options.palette)
        _check_sources(photos if palette is None else [*photos, palette], files)
        _make_folder(options.output)
    batch = _Batch(job, settings, as_json=options.json, dry=options.dry_run, resume=options.resume)
    return batch.work([_Task(*pair) for pair in zip(photos, files, strict=True)])


@dataclass(frozen=True, slots=True)
class _Task:
    """One photo and the files to be made of it."""

    photo: Path
    files: OutputFiles


class _Interrupt:
    """The first Ctrl-C as a question that a job asks; a second one is Python's own KeyboardInterrupt.

    It is not raised at once, because compiled kernels and libvips' callbacks have no way to hand an exception on. A
    job that is inside one of them for `GRACE_S` is ended with its process. Python runs a signal's handler only between
    two steps of the main thread, so a thread of our own hears of the signal through the wake-up socket.
    """

    def __init__(self) -> None:
        self.noted = False
        self._left = threading.Event()

    def __enter__(self) -> _Interrupt:
        self._before = signal.signal(signal.SIGINT, self._note)
        self._heard, self._told = socket.socketpair()
        self._told.setblocking(False)
        signal.set_wakeup_fd(self._told.fileno())
        threading.Thread(target=self._watch, name="livery-interrupt", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, self._before)
        self._told.close()

    def _watch(self) -> None:
        with self._heard:
            if self._heard.recv(1) == b"":
                return
        self.noted = True
        if not self._left.wait(GRACE_S):
            os.write(sys.stderr.fileno(), f"\n{_INTERRUPTED_LINE}\n".encode())
            os._exit(INTERRUPTED)

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        self.noted = True
        signal.signal(signal.SIGINT, self._before)


class _Batch:
    """Photos, one after the other, with one request."""

    def __init__(self, job: JobInput, settings: Settings, *, as_json: bool, dry: bool, resume: bool) -> None:
        self._job, self._settings = job, settings
        self._as_json, self._dry, self._resume = as_json, dry, resume
        self._failed = 0

    def work(self, tasks: Sequence[_Task]) -> int:
        """Serve them all. Returns the exit code."""
        silent = not sys.stderr.isatty()
        with (
            tqdm(total=100 * len(tasks), disable=silent, bar_format=_BAR, leave=False) as bar,
            _Interrupt() as interrupt,
        ):
            for number, task in enumerate(tasks):
                bar.n = 100 * number
                self._serve(task, bar, interrupt)
                if interrupt.noted:
                    _complain(_INTERRUPTED_LINE)
                    return INTERRUPTED
        return SOME_FAILED if self._failed else FINE

    def _serve(self, task: _Task, bar: tqdm[Any], interrupt: _Interrupt) -> None:
        name, first = printable_name(task.photo), bar.n

        def progress(step: Progress) -> None:
            bar.n = first + step.percent
            bar.set_description_str(f"{name}: {step.phase}")

        try:
            data = _read_photo(task.photo)
            if self._dry:
                self._tell_dry_run(name, data)
            elif self._resume and (report := self._finished(task, data)) is not None:
                self._tell(name, task, report, again=False)
            else:
                result = run(self._job, self._settings, data=data, progress=progress, cancelled=lambda: interrupt.noted)
                if interrupt.noted:
                    raise Cancelled("the job was cancelled before its files were written")
                _deliver(result, task.files, name)
                self._tell(name, task, result.report.model_dump(mode="json"), again=True)
        except LiveryError as fault:
            # An interrupted photo has not failed.
            if not interrupt.noted:
                self._fail(name, fault)

    def _finished(self, task: _Task, data: bytes) -> dict[str, Any] | None:
        """The report of an earlier run with this photo, these options and this engine, whose files are all there."""
        try:
            report = json.loads(task.files.report.read_text("utf-8"))
            made = report["input_sha256"], report["options"], report["engine"]
            report["paths"], report["timings_ms"]["total"], report["warnings"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None  # not there, or not a report of ours: the photo is done again
        engine, _ = choose_engine(self._job, self._settings)
        wanted = hashlib.sha256(data).hexdigest(), self._job.options().model_dump(mode="json"), engine
        there = all(path.is_file() for path in task.files.all())
        return report if there and made == wanted else None

    def _tell_dry_run(self, name: str, data: bytes) -> None:
        reply = dry_run(self._job, self._settings, data=data)
        if self._as_json:
            return _say(json.dumps({"photo": name, **reply.model_dump(mode="json")}))
        size = reply.report.size
        frame = "" if size is None else f", {size.width} × {size.height} px"
        _say(f"{name}: fine{frame}, {len(reply.report.palette)} inks, {reply.report.engine} engine")
        return self._warn(reply.report.model_dump(mode="json"))

    def _tell(self, name: str, task: _Task, report: dict[str, Any], *, again: bool) -> None:
        if self._as_json:
            return _say(json.dumps({"photo": name, "files": _by_kind(task.files), **report}))
        seconds = report["timings_ms"]["total"] / 1000
        _say(f"{name}: {report['paths']} paths, {seconds:.2f} s" if again else f"{name}: finished before")
        for path in (*task.files.pictures(), task.files.page):
            _say(f"  {_printable(str(path))}")
        return self._warn(report)

    def _warn(self, report: dict[str, Any]) -> None:
        for warning in report["warnings"]:
            _say(f"  {warning['code']}: {warning['message']}")

    def _fail(self, name: str, fault: LiveryError) -> None:
        self._failed += 1
        if self._as_json:
            _say(json.dumps({"photo": name, **fault.as_reply()}))
        else:
            _complain(_fault_line(name, fault))


def _by_kind(files: OutputFiles) -> dict[str, str | list[str] | None]:
    return {
        "svg": None if files.svg is None else str(files.svg),
        "png": [str(path) for path in files.png],
        "page": str(files.page),
        "report": str(files.report),
    }


def _read_photo(path: Path) -> bytes:
    """The file's bytes, one more than the limit at most: the decoder refuses those. Raises FetchError."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as fault:
        raise FetchError(f"the file can't be read: {fault.strerror}") from None
