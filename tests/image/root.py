"""Runs the Dockerfile's stages in roots that debootstrap makes: no container runtime, the same steps.

A stage is a folder. Its name holds a digest of all that made it, so what did not change is not made again. Files go
from stage to stage through tar, which keeps whole seconds as image layers do. Steps that install have the network, and
the registries that this machine's apt and pip are set up with; all others have none.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.image.dockerfile import ROOT, Dockerfile, Instruction, Stage, context_files

NEEDED = ("debootstrap", "unshare", "chroot", "mount", "tar")
_HOST = "/mnt"
"""Where a step that installs finds the local files that the machine's pip is set up with."""

DIGEST_LENGTH = 12

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def why_impossible() -> str | None:
    """What this machine lacks to make a root; None where it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "it takes Linux and root"
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    allowed = _isolated("mount -t tmpfs probe /mnt", network=False, check=False).returncode == 0
    return None if allowed else "this machine allows no mounts of one's own"


@dataclass(frozen=True, slots=True)
class Builder:
    """Makes stages below `folder`, and runs commands in them."""

    dockerfile: Dockerfile
    folder: Path

    def stage(self, name: str) -> Path:
        """The root of a stage, made where it is not there yet."""
        stage = self.dockerfile.stages[name]
        made = self.folder / f"{name}-{self._digest(name)}"
        if made.exists():
            return made
        base = self._base(stage)
        print(f"image: making {name}", flush=True)
        partial = self.folder / f"{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        subprocess.run(["cp", "-a", "--reflink=auto", base, partial], check=True)
        for instruction, environment, folder in self._walk(name):
            if instruction in stage.instructions:
                self._apply(instruction, partial, environment, folder)
        for old in self.folder.glob(f"{name}-{'?' * DIGEST_LENGTH}"):
            shutil.rmtree(old)
        partial.rename(made)
        return made

    def run(
        self, name: str, command: list[str], environment: Mapping[str, str] | None = None, *, writable: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as the image would: its user, folder and environment; read-only, no network, an empty HOME.

        Only /tmp, HOME and what `writable` names can be written.
        """
        user = self.dockerfile.last(name, "USER")
        folder = self.dockerfile.last(name, "WORKDIR")
        assert user is not None
        assert folder is not None
        variables = {**self.dockerfile.environment(name), "HOME": "/mnt", **(environment or {})}
        root = shlex.quote(str(self.stage(name)))
        keep = shlex.quote(writable.lstrip("/"))
        script = [
            f"mount --bind {root} {root} && cd {root}",
            f"mount -t proc proc {root}/proc",
            *([f"mount --bind {root}/{keep} {root}/{keep}"] if writable else []),
            f"mount -t tmpfs -o mode=1777 tmp {root}/tmp && mount -t tmpfs -o mode=0777 home {root}/mnt",
            f"mount -o remount,bind,ro {root}",
            _enter(root, f"cd {shlex.quote(folder.operands)} && exec {shlex.join(command)}", variables, user.operands),
        ]
        return _isolated(" && ".join(script), network=False, check=False)

    def _base(self, stage: Stage) -> Path:
        if stage.base in self.dockerfile.stages:
            return self.stage(stage.base)
        image = re.sub(r"\$\{(\w+)\}", lambda found: self.dockerfile.arguments[found[1]], stage.base)
        suite = re.fullmatch(r"debian:([a-z]+)-slim", image)
        assert suite is not None, f"{image} can't be made by debootstrap"
        return clean_debian(suite[1], self.folder)

    def _digest(self, name: str) -> str:
        """Of all that a stage is made from."""
        stage = self.dockerfile.stages[name]
        parent = self._digest(stage.base) if stage.base in self.dockerfile.stages else stage.base
        parts = hashlib.sha256(f"{parent}\n{self.dockerfile.arguments}".encode())
        for instruction in stage.instructions:
            parts.update(f"{instruction}\n".encode())
            if "from" in instruction.flags:
                parts.update(self._digest(instruction.flags["from"]).encode())
            elif instruction.keyword == "COPY":
                for source in instruction.words[:-1]:
                    for path in context_files(source):
                        parts.update(path.encode() + (ROOT / path).read_bytes())
        return parts.hexdigest()[:DIGEST_LENGTH]

    def _walk(self, name: str) -> Iterator[tuple[Instruction, dict[str, str], str]]:
        """Every instruction up to the end of a stage, with the variables and the folder that hold for it."""
        environment: dict[str, str] = {}
        folder = "/"
        for stage in self.dockerfile.lineage(name):
            for instruction in stage.instructions:
                if instruction.keyword == "ENV":
                    environment |= dict(word.split("=", 1) for word in instruction.words)
                elif instruction.keyword == "WORKDIR":
                    folder = instruction.operands
                yield instruction, dict(environment), folder

    def _apply(self, instruction: Instruction, root: Path, environment: dict[str, str], folder: str) -> None:
        place = root / folder.lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        if instruction.keyword == "RUN":
            _run_step(instruction.operands, root, environment, folder)
        elif instruction.keyword == "COPY":
            self._copy(instruction, root, place)

    def _copy(self, instruction: Instruction, root: Path, place: Path) -> None:
        *sources, target = instruction.words
        aim = root / target.lstrip("/") if target.startswith("/") else place / target
        if "from" in instruction.flags:
            origin = self.stage(instruction.flags["from"]) / sources[0].lstrip("/")
            _cross_layer(origin, aim, instruction.flags.get("chown"))
            return
        for source in sources:
            single = (ROOT / source).is_file()
            for path in context_files(source):
                inner = aim / source if single and target.endswith("/") else aim / Path(path).relative_to(source)
                inner.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / path, inner)


