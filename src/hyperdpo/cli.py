"""The command line. Commands import torch and other large libraries when they run, so that ``--help`` is quick.

Exit codes: 0 done; 1 done, but requirements cannot be met (``choose``), a server does not turn its dial (``verify``)
or requests were cut off at the end (``serve``); 2 bad input, with one line on stderr; 70 a fault of hyperdpo itself;
130 interrupted.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import os
import re
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import click

from hyperdpo._version import __version__
from hyperdpo.alignment.cli import align
from hyperdpo.choosing.cli import choose
from hyperdpo.comparison.cli import align_compare, rank_compare
from hyperdpo.errors import InputError, counted, one_line
from hyperdpo.experiments.cli import experiment
from hyperdpo.explorer.cli import explore
from hyperdpo.extras import require
from hyperdpo.options import (
    PATH,
    PREFERENCE_FORMATS,
    WHOLE,
    WholeRange,
    add_options,
    ranker_data_options,
    reading_options,
    settings_option,
)
from hyperdpo.progress import note, progress_bar
from hyperdpo.ranking.cli import rank
from hyperdpo.serving.cli import export, serve, verify

#: Name of a variable: where it is set, a fault of hyperdpo is shown with its traceback.
TRACEBACK = "HYPERDPO_TRACEBACK"
#: Exit code of a fault of hyperdpo, EX_SOFTWARE of ``sysexits.h``. Not 1, which is an answer of ``choose``.
FAULT = 70
#: What numpy and torch say of arrays that fit into no memory.
NO_MEMORY = re.compile("can't allocate memory|Storage size calculation overflowed|^array is too big")
#: Errors of the operating system that are the machine's.
OUTSIDE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    atexit.register(gc.freeze)  # at its end, Python looks at every object there is: seconds, with PyTorch in it
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _note
            code = cli.main(arguments, prog_name="hyperdpo", standalone_mode=False)
            sys.stdout.flush()  # now, while a full disk can still be told
    except (InputError, click.ClickException) as error:
        if isinstance(error, click.UsageError) and error.ctx and error.message == error.ctx.get_help():
            click.echo(error.message, err=True)  # a group without a subcommand
            return 2
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo(f"hyperdpo: {' '.join(message.split())}", err=True)
        return 2
    except (KeyboardInterrupt, click.Abort) as error:
        if isinstance(error.__cause__, EOFError):  # click takes it for an interrupt
            return _failed(error.__cause__)
        click.echo("hyperdpo: interrupted; run the same command again to resume", err=True)
        return 130
    except Exception as error:
        return _failed(error)
    return code if isinstance(code, int) else 0


def _failed(error: BaseException) -> int:
    """Tell what no other place has told: the machine is short of something, or hyperdpo is at fault."""
    if isinstance(error, OSError) and error.errno in OUTSIDE:
        _drop_output()
        click.echo(f"hyperdpo: {error.filename or 'standard output'}: {error.strerror}", err=True)
        return 2
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or NO_MEMORY.search(str(error)):
        click.echo(f"hyperdpo: not enough memory ({one_line(error) or 'none is left'})", err=True)
        return 2
    places = traceback.extract_tb(error.__traceback__)
    ours = [one for one in places if "hyperdpo" in Path(one.filename).parts] or places
    where = f" ({Path(ours[-1].filename).name}, line {ours[-1].lineno})" if ours else ""
    click.echo(
        f"hyperdpo: this is a fault of hyperdpo, not of your input: {type(error).__name__}: {one_line(error)}{where}\n"
        f"Please report it: this command, the version ({__version__}), and the traceback that the same command prints\n"
        f"with {TRACEBACK}=1 in its environment. What was finished before is kept.",
        err=True,
    )
    if os.environ.get(TRACEBACK):
        click.echo("".join(traceback.format_exception(error)), err=True)
    return FAULT


def _drop_output() -> None:
    """Standard output leads nowhere from here on if it cannot be written: Python tries again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _note(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning as one line, without the code that raised it."""
    note(str(message))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="%(version)s")
def cli() -> None:
    """HyperDPO: one trained model, every trade-off between several objectives."""


for room in (rank, align, choose, explore, export, serve, verify, experiment):
    cli.add_command(room)
rank.add_command(rank_compare)
align.add_command(align_compare)


@cli.command("check")
@click.argument("path", metavar="PATH", type=PATH)
@click.option("--accept", is_flag=True, help="Take the files as they are: they were changed on purpose.")
def check(path: Path, accept: bool) -> None:
    """Compare the files of PATH with the checksums that were written with them; where there are none, add them.

    PATH is a run, an adapter, an export (of a ranker: its file), the directory of a comparison, or the cache. Exit
    code 2, with the names, if files are missing or damaged.
    """
    from hyperdpo.checking import check_command

    check_command(path, accept=accept)


@cli.group()
def data() -> None:
    """Generate data, and check data before a training."""


@data.command("generate")
@click.argument("out", type=PATH)
@click.option("--queries", type=WHOLE, required=True, help="Number of queries (groups).")
@click.option(
    "--seed",
    type=WholeRange(min=0),
    default=0,
    show_default=True,
    help="With the same seed, a smaller file is a prefix of a larger one.",
)
@click.option("--oracle", type=PATH, help="Also write the labels' expectations, as CSV.")
@click.option(
    "--clicks",
    is_flag=True,
    help="Clicks as a search log has them, fewer at later positions: column 137 is the position, 138 the propensity.",
)
def generate_data(out: Path, queries: int, seed: int, oracle: Path | None, clicks: bool) -> None:
    """Write MSLR-format text to OUT: 131 features, relevance, and five labels that conflict by construction.

    Another seed gives the features another meaning, and a smaller file of the same seed holds the same queries: neither
    is a test file. Test on the groups that a fit holds out, or on queries from the end of a larger file.
    """
    from hyperdpo.data.synthetic import Clicks, generate

    with progress_bar("generate", queries, "queries") as update:
        documents = generate(out, queries, seed, oracle, progress=update, clicks=Clicks() if clicks else None)
    click.echo(f"{out}: {counted(queries, 'query')}, {counted(documents, 'document')}")


@data.command("check")
@click.argument("source", metavar="FILE", type=PATH)
@click.option("--validation", type=PATH, help="For a ranker: validation groups, instead of a split of FILE.")
@click.option("--test", type=PATH, help="For a ranker: test groups, instead of a split of FILE.")
@settings_option("Any setting of the fit.")
@click.option("--format", type=click.Choice(PREFERENCE_FORMATS), default="auto", help="For a language model: of FILE.")
@add_options(*reading_options("For a language model: "))
@ranker_data_options
def check_data(**options: Any) -> None:
    """Check FILE without training: print its layout, groups, features and labels, and what a fit would leave out. Exit
    code 2, with the reason, if a fit would refuse it.

    FILE is data for a ranker (LETOR text, CSV, Parquet, with the labels that --config, --preset or --objectives name),
    or preferences for a language model (JSON lines, Parquet). Either may be a directory with a file for each part.
    """
    from hyperdpo.data_check import check_command

    check_command(**options)


@cli.command("demo")
@click.option("--align", is_flag=True, help="A language model instead of a ranker.")
@click.option(
    "--out", type=PATH, help="Directory for data, run, front and report.  [default: demo, with --align demo-align]"
)
@click.option("--queries", type=WHOLE, help="Size of the generated data.  [default: 600, with --align 480 prompts]")
@click.option("--seed", type=WholeRange(min=0), default=0, show_default=True, help="Seed of the data and the training.")
@settings_option("Any setting of the fit.")
def demo(align: bool, out: Path | None, queries: int | None, seed: int, overrides: dict[str, Any]) -> None:
    """Run all steps on generated data: data, base, fit, front, plots, report."""
    if align:
        require("align")
        from hyperdpo.stories.demo import run_align_demo

        directory = Path("demo-align") if out is None else out
        run_align_demo(directory, prompts=queries or 480, seed=seed, overrides=overrides)
        return
    from hyperdpo.demo import run_demo

    run_demo(out or Path("demo"), queries=queries or 600, seed=seed, overrides=overrides)


if __name__ == "__main__":
    sys.exit(main())
