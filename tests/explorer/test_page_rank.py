"""The page of a ranker in a real browser: what the visitor moves, and what the page then says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import CLICKS
from pages import Looked, looking, served, wait_until

from hyperdpo.core.preferences import weight_grid
from hyperdpo.data.cache import read_table
from hyperdpo.data.splits import Part
from hyperdpo.ranking.explain import explain
from hyperdpo.ranking.run import RankRun

TRACE = "document.querySelector('.plot').data"


@pytest.fixture
def rank_page(browser: Any, rank_url: str) -> Iterator[Looked]:
    with looking(browser, rank_url) as looked:
        looked.open("table.list")
        yield looked
        assert looked.errors == []
        assert looked.strangers == []


@pytest.fixture(scope="module")
def kept(browser: Any, rank_url: str) -> Iterator[Looked]:
    with looking(browser, rank_url) as looked:
        looked.open("table.list")
        yield looked


@pytest.fixture
def shared_page(kept: Looked) -> Iterator[Looked]:
    """One page for tests that do not mind what it shows before them."""
    yield kept
    assert kept.errors == []
    assert kept.strangers == []


@pytest.fixture(scope="module")
def offline(product_run: Path, generated: tuple[Path, Path]) -> tuple[RankRun, Part]:
    run = RankRun.load(product_run)
    return run, run.part(read_table(generated[0]), "validation")[1]


def number(page: Any, name: str) -> Any:
    return page.get_by_role("spinbutton", name=f"{name}, number")


def shown_list(page: Any, place: int = 0) -> list[list[str]]:
    script = "rows => rows.map(row => [...row.cells].map(cell => cell.innerText.trim()))"
    return page.locator(f"[data-part=list{place}] tbody tr").evaluate_all(script)


def order(page: Any, place: int = 0) -> list[int]:
    return [int(row[2]) for row in shown_list(page, place)]


def expected(offline: tuple[RankRun, Part], group: int, weights: Any, scale: float = 1.0, **more: Any) -> Any:
    """Rows from 1 by falling score, and the scores."""
    run, part = offline
    one = Part(part.table, part.groups[[group]])
    scores = run.score(one, weights, scale, **more)
    ranked = np.argsort(-scores, kind="stable")
    return (one.rows()[ranked] + 1).tolist(), scores[ranked]


def metric(page: Any, name: str) -> list[str]:
    script = "row => [...row.cells].map(cell => cell.innerText.trim())"
    return page.locator(f'[data-metric="{name}"]').first.evaluate(script)[1:]


def snippet(page: Any, name: str) -> str:
    return page.locator(f'[data-snippet="{name}"]').first.inner_text()


def current(page: Any) -> tuple[float, float]:
    """Where the point is in the figure."""
    found = page.evaluate(f"(t => [t.x[0], t.y[0]])({TRACE}.find(t => t.name == 'now') || {{x: [NaN], y: [NaN]}})")
    return tuple(np.nan if v is None else float(v) for v in found)


def slide(page: Any, name: str, value: float) -> None:
    """Drag a slider there, in a few steps."""
    slider = page.get_by_role("slider", name=name, exact=True)
    box = slider.bounding_box()
    low, high = (float(slider.get_attribute(end)) for end in ("min", "max"))
    at = float(slider.input_value())
    thumb = 16  # the thumb's middle moves between its half widths

    def x(v: float) -> float:
        return box["x"] + thumb / 2 + (v - low) / (high - low) * (box["width"] - thumb)

    middle = box["y"] + box["height"] / 2
    page.mouse.move(x(at), middle)
    page.mouse.down()
    page.mouse.move(x(value), middle, steps=8)
    page.mouse.up()


def test_a_dragged_slider_moves_the_list_and_the_point(rank_page, offline):
    page = rank_page.page
    run, part = offline
    wait_until(lambda: order(page) == expected(offline, 0, [0.5, 0.5])[0], "the list at equal weights")
    before = current(page)
    slide(page, f"weight of {CLICKS[0]}", 0.8)
    wait_until(lambda: float(number(page, f"weight of {CLICKS[0]}").input_value()) > 0.7, "the box follows the slider")

    def settled() -> bool:
        weights = list(json.loads(snippet(page, "JSON"))["weights"].values())
        boxes = [float(number(page, f"weight of {name}").input_value()) for name in CLICKS]
        return boxes == weights and order(page) == expected(offline, 0, weights)[0]

    wait_until(settled, "the list at the slider's weights")
    weights = list(json.loads(snippet(page, "JSON"))["weights"].values())
    assert sum(weights) == pytest.approx(1, abs=1e-12)
    _, scores = expected(offline, 0, weights)
    assert [float(row[-1]) for row in shown_list(page)] == pytest.approx(scores, abs=6e-5)
    front = run.front(run.examples(part), weights, [1.0])
    wait_until(lambda: current(page) == pytest.approx(front.metrics[0], abs=1e-6), "the point in the figure")
    assert current(page) != before
    assert float(metric(page, CLICKS[1])[2]) == pytest.approx(front.metrics[0, 1], abs=6e-5)
    assert float(metric(page, "main")[2]) == pytest.approx(front.main[0], abs=6e-5)


def test_keys_move_a_slider_that_has_a_name(shared_page):
    page = shared_page.page
    number(page, f"weight of {CLICKS[1]}").fill("0.5")
    slider = page.get_by_role("slider", name=f"weight of {CLICKS[1]}", exact=True)
    slider.focus()
    wait_until(lambda: slider.input_value() == "0.5", "the slider at what was typed")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    wait_until(lambda: number(page, f"weight of {CLICKS[1]}").input_value() == "0.54", "the box after four keys")
    assert number(page, f"weight of {CLICKS[0]}").input_value() == "0.46"
    page.wait_for_timeout(600)  # the answers must not pull the slider back
    assert slider.input_value() == "0.54"
    assert slider.get_attribute("aria-valuetext") == "0.54"


def test_numbers_can_be_typed_for_weights_scale_and_temperatures(rank_page, offline):
    page = rank_page.page
    number(page, f"weight of {CLICKS[0]}").fill("0.2")
    number(page, "scale").fill("2.5")
    page.get_by_text("temperatures β").click()
    number(page, f"temperature of {CLICKS[1]}").fill("1.7")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    rows, scores = expected(offline, 0, [0.2, 0.8], 2.5, temperatures=[1.0, 1.7])
    wait_until(lambda: order(page) == rows, "the list at what was typed")
    assert [float(row[-1]) for row in shown_list(page)] == pytest.approx(scores, abs=6e-5)
    told = json.loads(snippet(page, "JSON"))
    assert (told["scale"], list(told["temperatures"].values())) == (2.5, [1.0, 1.7])
    run, part = offline
    grid = weight_grid(2, 21)
    whole = run.front(run.examples(part), grid, [1.0], temperatures=[1.0, 1.7])
    drawn = f"{TRACE}[0].x"
    wait_until(
        lambda: page.evaluate(drawn) == pytest.approx(whole.metrics[:, 0], abs=1e-6), "the front at other temperatures"
    )


def test_the_main_share_moves_the_list_the_point_the_front_and_what_is_copied(browser, fitted, generated):
    run = RankRun.load(fitted)
    part = run.part(read_table(generated[0]), "validation")[1]
    own = run.ranker.main_share
    with served(fitted, generated[0]) as url, looking(browser, url) as looked:
        looked.open("table.list")
        page = looked.page
        assert not page.get_by_text("temperatures β").count()
        assert float(number(page, "main share").input_value()) == own
        assert json.loads(snippet(page, "JSON"))["main_share"] == own
        slide(page, "main share", 0.8)
        wait_until(lambda: float(number(page, "main share").input_value()) > 0.7, "the box follows the slider")

        def settled() -> bool:
            share = json.loads(snippet(page, "JSON"))["main_share"]
            wanted = expected((run, part), 0, [0.5, 0.5], main_share=share)[0]
            return float(number(page, "main share").input_value()) == share and order(page) == wanted

        wait_until(settled, "the list at the slider's share")
        share = json.loads(snippet(page, "JSON"))["main_share"]
        assert f"--main-share {share:g}" in snippet(page, "Command line")
        assert f"main_share={share:g}" in snippet(page, "Python")
        whole = run.front(run.examples(part), weight_grid(2, 21), [1.0], main_share=share)
        wait_until(lambda: current(page) == pytest.approx(whole.metrics[10], abs=1e-6), "the point in the figure")
        drawn = f"{TRACE}[0].x"
        wait_until(lambda: page.evaluate(drawn) == pytest.approx(whole.metrics[:, 0], abs=1e-6), "the front there")
        assert looked.errors == []


def test_a_ranker_without_a_share_has_no_slider_for_it(shared_page):
    assert shared_page.page.get_by_role("slider", name="main share").count() == 0
    assert "main_share" not in json.loads(snippet(shared_page.page, "JSON"))


def test_what_cannot_be_is_put_right(shared_page):
    page = shared_page.page
    number(page, "scale").fill("1000")
    page.keyboard.press("Tab")
    wait_until(lambda: json.loads(snippet(page, "JSON"))["scale"] == 16, "the scale's end")
    number(page, f"weight of {CLICKS[0]}").fill("")
    page.keyboard.press("Tab")
    number(page, f"weight of {CLICKS[1]}").fill("7")
    page.keyboard.press("Tab")
    wait_until(
        lambda: list(json.loads(snippet(page, "JSON"))["weights"].values()) == [0, 1], "the weight's end, sum one"
    )


def test_a_query_is_chosen_and_moves_are_against_what_is_pinned(rank_page, offline):
    page = rank_page.page
    _, part = offline
    wait_until(lambda: len(order(page)) == part.sizes[0], "the first list")
    page.get_by_role("combobox", name="query").click()
    page.keyboard.type(str(part.table.qids[part.groups[3]]))
    page.get_by_role("option").first.click()
    wait_until(lambda: order(page) == expected(offline, 3, [0.5, 0.5])[0], "another list")
    assert any(row[1] for row in shown_list(page))  # it has moved since the base
    page.get_by_role("button", name="pin this point").click()
    wait_until(lambda: not any(row[1] for row in shown_list(page)), "nothing has moved since the pinned point")
    number(page, f"weight of {CLICKS[0]}").fill("1")
    page.keyboard.press("Tab")
    pinned = expected(offline, 3, [0.5, 0.5])[0]
    now = expected(offline, 3, [1, 0])[0]
    wait_until(lambda: order(page) == now, "the list at a vertex")
    for row in shown_list(page):
        moved = pinned.index(int(row[2])) - (int(row[0]) - 1)
        assert row[1] == ("" if not moved else f"{'▲' if moved > 0 else '▼'} {abs(moved)}")
    page.get_by_role("button", name="compare with base").click()
    wait_until(lambda: "base" in page.locator("table.metrics thead").inner_text(), "the base is what is compared with")


def test_a_click_on_the_front_goes_there(shared_page):
    page = shared_page.page
    where = page.evaluate(
        "(() => { const plot = document.querySelector('.plot'), a = plot._fullLayout;"
        "const b = plot.getBoundingClientRect();"
        f"return [b.x + a.xaxis._offset + a.xaxis.d2p({TRACE}[0].x[4]),"
        f" b.y + a.yaxis._offset + a.yaxis.d2p({TRACE}[0].y[4])]; }})()"
    )
    page.mouse.move(*where)
    page.wait_for_timeout(150)
    page.mouse.click(*where)
    wait_until(
        lambda: list(json.loads(snippet(page, "JSON"))["weights"].values()) == [0.8, 0.2], "the weights of the point"
    )


def test_a_button_copies_what_is_shown(shared_page):
    page = shared_page.page
    page.get_by_role("button", name="copy as Command line").click()
    text = snippet(page, "Command line")
    assert text.startswith("hyperdpo rank score ")
    wait_until(lambda: page.evaluate("navigator.clipboard.readText()") == text, "the text in the clipboard")
    page.get_by_text("copied as Command line").wait_for()


def test_axes_can_be_chosen(shared_page):
    page = shared_page.page
    page.get_by_role("combobox", name="vertical axis").click()
    page.get_by_role("option", name="main").click()
    title = "document.querySelector('.plot').layout.yaxis.title.text"
    wait_until(lambda: page.evaluate(title) == "main (higher is better)", "main on the axis")


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_the_page_is_never_wider_than_the_screen(browser, rank_url, width, height):
    with looking(browser, rank_url, width, height) as looked:
        looked.open("table.list")
        page = looked.page
        wait_until(lambda: order(page), "a list")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        edges = page.evaluate("[...document.querySelectorAll('.card')].map(c => c.getBoundingClientRect().right)")
        assert max(edges) <= width
        tops = page.evaluate(
            "['controls', 'front', 'list'].map(a => document.querySelector('.area-' + a).getBoundingClientRect().top)"
        )
        assert tops[0] < tops[1]
        assert (tops[2] > tops[1]) == (width < 860)  # controls first, the list under the front
        assert looked.errors == []
        assert looked.strangers == []


def test_the_page_follows_the_systems_colours(browser, rank_url):
    with looking(browser, rank_url) as looked:
        looked.page.emulate_media(color_scheme="dark")
        looked.open("table.list")
        dark = looked.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert max(int(v) for v in dark.strip("rgba()").split(",")[:3]) < 60


def test_two_runs_are_compared(browser, compared_url, offline, scratch_run, product_run):
    run, part = offline
    other = RankRun.load(scratch_run)
    with looking(browser, compared_url) as looked:
        looked.open("table.list")
        page = looked.page
        assert page.evaluate(f"{TRACE}.slice(0, 2).map(t => t.name)") == [str(product_run), str(scratch_run)]
        front = other.front(other.examples(part), weight_grid(2, 21), [1.0], metric=run.config.metric)
        assert page.evaluate(f"{TRACE}[1].x") == pytest.approx(front.metrics[:, 0], abs=1e-5)
        page.get_by_role("combobox", name="list of").click()
        page.get_by_role("option", name="both").click()
        wait_until(lambda: len(order(page, 1)) == part.sizes[0], "both lists")
        assert order(page, 0) == expected((run, part), 0, [0.5, 0.5])[0]
        assert order(page, 1) == expected((other, part), 0, [0.5, 0.5])[0]
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
        page.get_by_role("combobox", name="list of").click()
        page.get_by_role("option", name=str(scratch_run)).click()
        wait_until(lambda: not page.locator("[data-part=list0]").is_visible(), "the second run's list only")
        assert looked.errors == []
        assert looked.strangers == []


def test_a_clicked_document_says_why_it_is_there(rank_page, offline):
    page = rank_page.page
    run, part = offline
    one = Part(part.table, part.groups[[0]])
    wait_until(lambda: len(order(page)) == part.sizes[0], "the first list")
    chosen = order(page)[2]
    page.locator(f'[data-part=list0] tr[data-row="{chosen}"]').click()
    why = page.locator("table.why")
    for weights in ([0.5, 0.5], [0.9, 0.1]):
        number(page, f"weight of {CLICKS[0]}").fill(str(weights[0]))
        page.keyboard.press("Tab")
        found = explain(run, one, weights)
        place = found.rows.tolist().index(chosen - 1)
        text = f"row {chosen} at place {place + 1}"
        wait_until(lambda text=text: why.count() and text in why.inner_text(), f"the explanation at {weights}")
        parts = [f"{part:.0%}" for part in found.parts[place]]
        shown = page.locator("tr[data-why=sum] td.n").all_inner_texts
        wait_until(lambda shown=shown, parts=parts: shown() == parts, f"the parts at {weights}")
    page.locator("[data-part=list0] tr[data-row]").first.focus()
    page.keyboard.press("Enter")
    wait_until(lambda: "at place 1" in why.inner_text(), "the first document, by the keyboard")
