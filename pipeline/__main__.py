"""`python -m pipeline`: see `pipeline.command`."""

import os
import signal
import sys

INTERRUPTED = 130

# While modules load there is nothing to clean up, and some libraries swallow what is raised in their imports.
signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))

from pipeline.command import main  # noqa: E402 - not before the handler above

signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    code = main()
except KeyboardInterrupt:  # before a job could take it
    code = INTERRUPTED
except BrokenPipeError:  # the reader of our lines has gone, as `head` does
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    code = 1
sys.exit(code)
