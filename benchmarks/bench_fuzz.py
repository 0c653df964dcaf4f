"""Mutated files for every reader, 5,000 each: a result or one line, never another exception. Minutes on one core."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

COUNT = os.environ.get("HYPERDPO_MUTATIONS", "5000")

if __name__ == "__main__":
    test = Path(__file__).parents[1] / "tests" / "test_fuzz.py"
    environment = os.environ | {"HYPERDPO_MUTATIONS": COUNT}
    options = ["-q", "-p", "no:cacheprovider", "--durations=40", "--show-capture=no"]
    sys.exit(subprocess.run([sys.executable, "-m", "pytest", *options, str(test)], env=environment).returncode)
