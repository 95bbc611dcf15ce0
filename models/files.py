"""One model's files on the volume, as its loader reads them: refused where they are not what was pinned."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.reading import Read, ReadAhead, Reads, read_whole
from models.requests import Check, unchecked
from models.weights import BadWeights, tensors_in
from pipeline.errors import ModelCorrupt, ModelMissing
from pipeline.types import U8

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of one row of the registry, at its pinned revision.

    Attributes:
        name: of the row, for messages.
        revision: 40 hex digits.
        folder: where the files lie, at the paths that they have in their repository.
        sha256: the checksums, 64 hex digits by path, that files must have as they are read; none is checked of a file
            that is not named.
        reads: where what is read is counted.
        ahead: what was read before it was asked for.
        ask: called while a file is read; what it raises ends the reading.
    """

    name: str
    revision: str
    folder: Path
    sha256: Mapping[str, str] = field(default_factory=dict)
    reads: Reads = field(default_factory=Reads, compare=False)
    ahead: ReadAhead = field(default_factory=ReadAhead, compare=False)
    ask: Check = field(default=unchecked, compare=False)

    def path(self, name: str) -> Path:
        """Where one small file lies, for a library that reads it itself: a tokenizer's table."""
        path = self.folder / name
        if not path.is_file():
            raise ModelMissing(f"the volume lacks a file of {self.name}")
        return path

    def json(self, name: str) -> dict[str, Any]:
        """A configuration.

        Raises:
            ModelMissing, ModelCorrupt: it is not there, has another checksum than its own, or is no JSON object.
        """
        try:
            value = json.loads(self._read(name).tobytes())
        except ValueError:
            raise ModelCorrupt(f"a configuration of {self.name} is damaged") from None
        if not isinstance(value, dict):
            raise ModelCorrupt(f"a configuration of {self.name} is damaged")
        return value

    def tensors(self, *names: str) -> dict[str, torch.Tensor]:
        """The tensors of one or more weight files, on the CPU, in the dtype that they were stored in.

        `.safetensors` files hold nothing but tensors; of any other only tensors are unpickled (`weights_only`), so that
        a file can't run code.

        Raises:
            ModelMissing, ModelCorrupt: a file is not there, is cut short, has another checksum than its own, or holds
                something else than tensors.
        """
        merged: dict[str, torch.Tensor] = {}
        for name in names:
            merged |= self._tensors(name)
        return merged

    def check(self, name: str) -> None:
        """Read a file for its checksum alone.

        Raises:
            ModelMissing, ModelCorrupt: it is not there, or has another one than its own.
        """
        self._read(name)

    def _tensors(self, name: str) -> Mapping[str, torch.Tensor]:
        try:
            return tensors_in(name, self._read(name))
        except BadWeights:
            raise ModelCorrupt(f"a weight file of {self.name} is damaged, or holds more than tensors") from None

    def _read(self, name: str) -> U8:
        expected = self.sha256.get(name)
        try:
            read = self._asked_for(self.path(name), hashing=expected is not None)
        except OSError as fault:
            raise ModelMissing(f"a file of {self.name} can't be read from the volume: {fault.strerror}") from None
        except BadWeights:
            raise ModelCorrupt(f"a file of {self.name} was cut short while it was read") from None
        if read.sha256 != expected:
            raise ModelCorrupt(f"a file of {self.name} does not have its pinned checksum; builder verify names it")
        return read.data

    def _asked_for(self, path: Path, *, hashing: bool) -> Read:
        began_s = time.perf_counter()
        early = self.ahead.take(path, self.ask)
        read = read_whole(path, hashing=hashing, ask=self.ask) if early is None else early
        if early is None:
            self.reads.note(len(read.data))
        self.reads.note_asked(time.perf_counter() - began_s, ahead=early is not None)
        return read
