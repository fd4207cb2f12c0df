"""The page in a real browser: paths by click and by key, hostile code, no other host, an absent database.

Needs Chromium (Debian: chromium). Without one these are skipped; PGEMBED_TEST_BROWSER=required makes that a failure.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import psycopg
import pytest
from fixtures_serving import MARKUP, Running, Served, wait_until
from playwright.sync_api import Browser, Dialog, Page, Route, expect, sync_playwright

from pgembed.db.embedded import EmbeddedServer
from pgembed.db.sql import query

expect.set_options(timeout=30_000)  # a busy machine is slow, and what is never there costs time in a failure alone

Start = Callable[..., AbstractContextManager[Running]]
_ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip


@pytest.fixture(scope="module")  # while it runs, no other event loop can in this thread
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        if os.environ.get("PGEMBED_TEST_BROWSER") == "required":
            pytest.fail("PGEMBED_TEST_BROWSER=required, and there is no chromium on PATH (apt-get install chromium)")
        pytest.skip("no chromium on PATH (apt-get install chromium)")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=_ARGUMENTS)
        yield launched
        launched.close()


class Watched:
    """A page, and what must not happen on it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.elsewhere: list[str] = []
        self.dialogs: list[str] = []
        self.errors: list[str] = []
        page.route("**/*", self._route)
        page.on("dialog", self._dialog)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self.errors.append(said.text) if "Content Security" in said.text else None)

    def _route(self, route: Route) -> None:
        if not route.request.url.startswith((self.url, "data:")):
            self.elsewhere.append(route.request.url)
            route.abort()
        else:
            route.continue_()

    def _dialog(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def open(self, view: str) -> Page:
        self.page.goto(f"{self.url}/#/{view}")
        self.wait()
        return self.page

    def wait(self) -> None:
        """Until the page shows what its address names, and not what it showed before."""
        main = self.page.locator("#main")
        expect(main).to_have_attribute("data-shown", self.page.evaluate("location.hash"))
        expect(main).not_to_have_attribute("aria-busy", "true")

    def check(self) -> None:
        assert self.elsewhere == []
        assert self.dialogs == []
        assert self.errors == []
        assert self.page.evaluate("window.pwned") is None


@pytest.fixture
def watched(browser: Browser, running: Running) -> Iterator[Watched]:
    """A page of the server on `served`; in the end nothing has happened that must not."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    context.set_default_timeout(30_000)
    found = Watched(context.new_page(), running.url)
    yield found
    found.check()
    context.close()


def test_a_query_by_hand_finds_code_with_its_place_and_lines(watched: Watched) -> None:
    page = watched.open("search")
    page.get_by_role("searchbox").fill("waa wbb")
    page.get_by_role("button", name="Search", exact=True).click()
    hits = page.locator(".hit")
    expect(hits).to_have_count(10)
    expect(hits.first.locator(".place")).to_have_text(re.compile(r"^dir\d/file\d+\.py:\d+-\d+$"))
    expect(hits.first.locator(".tk-k").first).to_have_text("def")
    line = int(re.findall(r":(\d+)-", hits.first.locator(".place").inner_text())[0])
    expect(hits.first.locator(".row").first).to_have_attribute("data-line", str(line))
    page.get_by_label("Language").select_option("go")
    expect(page.locator(".hit .about").first).to_contain_text("· go ·")
    page.go_back()
    expect(page.locator(".hit .about").first).to_contain_text("· python ·")


def test_a_line_of_a_file_finds_what_is_like_it(watched: Watched) -> None:
    page = watched.open("search?q=waa")
    first = page.locator(".hit .head").first
    place, symbol = first.locator(".place").inner_text(), first.locator(".symbol").inner_text()
    searchbox = page.get_by_role("searchbox")
    searchbox.fill(place.rsplit("-", 1)[0])
    searchbox.press("Enter")
    expect(page.locator(".summary a")).to_have_text(f"{symbol} {place}")
    expect(page.locator(".hit")).to_have_count(10)
    assert place not in page.locator(".hit .place").all_inner_texts()
    page.locator(".hit button").first.click()
    expect(page.locator(".hit .panel h3").first).to_have_text("Near in meaning")
    searchbox.fill("nowhere.py:3")
    searchbox.press("Enter")
    expect(page.get_by_text("No chunk stands at nowhere.py:3.")).to_be_visible()


def test_by_keys_alone(watched: Watched) -> None:
    page = watched.open("search?q=waa+wbb")
    expect(page.locator(".hit")).to_have_count(10)
    page.keyboard.press("/")
    query = page.get_by_role("searchbox")
    expect(query).to_be_focused()
    page.keyboard.type("wcc wdd")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"q=wcc\+wdd"))
    watched.wait()
    hits = page.locator(".hit")
    expect(hits).to_have_count(10)
    page.keyboard.press("j")
    expect(hits.nth(0)).to_be_focused()
    page.keyboard.press("j")
    page.keyboard.press("ArrowDown")
    expect(hits.nth(2)).to_be_focused()
    page.keyboard.press("k")
    expect(hits.nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    panel = hits.nth(1).locator(".panel")
    expect(panel.get_by_role("heading", name="Near in meaning")).to_be_visible()
    expect(panel.get_by_role("heading", name=re.compile(r"^Why 0\.\d+"))).to_be_visible()
    expect(hits.nth(1).get_by_role("button", expanded=True)).to_be_visible()
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    expect(hits.nth(1)).to_be_focused()
    page.keyboard.press("k")
    page.keyboard.press("k")
    expect(page.get_by_role("searchbox")).to_be_focused()


def test_a_neighbour_is_a_page_of_its_own(watched: Watched) -> None:
    page = watched.open("search?q=waa")
    page.locator(".hit button").first.click()
    link = page.locator(".hit .near a").first
    name = link.locator("b").inner_text()
    link.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(name)
    expect(page).to_have_url(re.compile(r"#/chunk/\d+$"))
    page.get_by_role("button", name="Back").click()
    expect(page.locator(".hit")).to_have_count(10)


def test_landmarks_and_labels(watched: Watched) -> None:
    page = watched.open("search?q=waa")
    for role in ("banner", "navigation", "main", "search", "contentinfo"):
        expect(page.get_by_role(role)).to_have_count(1)  # type: ignore[arg-type]
    expect(page.locator("nav a[aria-current]")).to_have_text("Search")
    for view in ("search?q=waa", "compare?q=waa", "triplets", "training", "index"):
        watched.open(view)
        expect(page.locator(".hit, table, figure").first).to_be_visible()
        unnamed = page.evaluate(
            """[...document.querySelectorAll("input, select, button, svg[role=img], [role=region]")].filter((element) =>
                 !element.labels?.length && !element.ariaLabel && !element.textContent.trim()).length"""
        )
        assert unnamed == 0, view
    # the first stop of the keyboard leads past the navigation
    page.goto("about:blank")
    watched.open("index")
    expect(page.get_by_role("heading", name="Generations")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.locator(".skip").first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()


def test_two_generations_side_by_side(watched: Watched, served: Served) -> None:
    page = watched.open("compare")
    page.get_by_role("searchbox").fill("waa wbb")
    page.get_by_role("button", name="Compare").click()
    columns = page.locator(".columns > section")
    expect(columns).to_have_count(2)
    for column, generation in zip(columns.all(), served.generations, strict=True):
        expect(column.get_by_role("heading")).to_contain_text(f"Generation {generation}")
        expect(column.locator(".hit")).to_have_count(10)
        expect(column.locator(".hit .move")).to_have_count(10)


def test_a_triplet_is_marked_and_the_mark_taken_back(watched: Watched, served: Served) -> None:
    page = watched.open("triplets")
    page.get_by_label("Kind").select_option("docstring")
    expect(page).to_have_url(re.compile("kind=docstring"))
    watched.wait()
    first = page.locator(".hit").first
    ordinal = int(first.locator(".rank").inner_text().replace(",", ""))
    first.get_by_text("Why it is here").click()
    expect(first.locator(".reason")).to_contain_text("the docstring finds the body it was written for")
    first.get_by_role("button", name="Mark as bad").click()
    expect(first.get_by_label("Why is it bad?")).to_be_focused()
    page.keyboard.type("both are right")
    page.keyboard.press("Enter")
    expect(first.get_by_text("Left out: both are right")).to_be_visible()

    def there() -> int:
        with psycopg.connect(served.url) as conn:
            row = conn.execute("SELECT count(*) FROM pgembed.triplets WHERE ordinal = %s", (ordinal,)).fetchone()
            assert row is not None
            return int(row[0])

    assert there() == 0
    page.get_by_label("Show").select_option("true")
    watched.wait()
    marked = page.locator(".hit")
    expect(marked).to_have_count(1)
    marked.get_by_role("button", name="Undo").click()
    expect(marked.get_by_role("button", name="Mark as bad")).to_be_visible()
    assert there() == 1


def test_curves_recall_and_evaluations(watched: Watched) -> None:
    page = watched.open("training")
    expect(page.get_by_role("img", name=re.compile(r"^Loss: from step 3"))).to_be_visible()
    page.get_by_role("img", name=re.compile("^Loss")).hover()
    expect(page.locator("figure").first.locator("output")).to_have_text(re.compile(r"step 1,?\d+: 0\.000|step \d+"))
    page.get_by_role("link", name="Index").click()
    expect(page.get_by_role("region", name="Generations").locator("tbody tr")).to_have_count(2)
    expect(page.get_by_role("region", name=re.compile("^held-out"))).to_contain_text("0.700 [0.600, 0.800]")


def test_what_waits_and_who_is_at_work(watched: Watched, running: Running, served: Served) -> None:
    with (
        psycopg.connect(served.url, autocommit=True, application_name="pgembed pairs") as conn,
        running.client() as client,
    ):
        conn.execute(query("pairs_try_lock"))
        conn.execute("INSERT INTO pgembed.pair_queue (chunk_id) VALUES (%s)", (served.hostile,))
        wait_until(lambda: len(client.get("/api/status").json()["leases"]) == 1)
        page = watched.open("index")
        expect(page.get_by_role("list", name="What waits")).to_have_text(
            "1 piece of code waits to be compared: at work"
        )
        expect(page.get_by_role("region", name="At work").locator("tbody tr")).to_contain_text("pgembed pairs")
        conn.execute(query("pairs_unlock"))
        wait_until(lambda: not client.get("/api/status").json()["leases"])
        watched.open("search")
        watched.page.reload()
        watched.open("index")
        expect(page.get_by_role("list", name="What waits").locator("code")).to_have_text("pgembed pairs")
        expect(page.get_by_role("region", name="At work")).to_have_count(0)
        conn.execute("DELETE FROM pgembed.pair_queue")


def test_hostile_code_is_shown_and_does_nothing(watched: Watched, served: Served) -> None:
    page = watched.open("search?q=hostile+escape+admin&mode=lexical")
    hit = page.locator(f'.hit[data-chunk="{served.hostile}"]')
    expect(hit.locator(".symbol")).to_have_text(MARKUP)
    expect(hit.locator(".place")).to_contain_text("U+202E")
    code = hit.locator(".code")
    for shown in ("U+001B", "U+202E", "U+2066", "U+2069", "U+200B"):
        expect(code.locator(".hidden-char").filter(has_text=shown).first).to_be_visible()
    expect(code.locator(".cut")).to_contain_text("more characters")
    expect(code.locator(".row").first).to_contain_text(MARKUP)
    assert page.evaluate("document.querySelectorAll('main img, main script').length") == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    hit.locator("button").first.click()
    expect(hit.get_by_role("heading", name="Near in meaning")).to_be_visible()
    watched.open(f"chunk/{served.hostile}")
    expect(page.get_by_role("heading", level=1)).to_have_text(MARKUP)
    watched.open("search?" + "q=%3Cimg+src%3Dx+onerror%3Dwindow.pwned%3D1%3E")
    expect(page.locator(".hit").first).to_be_visible()


def test_ten_thousand_hits_are_shown_in_parts(watched: Watched) -> None:
    page = watched.open("search?q=waa&k=10000")
    expect(page.locator(".notice").first).to_contain_text("10,000 hits were asked for")
    expect(page.locator(".hit")).to_have_count(25)
    page.get_by_role("button", name=re.compile("^Show 25 more of")).click()
    expect(page.locator(".hit")).to_have_count(50)


def test_the_api_page_needs_no_other_host(watched: Watched) -> None:
    watched.page.goto(f"{watched.url}/docs")
    expect(watched.page.get_by_role("heading", name="GET /api/search")).to_be_visible()
    expect(watched.page.get_by_role("heading", name="POST /api/triplets/{ordinal}/block")).to_be_visible()


def test_both_schemes_have_enough_contrast(browser: Browser, running: Running) -> None:
    """WCAG's contrast of text against what is behind it, for body, soft text and each colour of code."""
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)  # type: ignore[arg-type]
        page.goto(f"{running.url}/#/search?q=waa")
        expect(page.locator(".hit").first).to_be_visible()
        dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
        assert dark is (scheme == "dark")
        ratios = page.evaluate(
            """() => {
              const luminance = (colour) => {
                const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((c) => c / 255)
                  .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
              };
              const behind = luminance(getComputedStyle(document.querySelector(".code")).backgroundColor);
              const row = document.querySelector(".code .text");
              const ratio = (style) => {
                const [low, high] = [luminance(style), behind].sort((a, b) => a - b);
                return (high + 0.05) / (low + 0.05);
              };
              const found = { body: ratio(getComputedStyle(document.body).color) };
              for (const name of ["tk-c", "tk-k", "tk-s", "tk-n", "tk-f", "tk-d", "tk-b", "more"]) {
                const span = row.appendChild(document.createElement("span"));
                span.className = name;
                found[name] = ratio(getComputedStyle(span).color);
              }
              return found;
            }"""
        )
        assert min(ratios.values()) >= 4.5, (scheme, ratios)
        page.close()


