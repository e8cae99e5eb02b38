"""The pages in a real browser: drawn without a complaint, within the window, usable by keyboard.

Needs Chromium or Chrome; CHROMIUM may name its program.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gift.report.grid_page import write_grid_page
from gift.report.page import write_page
from tests.report.made_grid import every_cell, write

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'gift-diffusion[dev]'")

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DESKTOP, PHONE = (1280, 900), (390, 844)
ROWS = "document.querySelectorAll('.results tbody tr:not([hidden])').length"
OVERFLOW = "(document.documentElement.scrollWidth - window.innerWidth)"
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser of this machine; nothing is downloaded."""
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("no Chromium on this machine: install Debian's 'chromium', or set CHROMIUM to its program")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=program)
        yield running
        running.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Open]:
    """Opens a page, and in the end asks whether the console stayed empty and nothing but the file was asked for."""
    said: list[str] = []
    asked: list[str] = []
    contexts = []

    def start(path: Path, size: tuple[int, int] = DESKTOP, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        return page

    yield start
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def write_either(kind: str, request: pytest.FixtureRequest) -> Path:
    if kind == "grid":
        return write_grid_page(request.getfixturevalue("grid_folder"))
    return write_page(request.getfixturevalue("folder"))


def overflow(page: Any) -> int:
    """By how many pixels the page is wider than the window."""
    wide: int = page.evaluate(OVERFLOW)
    return wide


def until(page: Any, condition: str) -> None:
    """Waits for a condition. Playwright's own waiting evaluates text within the page, which the page's policy forbids."""
    for _ in range(100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"not within five seconds: {condition}")


def drawn(page: Any, chart: str) -> int:
    """How many lines and points a chart shows."""
    count: int = page.locator(f"#{chart} .scatterlayer .trace").count()
    return count


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("kind", ["demo", "grid"])
def test_a_page_is_drawn_within_the_window(
    kind: str, size: tuple[int, int], scheme: str, opened: Open, request: pytest.FixtureRequest
) -> None:
    page = opened(write_either(kind, request), size, color_scheme=scheme)
    charts = page.locator(".chart")
    assert charts.count() == (8 if kind == "grid" else 4)
    for i in range(charts.count()):
        chart = charts.nth(i)
        assert chart.locator(".scatterlayer .trace").count() > 0
        box = chart.locator(".main-svg").first.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= size[0]
    assert overflow(page) <= 0
    lightness = "(c => c.match(/\\d+/g).slice(0, 3).map(Number).reduce((a, b) => a + b) / 765)"
    paper, ink = (page.evaluate(f"{lightness}(getComputedStyle(document.body).{what})") for what in ("backgroundColor", "color"))
    tick = page.evaluate(f"{lightness}(getComputedStyle(document.querySelector('.xtick text')).fill)")
    if scheme == "dark":
        assert paper < 0.2
        assert min(ink, tick) > 0.5
    else:
        assert paper > 0.9
        assert max(ink, tick) < 0.5


def test_a_wide_table_scrolls_in_a_region_that_the_keyboard_reaches(grid_folder: Path, opened: Open) -> None:
    page = opened(write_grid_page(grid_folder), PHONE)
    region = page.get_by_role("region", name="Results, table")
    assert region.evaluate("e => e.scrollWidth > e.clientWidth")
    region.focus()
    page.keyboard.press("ArrowRight")
    until(page, "document.activeElement.scrollLeft > 0")
    assert overflow(page) <= 0


def test_the_filter_works_by_keyboard_on_table_charts_and_pictures(grid_folder: Path, opened: Open) -> None:
    page = opened(write_grid_page(grid_folder))
    count = page.get_by_role("status")
    assert count.inner_text() == "12 of 12 rows shown"
    lines, strips = drawn(page, "curve-0"), page.locator(".strip:visible").count()
    assert (lines, strips) == (11, 20), "five methods with bands, half of the original's score; two attacks on two concepts"

    for _ in range(40):  # from the top of the page to the first box
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name") == "method":
            break
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.value") == "esd"
    page.keyboard.press("Space")
    assert count.inner_text() == "10 of 12 rows shown"
    assert page.evaluate(ROWS) == 10
    assert page.locator(".results tr[data-method='esd']:visible").count() == 0
    assert drawn(page, "curve-0") == lines - 2
    assert page.locator(".strip:visible").count() == strips - 4
    assert page.locator(".legend li[data-method='esd']:visible").count() == 0

    page.get_by_role("checkbox", name="full").focus()
    page.keyboard.press("Space")
    assert count.inner_text() == "6 of 12 rows shown"
    assert not page.locator("#curve-1").is_visible()
    assert page.locator(".strip:visible").count() == 8

    page.get_by_label("Concept", exact=True).focus()
    page.keyboard.press("ArrowDown")
    assert page.get_by_label("Concept", exact=True).input_value() == "mushroom"
    assert count.inner_text() == "6 of 12 rows shown"
    assert page.locator(".results tr[data-scope='mushroom']:visible").count() == page.evaluate(ROWS) == 6
    assert page.locator(".strip:visible").count() == 4
    assert page.get_by_role("heading", name="style:noto").count() == 0

    page.get_by_role("button", name="Show everything").focus()
    page.keyboard.press("Enter")
    until(page, f"{ROWS} === 12")
    assert count.inner_text() == "12 of 12 rows shown"
    assert page.locator("#curve-1").is_visible()
    assert drawn(page, "curve-0") == lines


def ranked(page: Any) -> list[str]:
    """What the rankings that are shown list, as model/method/concept."""
    names: list[str] = page.eval_on_selector_all(
        "tr[data-rank]", "rows => rows.filter(row => row.checkVisibility()).map(row => row.dataset.rank)"
    )
    return names


def test_the_ranking_is_that_of_the_chosen_concept(grid_folder: Path, opened: Open) -> None:
    rows = every_cell()
    for row in rows:
        if row["method"] == "esd+gift" and row["concept"] == "mushroom" and row["status"] == "ok":
            row["price"]["safe_accuracy"] = 0.3
    write(grid_folder, rows)
    page = opened(write_grid_page(grid_folder))
    order = ["esd+imma", "esd", "none", "esd+gift", "ascent"]
    assert ranked(page) == [f"tiny/{method}/" for method in order], "(0.3 + 0.86) / 2 is less than 75 % of 0.92"
    page.get_by_label("Concept", exact=True).select_option("mushroom")
    assert ranked(page) == [f"tiny/{method}/mushroom" for method in order]
    assert page.get_by_text("damaged: safe accuracy 0.30 of 0.92").locator("visible=true").count() == 1
    page.get_by_label("Concept", exact=True).select_option("style:noto")
    assert ranked(page) == [f"tiny/{method}/style:noto" for method in ("esd+gift", "esd+imma", "esd", "none", "ascent")]
    page.get_by_role("checkbox", name="esd+gift").uncheck()
    assert len(ranked(page)) == 5, "methods are ranked among all"
    page.get_by_role("button", name="Show everything").click()
    until(page, "document.querySelector('[data-rank=\"tiny/esd/\"]').checkVisibility()")
    assert ranked(page) == [f"tiny/{method}/" for method in order]
    assert overflow(page) <= 0


def test_nothing_chosen_is_said(grid_folder: Path, opened: Open) -> None:
    page = opened(write_grid_page(grid_folder))
    for box in page.get_by_role("checkbox").all()[:5]:
        box.uncheck()
    assert page.get_by_role("status").inner_text() == "0 of 12 rows shown"
    assert page.locator(".strip:visible").count() == 0


def test_a_chart_that_was_filtered_out_while_the_window_shrank_fits_again(grid_folder: Path, opened: Open) -> None:
    page = opened(write_grid_page(grid_folder))
    page.get_by_role("checkbox", name="lora").uncheck()
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    page.get_by_role("checkbox", name="lora").check()
    fits = "document.querySelector('#curve-0 .main-svg').getBoundingClientRect().right <= window.innerWidth"
    until(page, f"{fits} && {OVERFLOW} <= 0")  # the others follow the window a moment later


def test_without_scripts_everything_is_shown(grid_folder: Path, opened: Open) -> None:
    page = opened(write_grid_page(grid_folder), java_script_enabled=False)
    assert not page.locator("#filter").is_visible()
    assert page.locator(".results tbody tr:visible").count() == 36
    assert page.locator(".strip img:visible").count() == 20
    assert len(ranked(page)) == 15


@pytest.mark.parametrize(
    "evil", ["<img src=x onerror=console.log(1)>", '"></option><script>console.log(1)</script>', "a'b%{x}&amp;"]
)
def test_names_that_look_like_markup_are_shown_and_filtered_as_text(grid_folder: Path, opened: Open, evil: str) -> None:
    names = {"esd+gift": evil, "lora": evil, "mushroom": evil}
    rows = [{**row, **{key: names.get(row[key], row[key]) for key in ("method", "attack", "concept")}} for row in every_cell()]
    write(grid_folder, rows, sheets=False)
    page = opened(write_grid_page(grid_folder))
    page.locator("#curve-0 .point").last.hover(force=True)
    page.get_by_role("checkbox", name=evil).first.uncheck()
    page.get_by_label("Concept", exact=True).select_option(evil)
    assert page.locator("#shown").inner_text() == "9 of 12 rows shown"
    assert page.locator("img").count() == 0


def test_print_holds_the_table_and_not_the_controls(grid_folder: Path, opened: Open) -> None:
    page = opened(write_grid_page(grid_folder), (720, 1000))
    page.emulate_media(media="print")
    assert overflow(page) <= 0
    assert not page.get_by_role("checkbox").first.is_visible()
    assert page.locator("#shown").is_visible()
    assert len(page.pdf(format="A4")) > 10_000
