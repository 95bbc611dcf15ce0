"""`python -m pipeline`: see `pipeline.command`."""

import sys

try:
    from pipeline.command import main

    code = main()
except KeyboardInterrupt:  # before a job could take it
    code = 130
sys.exit(code)
