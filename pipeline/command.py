"""The command line: photos in; SVG, PNG, PDF, DXF, separations, report and before/after page out.

    python -m pipeline PHOTO… --palette … -o OUT/     illustrate photos, or folders of them
    python -m pipeline demo REQUEST.json -o OUT/      run a request file as the handler would, and write its files
    python -m pipeline trace LABELS PALETTE -o OUT    trace any label map (pipeline.trace_command)
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
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipeline.decode import MAX_BYTES
from pipeline.errors import Cancelled, FetchError, LiveryError, PaletteError, SchemaError, error_classes
from pipeline.files import OutputFiles, output_files, write_fault, write_files, write_whole
from pipeline.palette import quoted
from pipeline.palette_files import MAX_FILE_BYTES, read_palette_file
from pipeline.report import options_used, package_version
from pipeline.request import parse_request, schema_text
from pipeline.run import JobResult, dry_run, run
from pipeline.schema import JobInput, Report
from pipeline.settings import SettingsError, load_settings
from pipeline.steps import Progress
from pipeline.terminal import (
    FINE,
    INTERRUPTED,
    PROGRAM,
    SOME_FAILED,
    Interrupt,
    Unusable,
    complain,
    fault_line,
    make_folder,
    printable,
    printable_name,
    read_json,
    refuse,
    say,
    subparser,
)
from pipeline.trace_command import trace_map
from pipeline.warm import warm_kernels
from pipeline.worker import Worker, choose_engine

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})

EPILOG = f"""\
A palette is a list of hex colours, a coolors link (read, never fetched), extract:N for N colours of the photo itself,
or a file: .gpl (GIMP), .ase or .aco (Adobe), .csv, .json, .txt or .hex.

For each photo NAME the folder gets NAME.svg, NAME-2048.png (one for each width), NAME.html (before and after, in one
file) and NAME.json (the report); with --format or --preset also NAME.pdf, NAME.dxf and NAME-INK.pdf (a separation for
each ink). Where two photos share a name, their suffix joins it: NAME-jpg.svg.

examples:
  {PROGRAM} car.jpg --palette brand.gpl -o out/
  {PROGRAM} photos/ --palette extract:8 --json -o out/ > reports.jsonl
  {PROGRAM} car.jpg --palette "#111318 #5B6770 #E9ECEE #D7263D" --background remove --width 1024 --width 4096
  {PROGRAM} car.jpg --preset screenprint --width-mm 280 --palette brand.gpl
  {PROGRAM} car.jpg --subject 120,80,900,610 --remove 400,520,560,560

other commands (a photo of that name is given as ./compile):
  {PROGRAM} trace LABELS.png PALETTE.json -o OUT.svg
                                     trace any label map (also to OUT.pdf, OUT.eps and OUT.dxf)
  {PROGRAM} compile                  compile the kernels into the cache, once
  {PROGRAM} demo REQUEST.json -o OUT run a request file as the handler would
  {PROGRAM} schema [--write]         print schema.json, or write it
  {PROGRAM} errors                   print the error list as a table

