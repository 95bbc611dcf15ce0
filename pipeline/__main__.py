"""`python -m pipeline`: see `pipeline.command`."""

import os
import sys

try:
    from pipeline.command import main

    code = main()
except KeyboardInterrupt:  # before a job could take it
    code = 130
except BrokenPipeError:  # the reader of our lines has gone, as `head` does
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    code = 1
sys.exit(code)
