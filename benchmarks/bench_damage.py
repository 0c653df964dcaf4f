"""Damage to every kind of file that is read back: 200 seeded flips, truncations and zeroed blocks of each kind.

Each is refused by the file's name, or gives the same result to the bit. Under two minutes on one core.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

COUNT = os.environ.get("HYPERDPO_DAMAGES", "200")

if __name__ == "__main__":
    test = Path(__file__).parents[1] / "tests" / "test_damage.py"
    environment = os.environ | {"HYPERDPO_DAMAGES": COUNT}
    options = ["-q", "-p", "no:cacheprovider", "--durations=20", "--show-capture=no"]
    sys.exit(subprocess.run([sys.executable, "-m", "pytest", *options, str(test)], env=environment).returncode)
