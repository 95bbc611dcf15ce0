"""Which state of the code a row was measured on."""

from __future__ import annotations

import subprocess


def commit_of_tree() -> str | None:
    """The short hash of the commit that is checked out; None outside a checkout."""
    try:
        done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    except OSError:  # there is no git
        return None
    return done.stdout.strip() if done.returncode == 0 else None
