"""A worker that tells the names in its environment, for tests of the server alone."""

import json
import os
import signal

print("environment: " + json.dumps(sorted(os.environ)), flush=True)
signal.pause()