exit codes: 0 all fine; 1 some photo failed; 2 the options or the palette can't be used; 130 interrupted
"""
_INTERRUPTED_LINE = "interrupted; what was finished is kept, and --resume goes on from there"

SAID_ONCE = frozenset({"engine_auto", "nothing_detected", "seed_unused", "background_estimated"})
"""Warnings that speak of the worker or the options: the same for every photo, so a batch says them once."""

_BAR = "{desc}  {percentage:3.0f}% |{bar}| {elapsed}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code; argparse itself exits with 2 for options that it can't read."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name may hold what the terminal's encoding can't
            stream.reconfigure(errors="backslashreplace")
    commands = {"compile": _compile, "demo": _demo, "schema": _schema, "errors": _errors, "trace": trace_map}
    try:
        if given and given[0] in commands:
            return commands[given[0]](given[1:])
        return _illustrate(given)
    except SettingsError as fault:
        return refuse(*fault.faults)
    except Unusable as fault:
        return refuse(str(fault))


def _compile(given: Sequence[str]) -> int:
    subparser("compile", "Compile every kernel into the cache on disk, so that no job waits.").parse_args(given)
    began_s = time.perf_counter()
    compiled = warm_kernels()
    spent_s = time.perf_counter() - began_s
    what = f"compiled {compiled} kernels into the cache" if compiled else "the kernels are in the cache"
    say(f"{what} ({spent_s:.1f} s)")
    return FINE


def _schema(given: Sequence[str]) -> int:
    parser = subparser("schema", "Print the JSON schema of a job's input and output.")
    parser.add_argument("--write", action="store_true", help="write schema.json in the current folder instead")
    if parser.parse_args(given).write:
        try:
            write_whole(Path("schema.json"), schema_text().encode())
        except OSError as fault:
            raise Unusable(f"schema.json: {fault.strerror}") from None
    else:
        sys.stdout.write(schema_text())
    return FINE


def _errors(given: Sequence[str]) -> int:
    subparser("errors", "Print the error list as a Markdown table.").parse_args(given)
    sys.stdout.write(error_table())
    return FINE


def error_table() -> str:
    """The error codes as a Markdown table, from the tree itself. Groups are left out: no reply carries them."""
    rows = [kind for kind in error_classes() if not kind.__subclasses__()]
    lines = [f"| `{kind.__name__}` | {'yes' if kind.retryable else 'no'} | {kind.summary} |" for kind in rows]
    return "\n".join(["| code | retryable | meaning |", "|---|---|---|", *lines]) + "\n"


def _demo(given: Sequence[str]) -> int:
    parser = subparser("demo", "Run a request file as the handler would, and write its files.")
    parser.add_argument("request", type=Path, metavar="REQUEST.json", help='JSON with the job under "input"')
    parser.add_argument("-o", "--output", type=Path, default=Path("out"), help="folder for the files (default: out)")
    parser.add_argument("--with", dest="changes", default="{}", metavar="JSON", help="fields in place of the request's")
    parser.add_argument("--times", type=int, default=1, metavar="N", help="run it so often in one process (default 1)")
    options = parser.parse_args(given)
    job, worker = _requested(options.request, options.changes), Worker(load_settings())
    files = output_files(options.output, options.request.stem, job)
    _check_sources([options.request], [files])
    make_folder(options.output)
    name = printable_name(options.request)
    try:
        for _ in range(max(options.times, 1)):
            result = run(job, worker)
            say(_demo_line(name, result.report))
        _deliver(result, files, name)
    except LiveryError as fault:
        complain(fault_line(name, fault))
        return SOME_FAILED
    say(f"PAGE  {printable(str(files.page))}")
    for path in (*files.pictures(), *files.plates_of(_inks_of(result.report.model_dump()))):
        say(f"{path.suffix[1:].upper()}   {printable(str(path))}")
    return FINE


def _demo_line(name: str, report: Report) -> str:
    line = f"{name}: {report.paths} paths, {report.timings_ms.total / 1000:.2f} s, {report.engine} engine"
    if report.engine == "draft":
        return line
    loads = f"{len(report.loads)} models loaded" if report.loads else "no model loaded"
    return f"{line}, {loads}{', phases 1 and 2 kept from before' if report.reinked else ''}"


def _requested(path: Path, changes: str) -> JobInput:
    """The checked request of a job's file, with a JSON object's fields in place of its own. Raises Unusable."""
    name = printable_name(path)
    document = read_json(path)
    if not isinstance(document, dict) or "input" not in document:
        raise Unusable(f'{name}: must be an object with "input"')
    try:
        job = parse_request(_changed(document["input"], changes))
    except LiveryError as fault:
        raise Unusable(fault_line(name, fault)) from None
    if job.action != "illustrate":
        raise Unusable(f'{name}: asks for action "{job.action}", which makes no files')
    return job


def _changed(request: Any, changes: str) -> Any:
    try:
        fields = json.loads(changes)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise Unusable("--with: must be a JSON object")
    return {**request, **fields} if isinstance(request, dict) else request


def _inks_of(report: dict[str, Any]) -> tuple[int, ...]:
    """Palette indices of the inks that a report's drawing uses."""
    return tuple(ink["index"] for ink in report["palette"] if ink["paths"])


def _deliver(result: JobResult, files: OutputFiles, title: str) -> None:
    try:
        write_files(result, files, title)
    except OSError as fault:
        raise write_fault(fault) from None


