"""A worker that never asks for a job, for tests of the server alone."""

import signal

signal.pause()
