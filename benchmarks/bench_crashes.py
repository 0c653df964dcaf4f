"""Long commands killed at random moments and started again: whether the results are equal to the bit, 20 kills each.

python benchmarks/bench_crashes.py [KILLS] [COMMAND ...]

What the commands print is shown where a result is not equal.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from crashes import COMMANDS, crash, inputs

KILLS = 20


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else KILLS
    chosen = [one for one in COMMANDS if not sys.argv[2:] or one.name in sys.argv[2:]]
    unequal = []
    with tempfile.TemporaryDirectory() as directory:
        os.environ["HYPERDPO_CACHE"] = str(Path(directory) / "cache")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            place = inputs(Path(directory) / "inputs")
        print(f"{'command':18} {'kills':>5} {'ends':>5}  result")
        for number, command in enumerate(chosen):
            started = time.monotonic()
            found = crash(command, place, Path(directory) / str(number), kills)
            said = "equal" if found.is_equal else f"DIFFERS {found}"
            print(
                f"{command.name:18} {found.kills:5} {found.ends:5}  {said}; {time.monotonic() - started:.0f} s",
                flush=True,
            )
            if not found.is_equal:
                print(found.printed)
                unequal.append(command.name)
    sys.exit(f"not equal: {', '.join(unequal)}" if unequal else 0)


if __name__ == "__main__":
    main()
