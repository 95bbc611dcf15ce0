"""The fault suite: what goes wrong around a worker, how far each fault is driven here, and what it must come to.

Each test notes the figure that it reached (`figure`); the run ends with one table of them. By fault:

| fault | tests |
|---|---|
| malformed image … base64 | `test_images.py` |
| image URLs | `test_urls.py` |
| unsafe SVG | `test_svg.py` |
| pickle in weights, corrupt weights | `test_weights.py`, `test_downloads.py` |
| disk full, unhealthy start, leaks | `test_host.py` |
| no network, GPU out of memory, sticky CUDA error, state between jobs | `test_models.py` |
| a phase hangs, SIGTERM, cancel, poison, sticky CUDA error, state between jobs, same job again | `test_jobs.py` |
| error leakage, reply too large | `test_replies.py` |
"""

FAULTS = (
    "malformed image",
    "bombs, lying headers",
    "EXIF orientation",
    "ICC, CMYK, 16 bit, alpha",
    "animated, multi-picture",
    "truncated",
    "formats in disguise",
    "base64 of any kind",
    "image URLs",
    "unsafe SVG",
    "pickle in weights",
    "corrupt weights",
    "disk full",
    "no network",
    "GPU out of memory",
    "sticky CUDA error",
    "a phase hangs",
    "SIGTERM in a job",
    "cancel in a job",
    "poison job",
    "state between jobs",
    "same job again",
    "leaks",
    "error leakage, secrets",
    "reply too large",
    "unhealthy start",
)
"""Every fault that has a test here, in the order of the table."""

FIGURE = "figure"
"""Name of the reports' property that holds what a test reached."""