def test_an_empty_database_says_how_to_begin_and_a_dead_one_that_it_is(
    browser: Browser, start: Start, own_server: EmbeddedServer
) -> None:
    with start("--dsn", own_server.dsn) as running:
        watched = Watched(browser.new_page(), running.url)
        page = watched.open("search")
        expect(page.get_by_text("There is no code in this database yet")).to_be_visible()
        for view, said in (
            ("compare", "a comparison needs two"), ("triplets", "There are none"), ("training", "No run yet"),
            ("index", "None yet"), ("search?q=x", "No chunk has these words"),
        ):  # fmt: skip
            watched.open(view)
            expect(page.get_by_text(re.compile(said)).first).to_be_visible()
        own_server.stop()
        trouble = page.locator("#trouble")
        expect(trouble).to_contain_text("Cannot connect", timeout=20_000)
        expect(trouble).to_contain_text("This page goes on by itself")
        own_server.start()
        expect(trouble).to_be_hidden(timeout=20_000)
        expect(page.get_by_text("No chunk has these words")).to_be_visible()
        watched.check()
        page.close()


def test_a_token_is_asked_for_once(browser: Browser, start: Start, served: Served) -> None:
    token = "a-token-of-some-length"  # noqa: S105 - of this test
    with start("--dsn", served.url, PGEMBED_TOKEN=token) as running:
        watched = Watched(browser.new_page(), running.url)
        page = watched.page
        page.goto(f"{running.url}/#/search")
        page.get_by_label("Token").fill("wrong, and long enough")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_text("That is not the token.")).to_be_visible()
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("searchbox")).to_be_visible()
        assert page.evaluate("document.cookie") == ""  # HttpOnly
        watched.check()
        page.close()