def _check_sources(sources: Sequence[Path], targets: Sequence[OutputFiles]) -> None:
    """Refuse a job that would write over what it reads."""
    read = {source.resolve() for source in sources}
    for path in (path for files in targets for path in files.possible()):
        if path.resolve() in read:
            raise Unusable(f"{path}: would be overwritten, and is read itself; name another folder with -o")


def _check_targets(targets: Sequence[OutputFiles]) -> None:
    """Refuse a batch in which two photos would write the same file (`car-red.jpg`, and the red ink of `car.jpg`)."""
    taken: set[str] = set()
    for files in targets:
        own = {str(path).casefold() for path in files.possible()}
        if both := taken & own:
            raise Unusable(f"{printable(Path(min(both)).name)}: two photos would write it; rename one of them")
        taken |= own


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
    _add_output_options(add)
    add("--engine", help="auto (default), draft or studio")
    add("--seed", type=int, help="seed of the studio engine")
    add("--json", action="store_true", help="one line of JSON for each photo: its report, or its error")
    add("--dry-run", action="store_true", help="check photos and options, write nothing")
    add("--resume", action="store_true", help="skip photos whose report here matches their bytes and these options")
    return parser


_OUTPUT_NUMBERS = {
    "width_mm": "width of the printed or cut piece in millimetres",
    "dpi": "dots per inch of the widest PNG",
    "tolerance_px": "how far an outline may leave the map's, in pixels of the working frame (default 0.8)",
    "min_feature_mm": "smallest feature that the process holds",
    "trap_mm": "how far each separation spreads under its neighbours",
}
_OUTPUT_WORDS = {
    "preset": "web, print, screenprint, vinyl or plotter: sets what the other options leave out",
    "stacking": "stacked (default) or abutting shapes",
    "tracer": "livery (default) or vtracer",
}
_OUTPUT_SWITCHES = {
    "single_cut": "DXF: cut each shared edge once",
    "dxf_curves": "DXF: arcs and splines in place of polylines",
    "registration_marks": "marks that align the separations",
}


def _add_output_options(add: Callable[..., argparse.Action]) -> None:
    add("--width", action="append", type=int, metavar="PX", help="width of a PNG (repeatable, default 2048)")
    add("--format", action="append", help="svg, png, pdf, dxf or separations (repeatable, default svg and png)")
    for fields, form in (
        (_OUTPUT_WORDS, {}),
        (_OUTPUT_NUMBERS, {"type": float, "metavar": "N"}),
        (_OUTPUT_SWITCHES, {"action": "store_true", "default": None}),
    ):
        for field, meaning in fields.items():
            add(f"--{field.removesuffix('_px').replace('_', '-')}", dest=field, help=meaning, **form)


def _output_of(options: argparse.Namespace) -> dict[str, Any]:
    """The `output` of the request: what the options say of it."""
    named = {"png_widths": options.width, "formats": options.format}
    named |= {field: getattr(options, field) for field in (*_OUTPUT_WORDS, *_OUTPUT_NUMBERS, *_OUTPUT_SWITCHES)}
    return {field: value for field, value in named.items() if value is not None}


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
    request["output"] = _output_of(options)
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
    worker = Worker(load_settings())
    photos = photos_of(options.photos)
    files = [output_files(options.output, stem, job) for stem in stems_of(photos)]
    if not options.dry_run:
        palette = _palette_path(options.palette)
        _check_sources(photos if palette is None else [*photos, palette], files)
        _check_targets(files)
        make_folder(options.output)
    batch = _Batch(job, worker, as_json=options.json, dry=options.dry_run, resume=options.resume)
    return batch.work([_Task(*pair) for pair in zip(photos, files, strict=True)])


@dataclass(frozen=True, slots=True)
class _Task:
    """One photo and the files to be made of it."""

    photo: Path
    files: OutputFiles


