"""Pages of releases: what they show, and what an operator may do there."""

import io
import re

import msgspec
import pytest
from console_support import ADA, HOSTILE, SAME_ORIGIN, csrf_of, send_form
from releases import MOMENT, World, played, release, remembered
from rich.console import Console

from cumulant.cli.release.release_page import metrics as metrics_table
from cumulant.console.forest_plot import effect_of, forest_plot
from cumulant.console.pages.releases import OPERATIONS, step_card
from cumulant.core.events import Actor
from cumulant.flows.overview.project_overview import project_overview
from cumulant.flows.release import store
from cumulant.flows.release.traffic_split import traffic_split
from cumulant.flows.release.views import view
from cumulant.flows.stack.desired_state import DesiredState, ServedVersion, change_desired_state
from cumulant.release.decide import end_release
from cumulant.release.evidence.accumulate import count_look
from cumulant.testing.access import GrantedAccess

LIST, PAGE = "/projects/flight-late/releases", "/projects/flight-late/releases/r1"
SHOWS = {(ADA.id, "release.show"), (ADA.id, "project.overview")}


@pytest.fixture(scope="module")
def canary():
    """A release that is in its first canary step, with evidence."""
    world = World(seed=1, errors={"candidate": 0.004})
    now = played(world, remembered(release(model="flight-late")), until="canary 10%")
    for _ in range(2):
        now, _ = count_look(now, world.look(now))
    assert now.status == "running"
    return now


def put(project, now, *, before=None):
    current = store.read(project.journal(), now.model)
    with project.journal().transaction(actor=Actor("service:controller")) as transaction:
        store.write(transaction, before, now, expect=current[1] if current else 0)


def current(project):
    return store.read_required(project.journal(), "flight-late")[0]


def test_without_releases_the_list_says_how_one_begins(client):
    response = client.get(LIST)
    assert response.status_code == 200
    assert "No release yet" in response.text
    assert "cumulant release start" in response.text


def test_the_list_has_every_release_newest_first(project, client, canary):
    put(project, msgspec.structs.replace(canary, id="r0", status="promoted", ended=MOMENT, reason="shown to be fine"))
    put(project, canary)
    text = client.get(LIST).text
    assert text.index(">r1</a>") < text.index(">r0</a>")
    assert "shown to be fine" in text
    assert "Roll back" in text


def test_the_list_has_pages_of_fifty(project, client, canary):
    for number in range(60):
        put(project, msgspec.structs.replace(canary, id=f"p{number:02}", status="promoted", ended=MOMENT))
    first = client.get(LIST).text
    second = client.get(re.search(r'href="([^"]+)" rel="next"', first)[1]).text
    names = [re.findall(r">(p\d\d)</a>", text) for text in (first, second)]
    assert [len(each) for each in names] == [50, 10]
    assert names[0] + names[1] == [f"p{number:02}" for number in reversed(range(60))]
    assert "Older" not in second
    assert "Newer" in second
    assert "No release yet" in client.get(f"{LIST}?before=a").text


def test_a_release_shows_steps_split_metrics_and_what_is_missing(project, client, canary):
    put(project, canary)
    text = client.get(PAGE).text
    assert 'aria-current="step"' in text
    assert "canary 10%" in text
    assert "Traffic split" in text
    assert "Missing for the next step" in text
    assert view(canary).lacks[0] in text
    assert "Effect on each metric in units of its margin: errors" in text
    assert "<table>" in text
    for label in ("Pause", "Promote now", "Abort"):
        assert f">{label}</summary>" in text
    for label in ("Resume", "Approve", "Roll back"):
        assert f">{label}</summary>" not in text


def test_an_unknown_release_names_the_nearest(project, client, canary):
    put(project, canary)
    response = client.get(f"{LIST}/r2")
    assert response.status_code == 404
    assert "r1" in response.text


def test_pause_resume_and_abort_are_written_with_their_reason(project, client, canary):
    put(project, canary)
    response = send_form(client, f"{PAGE}/pause", PAGE, reason="lunch")
    assert (response.status_code, response.headers["location"]) == (303, f"{PAGE}?done=pause")
    assert current(project).status == "paused"
    assert "The release is paused." in client.get(response.headers["location"]).text
    assert send_form(client, f"{PAGE}/resume", PAGE, reason="back").status_code == 303
    assert current(project).status == "running"
    assert send_form(client, f"{PAGE}/abort", PAGE, reason="bad feeling").status_code == 303
    assert current(project).status == "rolled_back"
    events = [(event.kind, event.actor, event.reason) for event in project.journal().events(kinds=["release.ended"])]
    assert events == [("release.ended", "user:ada", "bad feeling")]


