"""Start-up: the package's import and the command line's help, against importing torch.

python benchmarks/bench_startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import hyperdpo": ["-c", "import hyperdpo"],
    "hyperdpo --help": ["-m", "hyperdpo", "--help"],
    "hyperdpo rank fit --help": ["-m", "hyperdpo", "rank", "fit", "--help"],
    "import torch": ["-c", "import torch"],
}


def main() -> None:
    for name, arguments in COMMANDS.items():
        seconds = []
        for _ in range(6):
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - started)
        print(f"{name:26} {statistics.median(seconds[1:]):.3f} s")


if __name__ == "__main__":
    main()
