"""Workers, one after another, forked from a process that has imported what a job needs: ten start as soon as two.

Reads a line for each worker: how many seconds its job has on SIGTERM (see pipeline/loop.py). Prints its process, and
its exit code once it has ended.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

import handler
import pipeline.loop

NEEDED = ("boto3.session", "runpod", "pipeline.actions", "pipeline.health", "pipeline.storage")


def main() -> None:
    for name in NEEDED:
        import_module(name)
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            os.setsid()
            os.dup2(2, 1)  # what a worker prints is no answer
            pipeline.loop.GRACE_S = float(line)
            os._exit(handler.main())
        print(process, flush=True)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
