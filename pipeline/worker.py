"""What one process keeps between its jobs, and which engine serves a job."""

from __future__ import annotations

from dataclasses import dataclass, field

from models.studio import StudioWorker
from models.units import DEPTH, DETECTOR, FAST, PROMPT, SEGMENTER, VAE
from pipeline.art import Gallery
from pipeline.cache import Cache
from pipeline.errors import ModelMissing
from pipeline.measured import Measured
from pipeline.schema import Engine, JobInput
from pipeline.settings import Settings
from pipeline.turn import Turn
from pipeline.types import Warning


@dataclass(slots=True)
class Worker:
    """One process's state: nothing of it changes what a job makes, only how soon.

    Attributes:
        settings: of the deployment.
        studio: the studio engine's resident set; None where no volume is set. Nothing is loaded before the first job.
        gallery: what phases 1 and 2 made of recent photos.
        measured: what jobs took.
        cache: what jobs made; None where nothing is kept.
        turn: at the studio engine's models; a job has it for all that it asks of them.
    """

    settings: Settings
    studio: StudioWorker | None = None
    gallery: Gallery = field(default_factory=Gallery)
    measured: Measured = field(default_factory=Measured)
    cache: Cache | None = None
    turn: Turn = field(default_factory=Turn)

    def __post_init__(self) -> None:
        self.cache = _cache_of(self.settings)
        self.gallery = Gallery(self.cache)
        if self.settings.volume is not None:
            self.studio = StudioWorker(
                self.settings.volume,
                allow_noncommercial=self.settings.allow_noncommercial,
                weights_mb=self.settings.weights_mb,
                prefetch_mb=self.settings.prefetch_mb,
                fp16_accumulation=self.settings.fp16_accumulation,
                threads=self.settings.threads,
            )

    def import_ahead(self) -> None:
        """Import the studio engine's libraries from now on.

        Drafts that come meanwhile take a second longer, so this is for workers that are set to serve the studio engine.
        """
        if self.studio is not None:
            self.studio.import_ahead((DETECTOR, SEGMENTER, VAE, DEPTH, PROMPT, FAST))


def _cache_of(settings: Settings) -> Cache | None:
    folder = settings.cache
    if folder is None and settings.volume is not None and settings.volume.is_dir():
        folder = settings.volume / "cache"
    if folder is None or settings.cache_mb == 0:
        return None
    return Cache(folder, settings.cache_mb << 20, settings.cache_s)


def choose_engine(job: JobInput, worker: Worker) -> tuple[Engine, tuple[Warning, ...]]:
    """The engine that serves `job` on this worker, and why where the caller left the choice.

    Raises:
        ModelMissing: the studio engine is asked for, by the job or by the worker's settings, and can't serve.
    """
    if job.engine == "draft":
        return "draft", ()
    if job.engine == "studio":
        if (reason := _why_no_studio(job, worker)) is not None:
            raise ModelMissing(reason, field="engine")
        return "studio", ()
    settings = worker.settings
    if settings.auto_engine == "draft":
        return "draft", (Warning("engine_auto", "auto took the draft engine, as this worker is set to"),)
    reason = _why_no_studio(job, worker)
    if settings.auto_engine == "studio":
        if reason is not None:
            raise ModelMissing(f"this worker serves only the studio engine: {reason}", field="engine")
        return "studio", (Warning("engine_auto", "auto took the studio engine, as this worker is set to"),)
    if reason is None:
        reason = _why_no_gpu(worker)
    if reason is None:
        return "studio", (Warning("engine_auto", "auto took the studio engine: the models and a GPU are there"),)
    return "draft", (Warning("engine_auto", f"auto took the draft engine: {reason}"),)


def engines_for(job: JobInput, worker: Worker) -> tuple[Engine, ...]:
    """Every engine that could serve `job` here, whichever it names."""
    return ("draft",) if _why_no_studio(job, worker) is not None else ("draft", "studio")


def _why_no_studio(job: JobInput, worker: Worker) -> str | None:
    """Why the studio engine can't serve `job` here; None where it can. Reads the manifest, loads nothing."""
    if worker.studio is None:
        return "this worker has no model volume"
    return worker.studio.why_unusable(job.mode, allow_synthetic=worker.settings.allow_synthetic)


def _why_no_gpu(worker: Worker) -> str | None:
    try:
        found = None if worker.studio is None else worker.studio.device.kind
    except ModelMissing as fault:
        return fault.message
    return None if found == "cuda" else "this worker has no GPU"
