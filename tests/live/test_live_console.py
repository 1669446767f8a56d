"""The console in a real browser: its policy, its keyboard, live pages, two people at once, hostile texts."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "console"))
sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "release"))
from console_browser import NO_AXE, NO_BROWSER, Tab, browser, served
from console_support import HOSTILE, make_project
from releases import MOMENT, World, played, release, remembered

from cumulant.alerting.alert_state import Finding
from cumulant.core.events import Actor
from cumulant.flows.alerting.alerts import observe
from cumulant.flows.release import store
from cumulant.ports.access import Principal
from cumulant.release.decide import promote
from cumulant.release.evidence.accumulate import count_look

pytestmark = [pytest.mark.live, NO_BROWSER]

ADA = Principal("user:ada")
BASE = "/projects/flight-late"
PAGES = (
    "/",
    BASE,
    f"{BASE}/releases",
    f"{BASE}/releases/r1",
    f"{BASE}/releases/r1?metric=latency&x=samples",
    f"{BASE}/lineage",
    f"{BASE}/events",
    f"{BASE}/events?text=none",
    "/nowhere",
)


@pytest.fixture(scope="module")
def chromium():
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def canary():
    world = World(seed=1)
    now = played(world, remembered(release(model="flight-late")), until="canary 10%")
    return count_look(now, world.look(now))[0]


@pytest.fixture
def project(tmp_path, canary):
    """A project with a release under way, an alert that fires, and what a hostile user wrote."""
    with make_project(tmp_path / "late") as loaded:
        put(loaded, canary)
        with loaded.journal().transaction(actor=Actor("service:controller")) as transaction:
            store.write_look(transaction, canary, at=MOMENT)
        finding = Finding(model="flight-late", rule=HOSTILE, subject=HOSTILE, moved=HOSTILE, since=MOMENT, kind=HOSTILE)
        observe(loaded, [finding], principal=ADA)
        yield loaded


@pytest.fixture
def server(project):
    with served(project) as running:
        yield running


@pytest.fixture
def tab(chromium, server):
    opened = Tab(chromium, server.url)
    yield opened
    opened.close()


def put(project, now):
    stored = store.read(project.journal(), now.model)
    with project.journal().transaction(actor=Actor("service:controller", HOSTILE)) as transaction:
        store.write(transaction, stored[0] if stored else None, now, expect=stored[1] if stored else 0)


def current(project):
    return store.read_required(project.journal(), "flight-late")[0]


def test_no_page_breaks_its_policy_and_hostile_texts_stay_texts(tab):
    for path in PAGES:
        tab.open(path)
        assert tab.page.locator("h1").count() == 1
        assert "Something went wrong" not in tab.page.title()
        tab.check()
    tab.open(f"{BASE}/events")
    assert "alert(1)" in tab.page.locator("main").inner_text()


@NO_AXE
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_page_has_a_serious_finding_of_axe(chromium, server, theme):
    tab = Tab(chromium, server.url, color_scheme=theme)
    for path in PAGES:
        tab.open(path)
        assert tab.serious_findings() == [], path
    tab.close()


def test_a_release_is_watched_from_its_canary_to_its_promotion(tab, project, canary):
    tab.open(f"{BASE}/releases/r1")
    tab.page.locator("#live[data-state=on]").wait_for()
    assert "canary 10%" in tab.page.locator("[aria-current=step]").inner_text()
    tab.page.evaluate("window.same = true")
    put(project, promote(current(project), "promoted by the controller", at=MOMENT))
    tab.page.locator("#release .tag", has_text="promoted").wait_for()
    assert "was promoted" in tab.page.locator("#release .lead").inner_text()
    assert tab.page.evaluate("window.same")  # the page was not loaded again
    tab.check()


def test_events_appear_as_they_happen(tab, project, canary):
    tab.open(f"{BASE}/events")
    tab.page.locator("#live[data-state=on]").wait_for()
    put(project, msgspec.structs.replace(current(project), status="paused", reason="paused by bob"))
    tab.page.locator(".timeline > li:first-child", has_text="release.held").wait_for()
    tab.check()


def test_a_release_is_paused_by_keyboard_with_a_reason(tab, project):
    tab.open(f"{BASE}/releases/r1")
    tab.page.locator("summary", has_text="Pause").focus()
    tab.page.keyboard.press("Enter")
    tab.page.locator("#pause-reason:focus").wait_for()
    tab.page.keyboard.type("too many questions")
    tab.page.keyboard.press("Enter")
    tab.page.locator(".done", has_text="The release is paused.").wait_for()
    assert current(project).reason == "paused by ada: too many questions"
    tab.check()


def test_what_is_being_written_is_not_lost_by_a_refresh(tab, project):
    tab.open(f"{BASE}/releases/r1")
    tab.page.locator("#live[data-state=on]").wait_for()
    tab.page.locator("summary", has_text="Abort").click()
    tab.page.locator("#abort-reason").fill("half a reas")
    put(project, msgspec.structs.replace(current(project), status="paused", reason="paused by bob"))
    with tab.page.expect_request(lambda request: request.url.endswith("/releases/r1")):
        tab.page.locator("summary", has_text="Abort").click()  # closed: now it refreshes
    tab.page.locator("#release .tag", has_text="paused").wait_for()
    assert tab.page.locator("#abort-reason").input_value() == "half a reas"
    tab.check()


def test_of_two_people_at_once_the_second_is_told(chromium, server, project):
    tabs = [Tab(chromium, server.url) for _ in range(2)]
    for tab in tabs:
        tab.open(f"{BASE}/releases/r1")
        tab.page.locator("summary", has_text="Abort").click()
        tab.page.locator("#abort-reason").fill("both of us")
    tabs[0].page.locator("#abort form button").click()
    tabs[0].page.locator(".done").wait_for()
    tabs[1].page.locator("#abort form button").click()
    assert "so it cannot be aborted" in tabs[1].page.locator(".fault").inner_text()
    assert len(list(project.journal().events(kinds=["release.ended"]))) == 1
    for tab in tabs:
        tab.close()


def test_the_page_comes_back_after_the_server(tab, server, project):
    tab.open(f"{BASE}/releases/r1")
    tab.page.locator("#live[data-state=on]").wait_for()
    server.stop()
    tab.page.locator("#live[data-state=lost]").wait_for()
    put(project, promote(current(project), "meanwhile", at=MOMENT))
    server.start()
    tab.page.locator("#live[data-state=on]").wait_for()
    tab.page.locator("#release .tag", has_text="promoted").wait_for()


def test_the_keyboard_goes_everywhere(tab):
    tab.open("/")
    tab.page.keyboard.press("j")
    assert tab.page.evaluate("document.activeElement.getAttribute('aria-label')") == "flight-late"
    tab.open(BASE)
    for key, path in (("r", "/releases"), ("e", "/events"), ("o", "")):
        go(tab, key, re.compile(f"{BASE}{path}$"))
    tab.open(f"{BASE}/events")
    tab.page.keyboard.press("/")
    tab.page.keyboard.type("alert g h ?")  # is text there, and no command
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_url(re.compile("text=alert"))
    tab.page.keyboard.press("?")
    tab.page.locator("dialog[open]").wait_for()
    tab.page.keyboard.press("Escape")
    go(tab, "h", re.compile("/$"))
    tab.check()


def go(tab, key, url):
    """Press `g` and a key until the page opens: a busy machine may take longer between the two than the console waits."""
    from playwright.sync_api import TimeoutError as TooLate

    for _ in range(10):
        tab.page.keyboard.press("g")
        tab.page.keyboard.press(key)
        try:
            tab.page.wait_for_url(url, timeout=3_000)
        except TooLate:
            continue
        return
    raise AssertionError(f"g {key} opens no page")


def test_the_theme_is_kept(tab):
    tab.open("/")
    background = "getComputedStyle(document.body).backgroundColor"
    light = tab.page.evaluate(background)
    tab.page.keyboard.press("t")
    assert tab.page.evaluate(background) != light
    tab.open(BASE)
    assert tab.page.locator("html").get_attribute("data-theme") == "dark"
    assert tab.page.evaluate(background) != light


def test_times_are_in_the_viewer_s_zone(chromium, server):
    tab = Tab(chromium, server.url, timezone_id="America/New_York", locale="en-GB")
    tab.open(f"{BASE}/releases/r1")
    begun = tab.page.locator(".head time").first
    assert begun.get_attribute("datetime") == "2026-05-01T00:00:00Z"
    assert begun.inner_text() == "30 Apr 2026, 20:00"
    tab.close()


def test_seven_tabs_are_live_at_once(chromium, server, project):
    """A browser opens six connections to a server of HTTP/1.1: only the tab that is seen keeps one."""
    context = chromium.new_context(base_url=server.url)
    pages = [context.new_page() for _ in range(7)]
    for page in pages:
        page.goto(f"{BASE}/releases/r1", timeout=20_000)
    put(project, promote(current(project), "by the controller", at=MOMENT))
    for page in pages:
        page.bring_to_front()
        page.locator("#release .tag", has_text="promoted").wait_for(timeout=20_000)
    context.close()
