"""Whether this host can serve at all, asked once before the first job.

Only what another host would do better counts: a GPU that is not there or can't be used, a volume that was not mounted,
a disk without room. A model that the volume lacks is no fault of the host's: starting again would lack it too, so that
is for the job's reply to say. The platform ends a worker that fails here and starts another.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator

from models.device import find_device, free_memory_mb, try_device
from pipeline.errors import LiveryError
from pipeline.settings import Settings, load_settings

TRIED_BYTES = 1 << 20
"""Written to the temporary folder to see that it takes anything: quotas don't show in what is free."""


class HostFault(Exception):
    """This host can't serve the deployment. Its text is one line for whoever reads the platform's log."""


def check_host() -> None:
    """RunPod's fitness check.

    Raises:
        HostFault: with everything that is wrong with the host.
        SettingsError: the worker is set up wrongly.
    """
    if faults := tuple(host_faults(load_settings())):
        raise HostFault("; ".join(faults))


def host_faults(settings: Settings) -> Iterator[str]:
    """What keeps this host from serving, a sentence each, without paths. torch is imported only where it is needed."""
    yield from _disk_faults(settings.least_disk_mb)
    if settings.auto_engine == "draft" or (settings.auto_engine == "auto" and settings.volume is None):
        return
    yield from _volume_faults(settings)
    yield from _gpu_faults(settings)


def _disk_faults(least_mb: int) -> Iterator[str]:
    try:
        with tempfile.TemporaryFile() as file:
            file.write(bytes(TRIED_BYTES))
            file.flush()
        free_mb = shutil.disk_usage(tempfile.gettempdir()).free >> 20
    except FileNotFoundError:
        yield "there is no folder that temporary files can be written to"
        return
    except OSError as fault:
        yield f"the temporary folder can't be written: {fault.strerror}"
        return
    if free_mb < least_mb:
        yield f"the disk has {free_mb} MiB free where temporary files go, and LIVERY_LEAST_DISK_MB asks for {least_mb}"


def _volume_faults(settings: Settings) -> Iterator[str]:
    if settings.volume is None:
        return
    try:
        next(settings.volume.iterdir(), None)
    except FileNotFoundError:
        yield "the volume is not mounted: there is no folder where LIVERY_VOLUME says"
    except OSError as fault:
        yield f"the volume that LIVERY_VOLUME names can't be read: {fault.strerror}"


def _gpu_faults(settings: Settings) -> Iterator[str]:
    try:
        device = find_device()
        if device.kind == "cpu":
            if settings.auto_engine == "studio":
                yield "there is no GPU, and LIVERY_AUTO_ENGINE=studio serves on one only"
            return
        try_device(device)
        free_mb = free_memory_mb()
    except ImportError:
        return  # the image's fault, which it takes along to any host
    except LiveryError as fault:
        yield fault.message
        return
    except RuntimeError as fault:
        yield f"the GPU does not work: {str(fault).partition(chr(10))[0]}"
        return
    if free_mb < settings.least_vram_mb:
        yield f"the GPU has {free_mb} MiB of memory free, and LIVERY_LEAST_VRAM_MB asks for {settings.least_vram_mb}"
