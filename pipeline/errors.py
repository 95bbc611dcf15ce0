"""Every way a job can fail, as one tree.

    LiveryError
    ├─ InputError             the caller's to mend; never retried
    │  ├─ SchemaError         a field is unknown, missing, of the wrong type or out of range
    │  ├─ PaletteError        the palette is not 2 to 64 distinct colours
    │  ├─ FetchError          image_url could not be read
    │  └─ ImageError          the picture can't be used
    │     ├─ ImageUnsupported   not JPEG, PNG or WebP, or a shape Livery has no use for
    │     ├─ ImageCorrupt       damaged or cut short
    │     └─ ImageTooLarge      more bytes or pixels than the limits
    ├─ QualityError           the picture did not come out well enough to hand over
    │  ├─ NoSubject           no vehicle was found
    │  └─ ShapeDrift          the vehicle's outline changed (iou)
    ├─ ResourceError          the worker lacked something
    │  ├─ OutOfMemory         retryable
    │  ├─ DeadlineExceeded    retryable (phase)
    │  ├─ VolumeFull          retryable
    │  ├─ UploadFailed        retryable
    │  ├─ Cancelled           retryable
    │  ├─ ModelMissing        the studio models are not on this worker
    │  └─ ModelCorrupt        a model file has the wrong checksum
    ├─ DeviceLost             the GPU is unusable until the worker restarts
    └─ InternalError          a defect of ours; constant message, details only in the log

Each class's name is its stable code. Fields travel as attributes (`field`, `phase`, `iou`): nobody parses a message.
Messages never hold a path, a host name, an environment value or a traceback.
"""

from __future__ import annotations

from typing import ClassVar


class LiveryError(Exception):
    """Base of every failure that a caller may see.

    Args:
        message: one line for the caller, without the code and without the field.
        field: the request field at fault, as a path such as ``palette[2]``; None where no field is.
    """

    summary: ClassVar[str] = "the job failed"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, field: str | None = None) -> None:
        self.message = message
        self.field = field
        super().__init__(f"{field}: {message}" if field else message)

    @property
    def code(self) -> str:
        """The stable code: the class's own name."""
        return type(self).__name__

    def as_reply(self) -> dict[str, str | bool | None]:
        """The error reply: `error` (starts with the code), `code`, `field`, `retryable`."""
        return {"error": f"{self.code}: {self}", "code": self.code, "field": self.field, "retryable": self.retryable}


class InputError(LiveryError):
    summary = "the request can't be served as it stands; change it"


class SchemaError(InputError):
    summary = "a field is unknown, missing, of the wrong type or out of range"


class PaletteError(InputError):
    summary = "the palette is not 2 to 64 distinct colours in a form Livery reads"


class FetchError(InputError):
    summary = "the picture could not be read from where it lies"


class ImageError(InputError):
    summary = "the picture can't be used"


class ImageUnsupported(ImageError):
    summary = "the picture is not a JPEG, PNG or WebP, or has a shape Livery has no use for"


class ImageCorrupt(ImageError):
    summary = "the picture is damaged or cut short"


class ImageTooLarge(ImageError):
    summary = "the picture has more bytes or pixels than the limits"


class QualityError(LiveryError):
    summary = "the picture did not come out well enough to hand over"


class NoSubject(QualityError):
    summary = 'no vehicle was found; name it with subject, or send subject: "whole"'


class ShapeDrift(QualityError):
    """The vehicle's outline changed more than the caller allows.

    Args:
        iou: silhouette intersection over union reached, 0 to 1.
    """

    summary = "the vehicle's outline changed more than style.iou_threshold allows"

    def __init__(self, message: str, *, iou: float, field: str | None = None) -> None:
        super().__init__(message, field=field)
        self.iou = iou


class ResourceError(LiveryError):
    summary = "the worker lacked something the job needs"


class OutOfMemory(ResourceError):
    summary = "the worker ran out of memory"
    retryable = True


class DeadlineExceeded(ResourceError):
    """A phase ran past its time.

    Args:
        phase: the phase that was running.
    """

    summary = "a phase ran past its time"
    retryable = True

    def __init__(self, message: str, *, phase: str) -> None:
        super().__init__(message)
        self.phase = phase


class VolumeFull(ResourceError):
    summary = "the worker's disk or volume is full"
    retryable = True


class UploadFailed(ResourceError):
    summary = "the pictures could not be handed over: no bucket, or the bucket refused"
    retryable = True


class Cancelled(ResourceError):
    summary = "the job was cancelled"
    retryable = True


class ModelMissing(ResourceError):
    summary = "the studio engine's models are not on this worker"


class ModelCorrupt(ResourceError):
    summary = "a model file does not have its pinned checksum"


class DeviceLost(LiveryError):
    summary = "the GPU failed; the worker restarts"
    retryable = True


class InternalError(LiveryError):
    """A defect of ours. The message is constant, so that nothing of the machine leaks into a reply."""

    summary = "a defect in Livery; the log has the details under the job id"

    def __init__(self) -> None:
        super().__init__("the job failed inside Livery; the log has the details under the job id")


def error_classes(root: type[LiveryError] = LiveryError) -> list[type[LiveryError]]:
    """All error classes in the tree's own order, `root` first."""
    found = [root]
    for child in root.__subclasses__():
        found += error_classes(child)
    return found
