"""The process in which vtracer runs: a PNG on stdin, its SVG on stdout.

    python -I -S vtracer_child.py FOLDER OPTIONS

FOLDER holds the vtracer package, OPTIONS is a JSON object of its keyword arguments. Nothing but vtracer is imported,
so that the process is up in milliseconds. It is a process of its own because vtracer holds the GIL for its whole run,
can't be interrupted and may panic.
"""

import json
import sys


def main(folder: str, options: str) -> None:
    """Trace stdin to stdout."""
    sys.path.insert(0, folder)
    from vtracer import convert_raw_image_to_svg  # noqa: PLC0415 - found only once its folder is on the path

    svg = convert_raw_image_to_svg(sys.stdin.buffer.read(), img_format="png", **json.loads(options))
    sys.stdout.buffer.write(svg.encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