def test_promote_sends_everything_to_the_candidate(project, client, canary):
    put(project, canary)
    assert send_form(client, f"{PAGE}/promote", PAGE, reason="sure").status_code == 303
    assert current(project).status == "promoted"


def test_a_release_that_an_objective_holds_offers_to_override_it(project, client, canary):
    offered = ">Override the objectives</summary>"
    put(project, canary)
    assert offered not in client.get(PAGE).text
    put(project, msgspec.structs.replace(canary, slo_hold="the error budget of availability is spent"), before=canary)
    text = client.get(PAGE).text
    assert offered in text
    assert "<li>the error budget of availability is spent</li>" in text
    response = send_form(client, f"{PAGE}/override-slo", PAGE, reason="it is the fix")
    assert (response.status_code, response.headers["location"]) == (303, f"{PAGE}?done=override-slo")
    text = client.get(response.headers["location"]).text
    assert "The objectives no longer hold the release." in text
    assert "<li>overridden by ada: it is the fix</li>" in text
    assert offered not in text


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501])
def test_a_reason_is_required(project, client, canary, reason):
    put(project, canary)
    response = send_form(client, f"{PAGE}/pause", PAGE, reason=reason)
    assert response.status_code == 400
    assert "a reason of 1 to 500 characters" in response.text
    assert current(project).status == "running"


def test_two_operators_at_once_get_one_result_and_one_explanation(project, client, canary):
    put(project, canary)
    token = csrf_of(client.get(PAGE))
    send = lambda: client.post(f"{PAGE}/pause", data={"csrf": token, "reason": "x"}, headers=SAME_ORIGIN)  # noqa: E731
    assert send().status_code == 303
    second = send()
    assert second.status_code == 400
    assert "is paused, so it cannot be paused" in second.text


def test_an_older_release_is_not_acted_on(project, client, canary):
    put(project, msgspec.structs.replace(canary, id="r0", status="promoted", ended=MOMENT))
    put(project, canary)
    response = send_form(client, f"{LIST}/r0/abort", PAGE, reason="x")
    assert response.status_code == 409
    assert "r1 is newer" in response.text
    assert current(project).status == "running"


def test_a_viewer_is_offered_nothing_and_refused(project, client, canary, monkeypatch):
    put(project, canary)
    monkeypatch.setattr(project, "access", lambda: GrantedAccess(SHOWS))
    assert "</summary>" not in client.get(PAGE).text.replace("<summary>Show table</summary>", "")
    for operation in OPERATIONS:
        response = send_form(client, f"{PAGE}/{operation.name}", PAGE, reason="x")
        assert response.status_code == 403
        assert f"may not do {operation.action}" in response.text
    response = send_form(client, "/projects/flight-late/rollback", PAGE, reason="x")
    assert response.status_code == 403
    assert "release.rollback" in response.text
    assert current(project).status == "running"


def test_a_rollback_without_a_gateway_says_what_to_do(project, client, canary):
    put(project, msgspec.structs.replace(canary, status="promoted", ended=MOMENT))
    assert ">Roll back</summary>" in client.get(PAGE).text
    response = send_form(client, "/projects/flight-late/rollback", PAGE, reason="errors")
    assert response.status_code == 404
    assert "has no earlier version here to go back to" in response.text


def test_a_rollback_names_its_version_and_every_page_says_which_version_serves(project, client, canary):
    """While no stack runs: what `up` would begin with, not what the newest release promoted."""
    served = {version: ServedVersion(version=version, port=1) for version in ("2", "4")}
    change_desired_state(
        project.state,
        "flight-late",
        lambda _: DesiredState(model="flight-late", champion="4", former=("2",), versions=served),
    )
    put(project, msgspec.structs.replace(canary, status="promoted", ended=MOMENT))
    assert project_overview(project, principal=ADA).champion == "4"
    assert ">Roll back to version 2</summary>" in client.get(LIST).text
    response = send_form(client, "/projects/flight-late/rollback", LIST, reason="errors")
    assert "Nothing serves yet: cumulant up begins with" in client.get(response.headers["location"]).text
    assert project_overview(project, principal=ADA).champion == "2"
    assert "version 2<" in client.get("/projects/flight-late").text


def test_what_an_operator_writes_is_text(project, client, canary):
    put(project, canary)
    send_form(client, f"{PAGE}/pause", PAGE, reason=HOSTILE)
    send_form(client, f"{PAGE}/abort", PAGE, reason=HOSTILE)
    for path in (LIST, PAGE, "/", "/projects/flight-late", "/projects/flight-late/events"):
        text = client.get(path).text
        assert "alert(1)" in text, path
        assert "<script>alert" not in text
        assert "<img src=x" not in text


