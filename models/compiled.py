"""Parts of networks in kernels that torch's compiler made for one kind of GPU, kept on the volume.

A worker never compiles: that takes minutes. A builder does it once for a kind of GPU and a set of picture sizes
(`python -m builder compile`), and workers on such a GPU take what it made; at any other size, on any other GPU, with
another PyTorch, the same networks run as they are. Compiled kernels round in other places, so which of both runs is
decided as a painter is loaded, by what the volume holds, and never changes from one job to the next.

Only blocks that repeat are compiled (*regional compilation*): one compilation serves all of a shape.

    <volume>/compiled/<what>-<digest of the facts>.kernels     a line of JSON, then torch's own archive of its caches

The archive holds code. Whoever may write to the volume can so have the worker run it, which holds for no weight file.
"""

# ruff: noqa: PLC0415 - torch and diffusers are heavy, and only studio workers have them

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.device import Device
from pipeline.errors import ModelCorrupt

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

FOLDER = "compiled"
FORMAT = 1

Shape = tuple[int, ...]
"""Of the latents that a step gets: [B, 4, h, w]."""

_MOST_SHAPES = 256  # of one block's code; torch's own bound of 8 is for functions whose shapes nobody knows


@dataclass(frozen=True, slots=True)
class Kernels:
    """What a builder compiled.

    Attributes:
        shapes: of the latents that it was compiled for.
        archive: of torch's compiler, by `torch.compiler.save_cache_artifacts`.
    """

    shapes: frozenset[Shape]
    archive: bytes


def compiler_facts(device: Device) -> dict[str, str]:
    """What kernels depend on beside the networks: with any of it changed they are made anew."""
    import diffusers
    import torch

    facts = {"gpu": device.name, "dtype": device.half, "torch": torch.__version__, "diffusers": diffusers.__version__}
    if device.kind == "cuda":
        major, minor = torch.cuda.get_device_capability()
        facts |= {"capability": f"{major}.{minor}", "cuda": str(torch.version.cuda)}
    return facts


def kernels_path(volume: Path, what: str, facts: Mapping[str, str]) -> Path:
    """Where the kernels lie of a unit's networks."""
    digest = hashlib.sha256(json.dumps([FORMAT, what, sorted(facts.items())]).encode()).hexdigest()
    return volume / FOLDER / f"{what.replace(' ', '-')}-{digest[:16]}.kernels"


def packed(kernels: Kernels, facts: Mapping[str, str]) -> bytes:
    """A file's content."""
    head = {
        "format": FORMAT,
        "facts": dict(facts),
        "shapes": sorted(kernels.shapes),
        "sha256": hashlib.sha256(kernels.archive).hexdigest(),
    }
    return json.dumps(head).encode() + b"\n" + kernels.archive


def unpacked(content: bytes, facts: Mapping[str, str]) -> Kernels:
    """What `packed` made.

    Raises:
        ModelCorrupt: it is damaged, or was made for something else.
    """
    line, _, archive = content.partition(b"\n")
    try:
        head = json.loads(line)
        shapes = frozenset(tuple(int(side) for side in shape) for shape in head["shapes"])
        made_for, digest = head["facts"], head["sha256"]
    except (ValueError, TypeError, KeyError):
        raise ModelCorrupt("the compiled kernels are damaged") from None
    if made_for != dict(facts) or head.get("format") != FORMAT:
        raise ModelCorrupt("the compiled kernels were made for something else")
    if digest != hashlib.sha256(archive).hexdigest():
        raise ModelCorrupt("the compiled kernels are damaged")
    return Kernels(shapes, archive)


def read_kernels(volume: Path, what: str, device: Device) -> Kernels | None:
    """The kernels of a unit's networks for this device; None where the volume has none, or only damaged ones.

    Without them a job takes longer, and that is all: damage is logged.
    """
    if not (volume / FOLDER).is_dir():
        return None
    facts = compiler_facts(device)
    path = kernels_path(volume, what, facts)
    try:
        return unpacked(path.read_bytes(), facts)
    except FileNotFoundError:
        log.info("the volume holds no compiled kernels of the %s for %s", what, device.name)
    except (OSError, ModelCorrupt) as fault:
        log.warning("compiled kernels of the %s are left alone: %s", what, fault)
    return None


class Regions:
    """The blocks of a painter's networks that can be compiled.

    Args:
        networks: modules of diffusers.

    Attributes:
        shapes: of the latents, for which compiled kernels run.
    """

    def __init__(self, networks: Sequence[torch.nn.Module]) -> None:
        self._networks = networks
        self._marked = False
        self.shapes: frozenset[Shape] = frozenset()

    def take(self, kernels: Kernels) -> None:
        """From now on, run these at the shapes that they were made for.

        What torch can't use of them, on a host that lacks something, it says in the log and runs uncompiled.
        """
        import torch
        import torch._dynamo

        if torch.compiler.load_cache_artifacts(kernels.archive) is None:
            log.warning("compiled kernels are left alone: torch can't read them")
            return
        torch._dynamo.config.suppress_errors = True
        self._mark()
        self.shapes = kernels.shapes

    def make(self, shapes: Iterable[Shape], run: Callable[[Shape], object]) -> Kernels:
        """Compile for some shapes. In a process that has compiled nothing before.

        Args:
            shapes: of the latents.
            run: has every network compute a step at a shape.
        """
        import torch

        self._mark()
        self.shapes = frozenset(shapes)
        for shape in sorted(self.shapes):
            run(shape)
        saved = torch.compiler.save_cache_artifacts()
        if saved is None:
            raise ModelCorrupt("the compiler made nothing")
        return Kernels(self.shapes, saved[0])

    @contextmanager
    def at(self, shape: Shape) -> Iterator[None]:
        """While this lasts, the networks may be called at that shape, and nothing is compiled but by `make`."""
        if not self._marked or shape in self.shapes:
            yield
            return
        import torch

        with torch.compiler.set_stance("force_eager"):
            yield

    def _mark(self) -> None:
        import torch._dynamo

        if self._marked:
            return
        self._marked = True
        torch._dynamo.config.recompile_limit = _MOST_SHAPES
        for block in self._blocks():
            block.compile(dynamic=False)

    def _blocks(self) -> Iterator[Any]:
        from diffusers.models.attention import BasicTransformerBlock
        from diffusers.models.resnet import ResnetBlock2D

        for network in self._networks:
            yield from (part for part in network.modules() if isinstance(part, BasicTransformerBlock | ResnetBlock2D))