class NoDebian(Exception):
    """debootstrap could not make a root: most often there is no mirror that it reaches."""


def clean_debian(suite: str, folder: Path) -> Path:
    """A minimal Debian as debootstrap makes it.

    Raises:
        NoDebian: it could not.
    """
    made = folder / f"debian-{suite}"
    if not made.exists():
        print(f"image: making a clean Debian {suite}", flush=True)
        partial = folder / f"debian-{suite}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        command = ["debootstrap", "--variant=minbase", suite, str(partial), *_mirror(suite)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode != 0:
            raise NoDebian(done.stdout[-2000:])
        partial.rename(made)
    return made


def _mirror(suite: str) -> list[str]:
    """The mirror of this suite that the machine's own apt uses; none where it uses none."""
    if shutil.which("apt-get") is None:
        return []
    form = ["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages"]
    listed = subprocess.run(form, capture_output=True, text=True, check=False).stdout.split("\n")
    return [line.split()[1] for line in listed if line.startswith(f"{suite} ")][:1]


def _cross_layer(origin: Path, aim: Path, owner: str | None) -> None:
    aim.mkdir(parents=True, exist_ok=True)
    pack = ["tar", "--create", "--format=gnu", "--directory", str(origin), "."]
    if owner is not None:
        user, group = owner.split(":")
        pack[2:2] = [f"--owner={user}", f"--group={group}", "--numeric-owner"]
    with subprocess.Popen(pack, stdout=subprocess.PIPE) as packing:
        subprocess.run(
            ["tar", "--extract", "--same-owner", "--numeric-owner", "--directory", aim],
            stdin=packing.stdout,
            check=True,
        )
    if packing.returncode != 0:
        raise RuntimeError(f"{origin.name} could not be packed")


def _run_step(step: str, root: Path, environment: Mapping[str, str], folder: str) -> None:
    installs = re.search(r"\bapt-get\b|\bpip\b.* install\b", step) is not None
    quoted = shlex.quote(str(root))
    script = [f"mount -t proc proc {quoted}/proc"]
    variables = {"PATH": DEFAULT_PATH, "HOME": "/root", **environment}
    if installs:
        settings, paths = _installer_settings()
        variables = {"DEBIAN_FRONTEND": "noninteractive", **settings, **variables}
        script.append(f"touch {quoted}/etc/resolv.conf && mount --bind /etc/resolv.conf {quoted}/etc/resolv.conf")
        script.append(f"mount -t tmpfs host {quoted}{_HOST}")
        for path in paths:
            inner = shlex.quote(f"{root}{_HOST}{path}")
            make = f"mkdir -p {inner}" if Path(path).is_dir() else f"mkdir -p $(dirname {inner}) && touch {inner}"
            script.append(f"{make} && mount --bind {shlex.quote(path)} {inner}")
    script.append(_enter(quoted, f"cd {shlex.quote(folder)} && {step}", variables, "0:0"))
    done = _isolated(" && ".join(script), network=installs, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"a step failed: {step[:200]}\n{(done.stdout + done.stderr)[-4000:]}")


def _installer_settings() -> tuple[dict[str, str], list[str]]:
    """What this machine sets for its proxies and for pip, as variables, and the local files that those name."""
    variables = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    for name, value in re.findall(r"^(?:global|install|:env:)\.([a-z-]+)='(.*)'$", asked, re.MULTILINE):
        variables[f"PIP_{name.upper().replace('-', '_')}"] = value
    words = {urlsplit(word).path for value in variables.values() for word in value.split()}
    paths = sorted(word for word in words if word.startswith("/") and len(word) > 1 and Path(word).exists())
    for path in paths:
        variables = {
            name: re.sub(rf"(?<!\S)((?:file://)?){re.escape(path)}(?!\S)", rf"\1{_HOST}{path}", value)
            for name, value in variables.items()
        }
    # An index on disk refers to files beside it, so folders come with their parents.
    shown = {Path(path).parent if Path(path).is_dir() else Path(path) for path in paths}
    return variables, sorted(str(path) for path in shown if not shown & set(path.parents))


def _enter(root: str, command: str, environment: Mapping[str, str], user: str) -> str:
    given = " ".join(shlex.quote(f"{name}={value}") for name, value in environment.items())
    return f"exec chroot --userspec={user} {root} env -i {given} sh -c {shlex.quote(command)}"


def _isolated(script: str, *, network: bool, check: bool) -> subprocess.CompletedProcess[str]:
    """Run a script whose mounts nobody else sees, and which takes its processes along when it ends."""
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", *([] if network else ["--net"])]
    return subprocess.run([*command, "sh", "-c", script], capture_output=True, text=True, check=check)


def layer_sizes(builder: Builder, name: str) -> dict[str, int]:
    """Bytes of the files that each `COPY --from` of a stage brings, by where it puts them, and of the system's /usr."""
    copies = [copy for copy in builder.dockerfile.stages[name].of("COPY") if "from" in copy.flags]
    places = [*(copy.words[-1] for copy in copies), "/usr"]
    return {place: _bytes_below(builder.stage(name) / place.lstrip("/")) for place in places}


def _bytes_below(place: Path) -> int:
    return sum(path.lstat().st_size for path in place.rglob("*") if path.is_symlink() or path.is_file())