# --- the drawing


def test_the_effect_is_in_units_of_the_margin(canary):
    metrics = {metric.metric: metric for metric in view(canary).metrics}
    errors = effect_of(metrics["errors"])
    assert errors.value == pytest.approx((metrics["errors"].candidate - metrics["errors"].champion) / 0.005)
    known = effect_of(msgspec.structs.replace(metrics["errors"], low=-0.001, high=0.01))
    assert (known.low, known.high) == (pytest.approx(-0.2), pytest.approx(2.0))
    latency = msgspec.structs.replace(metrics["latency"], champion=10.0, candidate=12.5, margin=0.5)
    assert effect_of(latency).value == pytest.approx(0.5)
    assert effect_of(metrics["prediction"]) is None


def test_the_plot_hatches_what_is_undecided_and_clips_what_is_far(canary):
    (errors,) = [metric for metric in view(canary).metrics if metric.metric == "errors"]
    undecided = msgspec.structs.replace(errors, verdict="not yet shown")
    assert str(forest_plot([undecided])).count('fill="url(#hatch)"') == 1
    far = msgspec.structs.replace(errors, verdict="worse", champion=0.0, candidate=0.9, low=0.8, high=None)
    drawing = str(forest_plot([far]))
    assert "▶" in drawing
    assert "url(#hatch)" not in drawing
    assert 'class="reach worse"' in drawing
    informs = str(forest_plot([msgspec.structs.replace(far, verdict="worse; informs only")]))
    assert "url(#hatch)" not in informs
    assert 'class="reach worse"' in informs
    assert max(float(x) for x in re.findall(r'(?:x2|cx)="([\d.]+)"', drawing)) <= 660
    assert forest_plot([]) is None
    assert forest_plot([msgspec.structs.replace(errors, margin=None)]) is None


def test_a_verdict_says_what_a_metric_does_to_the_release(project, client, canary):
    """In the plot, in the table and on a terminal in the same words: beyond its margin, required or not."""
    boards = canary.boards
    quality = msgspec.structs.replace(boards["quality"], margin=0.01, beyond=False, fine=99.0)
    stand_in = msgspec.structs.replace(boards["prediction"], margin=0.1, beyond=True, harm_bar=3.0)
    beyond = msgspec.structs.replace(boards["latency"], margin=0.1, beyond=True, required=False)
    errors = msgspec.structs.replace(boards["errors"], beyond=False, required=False, fine=0.0)
    now = msgspec.structs.replace(canary, boards=boards | {"errors": errors, "latency": beyond, "prediction": stand_in})
    words = {metric.metric: metric.verdict for metric in view(now).metrics}
    assert words["errors"] == "not yet shown; promotion does not wait"
    assert words["latency"] == words["prediction"] == "beyond its margin so far; no step advances"
    now = msgspec.structs.replace(now, boards=now.boards | {"quality": quality})
    put(project, now)
    words = {metric.metric: metric.verdict for metric in view(now).metrics}
    assert (words["quality"], words["prediction"]) == ("within its margin", "beyond its margin so far; informs only")
    text, stream = client.get(PAGE).text, io.StringIO()
    Console(file=stream, width=200).print(metrics_table(view(now)))
    assert text.count(">informs only<") == 1
    assert f"<td>{words['prediction']}</td>" in text
    assert words["prediction"] in stream.getvalue()
    ended = msgspec.structs.replace(now, status="promoted", ended=MOMENT)
    assert {metric.metric: metric.verdict for metric in view(ended).metrics}["latency"] == "beyond its margin"


def test_a_hostile_metric_is_text_in_the_drawing(canary):
    metric = msgspec.structs.replace(view(canary).metrics[0], metric=HOSTILE)
    assert "<script>" not in str(forest_plot([metric]))


def test_the_step_card_says_what_is_left(canary):
    cards = [step_card(stage) for stage in view(canary).stages]
    present = next(card for card in cards if card.state == "now")
    assert 0 < present.progress <= 1
    assert any("candidate" in fact for fact in present.facts)
    assert [card.state for card in cards][-1] == "future"
    assert cards[-1].progress is None
    assert all(card.state == "passed" and card.progress is None for card in cards[: cards.index(present)])


def test_the_split_is_of_new_keys_in_the_present_step(canary):
    split = traffic_split(canary)
    assert split.declared == pytest.approx(0.1)
    assert split.low < split.share < split.high
    assert split.fits
    assert split.share == pytest.approx(split.candidate / (split.candidate + split.champion))
    assert traffic_split(end_release(canary, "rolled_back", "x", at=MOMENT)) is None
    assert traffic_split(release()) is None