class _Batch:
    """Photos, one after the other, with one request."""

    def __init__(self, job: JobInput, worker: Worker, *, as_json: bool, dry: bool, resume: bool) -> None:
        self._job, self._worker = job, worker
        self._as_json, self._dry, self._resume = as_json, dry, resume
        self._failed = 0
        self._said: set[str] = set()

    def work(self, tasks: Sequence[_Task]) -> int:
        """Serve them all. Returns the exit code."""
        silent = not sys.stderr.isatty()
        with (
            tqdm(total=100 * len(tasks), disable=silent, bar_format=_BAR, leave=False) as bar,
            Interrupt(_INTERRUPTED_LINE) as interrupt,
        ):
            for number, task in enumerate(tasks):
                bar.n = 100 * number
                self._serve(task, bar, interrupt)
                if interrupt.noted:
                    complain(_INTERRUPTED_LINE)
                    return INTERRUPTED
        return SOME_FAILED if self._failed else FINE

    def _serve(self, task: _Task, bar: tqdm[Any], interrupt: Interrupt) -> None:
        name, first = printable_name(task.photo), bar.n

        def progress(step: Progress) -> None:
            bar.n = first + step.percent
            bar.set_description_str(f"{name}: {step.message}")

        try:
            data = _read_photo(task.photo)
            if self._dry:
                self._tell_dry_run(name, data)
            elif self._resume and (report := self._finished(task, data)) is not None:
                self._tell(name, task, report, again=False)
            else:
                result = run(self._job, self._worker, data=data, progress=progress, cancelled=lambda: interrupt.noted)
                if interrupt.noted:
                    raise Cancelled("the job was cancelled before its files were written")
                _deliver(result, task.files, name)
                self._tell(name, task, result.report.model_dump(mode="json"), again=True)
        except LiveryError as fault:
            # An interrupted photo has not failed.
            if not interrupt.noted:
                self._fail(name, fault)

    def _finished(self, task: _Task, data: bytes) -> dict[str, Any] | None:
        """The report of an earlier run of the same photo, options, engine and Livery, where its files are all there."""
        try:
            report = json.loads(task.files.report.read_text("utf-8"))
            made = report["input_sha256"], report["options"], report["engine"], report["version"]
            report["paths"], report["timings_ms"]["total"], report["warnings"]
            files = task.files.written(_inks_of(report))
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None  # not there, or not a report of ours: the photo is done again
        engine, _ = choose_engine(self._job, self._worker)
        options, version = options_used(self._job, engine).model_dump(mode="json"), package_version("livery")
        wanted = hashlib.sha256(data).hexdigest(), options, engine, version
        return report if made == wanted and all(path.is_file() for path in files) else None

    def _tell_dry_run(self, name: str, data: bytes) -> None:
        reply = dry_run(self._job, self._worker, data=data)
        if self._as_json:
            return say(json.dumps({"photo": name, **reply.model_dump(mode="json")}))
        size = reply.report.size
        frame = "" if size is None else f", {size.width} × {size.height} px"
        say(f"{name}: fine{frame}, {len(reply.report.palette)} inks, {reply.report.engine} engine")
        return self._warn(reply.report.model_dump(mode="json"))

    def _tell(self, name: str, task: _Task, report: dict[str, Any], *, again: bool) -> None:
        if self._as_json:
            return say(json.dumps({"photo": name, "files": _by_kind(task.files, report), **report}))
        seconds = report["timings_ms"]["total"] / 1000
        say(f"{name}: {report['paths']} paths, {seconds:.2f} s" if again else f"{name}: finished before")
        for path in (*task.files.pictures(), *task.files.plates_of(_inks_of(report)), task.files.page):
            say(f"  {printable(str(path))}")
        return self._warn(report)

    def _warn(self, report: dict[str, Any]) -> None:
        for warning in report["warnings"]:
            if warning["code"] in SAID_ONCE:
                if warning["code"] in self._said:
                    continue
                self._said.add(warning["code"])
            say(f"  {warning['code']}: {warning['message']}")

    def _fail(self, name: str, fault: LiveryError) -> None:
        self._failed += 1
        if self._as_json:
            say(json.dumps({"photo": name, **fault.as_reply()}))
        else:
            complain(fault_line(name, fault))


def _by_kind(files: OutputFiles, report: dict[str, Any]) -> dict[str, str | list[str] | None]:
    single = {"svg": files.svg, "pdf": files.pdf, "dxf": files.dxf, "page": files.page, "report": files.report}
    return {
        **{kind: None if path is None else str(path) for kind, path in single.items()},
        "png": [str(path) for path in files.png],
        "separations": [str(path) for path in files.plates_of(_inks_of(report))],
    }


def _read_photo(path: Path) -> bytes:
    """The file's bytes, one more than the limit at most: the decoder refuses those. Raises FetchError."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as fault:
        raise FetchError(f"the file can't be read: {fault.strerror}") from None
