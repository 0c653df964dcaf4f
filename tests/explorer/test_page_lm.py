"""The page of a language model in a real browser: answers side by side, as they are written."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from pages import looking, wait_until

from hyperdpo.alignment.data.preferences import read_preferences
from hyperdpo.alignment.run import AlignRun

PROMPT = "w5 w7 w9"


def answer(page: Any, name: str) -> str:
    return page.locator(f'[data-answer="{name}"]').inner_text()


def test_answers_of_two_runs_stream_side_by_side_and_equal_those_offline(
    browser, language_url, language, other_language
):
    run, other = AlignRun.load(language[0]), AlignRun.load(other_language)
    with looking(browser, language_url) as looked:
        looked.open("[data-answer]")
        page = looked.page
        page.evaluate(
            """() => { window.seen = {A: [], B: [], C: []};
            for (const name of 'ABC') {
                const place = document.querySelector(`[data-answer="${name}"]`);
                new MutationObserver(() => window.seen[name].push(place.innerText)).observe(
                    place, {childList: true, subtree: true, characterData: true});
            } }"""
        )
        page.get_by_role("button", name="3 answers").click()
        page.get_by_role("textbox", name="prompt").fill(PROMPT)
        page.get_by_role("spinbutton", name="tokens").fill("40")
        for name, weight, scale in (("B", "0.4", "1"), ("C", "0.25", "2")):
            page.get_by_role("spinbutton", name=f"{name}: weight of low, number").fill(weight)
            page.get_by_role("spinbutton", name=f"{name}: scale, number").fill(scale)
        page.keyboard.press("Tab")
        page.get_by_role("button", name="generate").click()
        wait_until(lambda: page.locator("[data-status=answers]").inner_text() == "done", "all answers")
        # A and C are of the first run, in one batch; B is of the second.
        settings = {"max_new_tokens": 40, "do_sample": False}
        weights = np.array([[1.0, 0.0], [0.25, 0.75]])
        first, third = run.generate([PROMPT] * 2, weights, [1.0, 2.0], **settings)
        (second,) = other.generate([PROMPT], np.array([0.4, 0.6]), **settings)
        expected = [text.strip() for text in (first, second, third)]
        assert [answer(page, name) for name in "ABC"] == expected
        assert len(set(expected)) == 3
        seen = page.evaluate("window.seen")
        for name, text in zip("ABC", expected, strict=True):
            written = [part for part in seen[name] if part and part != text]
            assert written, f"{name} came at once"
            assert all(text.startswith(part) for part in written)

        told = json.loads(page.locator('[data-snippet="JSON"]').nth(2).text_content())
        assert (told["weights"], told["scale"]) == ({"low": 0.25, "high": 0.75}, 2)

        preferences = read_preferences(language[1], objectives=run.names)
        front = run.front(preferences, weights, (1.0, 2.0))
        at = [front.losses[0], other.front(preferences, np.array([0.4, 0.6])).losses[0], front.losses[3]]
        marks = "document.querySelector('.plot').data.filter(t => t.name.startsWith('now')).map(t => [t.x[0], t.y[0]])"

        def there() -> bool:
            found = page.evaluate(marks)
            return len(found) == 3 and np.allclose(np.array(found, float), at, atol=1e-6)

        wait_until(there, "all points in the figure")
        assert looked.errors == []
        assert looked.strangers == []


def test_a_third_answer_and_the_examples(browser, language_url):
    with looking(browser, language_url, 390, 844) as looked:
        looked.open("[data-answer]")
        page = looked.page
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert not page.locator('[data-answer="C"]').is_visible()
        page.get_by_role("button", name="3 answers").click()
        wait_until(lambda: page.locator('[data-answer="C"]').is_visible(), "a third column")
        page.get_by_role("combobox", name="examples").click()
        chosen = page.get_by_role("option").nth(2)
        text = chosen.inner_text()
        chosen.click()
        wait_until(lambda: page.get_by_role("textbox", name="prompt").input_value() == text, "the example as prompt")
        page.get_by_role("textbox", name="prompt").fill(" ")
        page.get_by_role("button", name="generate").click()
        status = page.locator("[data-status=answers]")
        wait_until(lambda: "empty" in status.inner_text(), "one line about an empty prompt")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert looked.errors == []
        assert looked.strangers == []
