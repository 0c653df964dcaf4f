"""How soon `hyperdpo explore` reacts to a slider, in a real browser; and the screenshots of its documentation.

python benchmarks/bench_explorer.py
python benchmarks/bench_explorer.py --pictures docs/images --model path/of/a/language/model

Measured is the time from a slider's input event in the browser to the changed list in its DOM, of a list of 200
documents: 50 moves by arrow keys, and drags, from the last event to the list at the final weights. The browser is
chromium, headless.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

#: Target: the list has changed within so many milliseconds.
TARGET_MS = 150
BROWSER = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
OBJECTIVES = "query_url_clicks,url_clicks"
DOCUMENTS = 200

#: From a slider's input to the next change of the list.
WATCH = """() => {
  window.times = []; window.since = 0; window.last = 0; window.changed = 0;
  new MutationObserver(() => {
    window.changed = performance.now();
    if (window.since) { window.times.push(window.changed - window.since); window.since = 0; }
  }).observe(document.querySelector('[data-part=list0]'), {childList: true, subtree: true, characterData: true});
  document.addEventListener('input', event => {
    if (event.target.type !== 'range') return;
    window.last = performance.now();
    if (!window.since) window.since = window.last;
  }, true);
}"""


def hyperdpo(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "hyperdpo", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def served(*arguments: object) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "hyperdpo", "explore", *map(str, arguments), "--port", str(port)]
    with subprocess.Popen([*command, "--no-browser", "--cpu"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Ctrl-C" in line:
                break
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def opened(browser: Any, url: str, width: int = 1280, height: int = 900) -> Any:
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
    page.goto(url)
    page.wait_for_selector("table.list tbody tr, [data-answer]")
    page.wait_for_selector(".plot .main-svg")
    return page


def choose_longest(page: Any) -> int:
    """Show a list of 200 documents; how many it has."""
    page.get_by_role("combobox", name="query").click()
    page.keyboard.type(f"{DOCUMENTS} documents")
    page.get_by_role("option").first.click()
    page.wait_for_function(f"document.querySelectorAll('[data-part=list0] tbody tr').length >= {DOCUMENTS}")
    time.sleep(0.5)
    return int(page.locator("[data-part=list0] tbody tr").count())


def measure(page: Any, moves: int, drags: int) -> tuple[np.ndarray, np.ndarray]:
    """Milliseconds of single moves, and from the end of drags."""
    page.evaluate(WATCH)
    slider = page.get_by_role("slider", name="weight of url_clicks", exact=True)
    slider.focus()
    for move in range(moves):
        page.keyboard.press("ArrowRight" if move % 20 < 10 else "ArrowLeft")
        time.sleep(0.35)
    single = np.array(page.evaluate("window.times"))
    box = slider.bounding_box()
    ends = []
    for drag in range(drags):
        start, stop = (0.2, 0.8) if drag % 2 == 0 else (0.8, 0.2)
        middle = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + start * box["width"], middle)
        page.mouse.down()
        for step in np.linspace(start, stop, 40):
            page.mouse.move(box["x"] + step * box["width"], middle)
            time.sleep(0.012)
        page.mouse.up()
        time.sleep(0.8)
        ends.append(page.evaluate("window.changed - window.last"))
    return single, np.array(ends)


def row(name: str, times: np.ndarray) -> None:
    median, late = np.quantile(times, [0.5, 0.95])
    print(
        f"| {name} | {len(times)} | {median:.0f} | {late:.0f} | {times.max():.0f} | {np.mean(times <= TARGET_MS):.0%} |"
    )


def make_run(place: Path, parametrization: str, queries: int, *settings: str) -> tuple[Path, Path]:
    data, run = place / "data.txt", place / parametrization
    if not data.exists():
        hyperdpo("data", "generate", data, "--queries", queries, "--seed", 5)
    fit = ["rank", "fit", data, "--out", run, "--preset", "mslr", "--objectives", OBJECTIVES, "--cpu"]
    hyperdpo(*fit, "--parametrization", parametrization, *settings)
    return run, data


def bench(browser: Any, place: Path, moves: int, drags: int) -> None:
    print("| | moves | median ms | 95% ms | most ms | within 150 ms |\n|---|---:|---:|---:|---:|---:|")
    for parametrization in ("mixture", "scratch"):
        settings = ("--set", "training.epochs=2", "--set", "base_training.epochs=2")
        run, data = make_run(place, parametrization, 300, *settings)
        with served(run, data, "--split", "all") as url:
            page = opened(browser, url)
            documents = choose_longest(page)
            single, ends = measure(page, moves, drags)
            row(f"{parametrization}, {documents} documents, arrow keys", single)
            row(f"{parametrization}, {documents} documents, end of a drag", ends)
            page.close()


def pictures(browser: Any, place: Path, out: Path, model: str) -> None:
    """The screenshots of docs/explorer.md, as PNG with a palette."""
    run, data = make_run(place, "mixture", 300)
    os.chdir(place)
    with served(run.name, data.name) as url:
        for name, width, height in (("explorer", 1280, 900), ("explorer-narrow", 390, 844)):
            page = opened(browser, url, width, height)
            page.get_by_role("spinbutton", name="weight of query_url_clicks, number").fill("0.3")
            page.keyboard.press("Tab")
            page.get_by_role("combobox", name="query").click()
            page.get_by_role("option").nth(3).click()
            time.sleep(2.5)
            save(page, out / f"{name}.png", full=width < 500)
    texts, aligned = place / "stories.jsonl", place / "stories"
    write_stories(model, texts)
    hyperdpo("align", "fit", texts, "--model", model, "--out", aligned, "--cpu", "--set", "training.learning_rate=1e-2")
    with served(aligned.name, texts.name) as url:
        page = opened(browser, url)
        page.get_by_role("button", name="3 answers").click()
        page.get_by_role("spinbutton", name="C: scale, number").fill("3")
        page.keyboard.press("Tab")
        page.get_by_role("textbox", name="prompt").fill("Once upon a time, there was a little girl. She")
        page.get_by_role("button", name="generate").click()
        time.sleep(8)
        save(page, out / "explorer-language.png", full=True)


def save(page: Any, path: Path, *, full: bool) -> None:
    from PIL import Image

    page.mouse.move(0, 0)
    page.screenshot(path=path, full_page=full)
    with Image.open(path) as image:
        smaller = image.convert("RGB").quantize(128)
    smaller.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def write_stories(model: str, path: Path) -> None:
    from hyperdpo.alignment.bases import load_base
    from hyperdpo.alignment.data.preferences import write_preferences
    from hyperdpo.alignment.trainer import tokenizer_of
    from hyperdpo.stories.preferences import sample_preferences

    found = sample_preferences(load_base(model), tokenizer_of(model), prompts=160, progress=False)
    write_preferences(found, path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--moves", type=int, default=50)
    parser.add_argument("--drags", type=int, default=10)
    parser.add_argument("--pictures", type=Path, help="Write the screenshots there instead.")
    parser.add_argument("--model", help="Of the language model's screenshot.")
    options = parser.parse_args()
    executable = shutil.which("chromium")
    if executable is None:
        print("no chromium on this machine: nothing measured")
        return
    from playwright.sync_api import sync_playwright

    out = None if options.pictures is None else options.pictures.resolve()
    model = None if options.model is None else str(Path(options.model).resolve())
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as directory:
        browser = playwright.chromium.launch(executable_path=executable, args=BROWSER)
        if out is None:
            bench(browser, Path(directory), options.moves, options.drags)
        else:
            if model is None:
                parser.error("--pictures needs --model")
            pictures(browser, Path(directory), out, model)
        browser.close()


if __name__ == "__main__":
    main()
