"""What fires, what is told and what is over, against a slow reading of the whole history."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulant.alerting.alert_events import alert_facts
from cumulant.alerting.alert_state import AlertChange, AlertsState, Finding, Silence, acknowledged, silenced, unsilenced
from cumulant.alerting.alerts_spec import AlertRuleSpec, AlertsSpec
from cumulant.alerting.decide import decide
from cumulant.alerting.messages import message
from cumulant.alerting.policy import LEVELS
from cumulant.project.monitoring_section import alert_policy

START = datetime(2026, 11, 24, 6, tzinfo=UTC)
HOUR = timedelta(hours=1)
RULES = {"covariate": AlertRuleSpec(for_="2h"), "quality": AlertRuleSpec(resolve_after="3h"), "feed": AlertRuleSpec()}
POLICY = alert_policy(AlertsSpec(rules=RULES, budget="3/month", resolve_after="0s", remind="4h", reminders=2))


def finding(rule="feed", subject="fare", **other):
    named = {"model": "late", "moved": "it moved", "since": START} | other
    return Finding(rule=rule, subject=subject, **named)


def run(looks, policy=POLICY, state=None):
    """The state after looks (hours, findings[, looked]), and all changes."""
    state, changes = state or AlertsState(), []
    for hours, found, *looked in looks:
        at = START + hours * HOUR
        state, more = decide(state, found, at, policy=policy, examined=looked[0] if looked else None)
        changes += more
    return state, changes


def whats(changes):
    return [change.what for change in changes]


# Against the whole history ------------------------------------------------------------------------------------------

KEYS = [("covariate", "a"), ("covariate", "b"), ("quality", "a"), ("feed", "a"), ("own", "a")]
gaps = st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0, 30.0, 24.0 * 40, -3.0, -24.0 * 400])
levels = st.sampled_from([None, "info", "warning", "critical"])
looks = st.lists(
    st.tuples(
        gaps,
        st.dictionaries(st.sampled_from(KEYS), levels, max_size=4),
        st.one_of(st.none(), st.frozensets(st.sampled_from(["covariate", "quality", "feed", "own"]), max_size=3)),
    ),
    max_size=25,
)


def history(drawn):
    """Looks as (time, what is found, which rules were examined)."""
    at, found = START, []
    for gap, seen, rules in drawn:
        at += gap * HOUR
        scopes = None if rules is None else frozenset(("late", rule) for rule in rules)
        found.append((at, seen, scopes))
    return found


def examined(key, scopes, seen):
    return scopes is None or ("late", key[0]) in scopes or any(rule == key[0] for rule, _ in seen)


def passed(moments):
    """Hours that pass over moments, of which steps back count nothing."""
    return sum(max(0.0, (later - one) / HOUR) for one, later in itertools.pairwise(moments))


def episodes(past, key):
    """(fired, over) as places of looks: read off the whole history, again from the beginning for each question."""
    needs = {"covariate": 2.0}.get(key[0], 0.0)
    clears = {"quality": 3.0}.get(key[0], 0.0)
    mine = [(place, at, key in seen) for place, (at, seen, scopes) in enumerate(past) if examined(key, scopes, seen)]
    found, begin = [], 0
    while True:
        fired = next(
            (
                end
                for end in range(begin, len(mine))
                if any(
                    all(seen for _, _, seen in mine[first : end + 1])
                    and passed([at for _, at, _ in mine[first : end + 1]]) >= needs
                    for first in range(begin, end + 1)
                )
            ),
            None,
        )
        if fired is None:
            return found
        over = next(
            (
                end
                for end in range(fired + 1, len(mine))
                if any(
                    not any(seen for _, _, seen in mine[first : end + 1])
                    and passed([at for _, at, _ in mine[first : end + 1]]) >= clears
                    for first in range(fired + 1, end + 1)
                )
            ),
            None,
        )
        found.append((mine[fired][0], None if over is None else mine[over][0]))
        if over is None:
            return found
        begin = over + 1


def findings_of(seen):
    return [finding(rule, subject, level=level) for (rule, subject), level in seen.items()]


@settings(deadline=None, max_examples=100)
@given(looks)
def test_fires_and_ends_as_the_whole_history_says(drawn):
    past, state, seen = history(drawn), AlertsState(), []
    for place, (at, found, scopes) in enumerate(past):
        state, changes = decide(state, findings_of(found), at, policy=POLICY, examined=scopes)
        assert msgspec.convert(msgspec.to_builtins(state), AlertsState) == state, "as the journal keeps it"
        seen += [(place, change) for change in changes]
    for key in KEYS:
        mine = [
            (place, change.what)
            for place, change in seen
            if change.what in ("fired", "resolved") and (change.alert.finding.rule, change.alert.finding.subject) == key
        ]
        wanted = []
        for fired, over in episodes(past, key):
            wanted += [(fired, "fired")] + ([] if over is None else [(over, "resolved")])
        assert mine == wanted, key


@settings(deadline=None, max_examples=100)
@given(looks, st.booleans())
def test_nobody_is_told_twice_and_nothing_is_lost(drawn, silent):
    state, said = AlertsState(), []
    if silent:
        state = silenced(state, Silence(id="", rule="quality", until=START + 3 * HOUR, by="user:ada"), START)
    at = START
    for at, found, scopes in history(drawn):
        state, changes = decide(state, findings_of(found), at, policy=POLICY, examined=scopes)
        said += changes
    for hour in range(1, 60):  # then nothing is found any more
        state, changes = decide(state, [], at + hour * HOUR, policy=POLICY)
        said += changes
    assert not state.alerts, "all is over by itself"
    assert not state.waiting
    check_each(said, silent)
    check_budget(said)


def check_each(said: list[AlertChange], silent: bool) -> None:
    grouped = Counter(alert.id for change in said if change.what == "digest" for alert in change.alerts)
    ids = {change.alert.id for change in said if change.what == "fired"}
    for name in ids:
        mine = [change for change in said if change.what != "digest" and change.alert.id == name]
        counts = Counter(change.what for change in mine)
        told = [LEVELS.index(change.alert.level) for change in mine if change.what == "notified"]
        assert counts["fired"] == counts["resolved"] == 1
        assert told == sorted(set(told)), "told again only at a higher level"
        assert counts["reminded"] <= POLICY.reminders
        assert counts["cleared"] <= 1
        if told:
            assert counts["cleared"] == 1
            assert whats(mine)[-1] == "cleared"
        quiet = silent and mine[0].alert.finding.rule == "quality"
        assert told or grouped[name] or quiet, "everything that fired is told, alone or in a digest"
        urgent = next(change for change in mine if change.what == "resolved").alert.level == "critical"
        assert not urgent or told or quiet, "what is critical is never only in a digest"


def check_budget(said: list[AlertChange]) -> None:
    spent: Counter[str] = Counter()
    for change in said:
        if change.what in ("notified", "reminded"):
            month = f"{change.at:%Y-%m}"
            assert spent[month] < 3 or change.alert.level == "critical"
            spent[month] += 1


# By example ---------------------------------------------------------------------------------------------------------


def test_the_life_of_an_alert():
    state, changes = run([(hour, [finding("covariate")]) for hour in (0, 1, 2, 3)])
    assert whats(changes) == ["fired", "notified"]
    assert state.firing[0].fired == START + 2 * HOUR
    assert [fact.kind for fact in alert_facts(changes)] == ["alert.fired"]
    state, changes = run([(4, []), (5, [])], state=state)
    assert whats(changes) == ["resolved", "cleared"]
    assert state.over[0].resolved == START + 4 * HOUR


def test_what_goes_before_its_time_was_nothing():
    state, changes = run([(0, [finding("covariate")]), (1, []), (2, [finding("covariate")]), (3, [])])
    assert (state.alerts, changes) == ({}, [])


def test_a_condition_that_comes_and_goes_is_one_alert():
    looks = [(hour, [finding("quality")] if hour % 2 == 0 else []) for hour in range(20)]
    _, changes = run(looks)
    assert [what for what in whats(changes) if what != "reminded"] == ["fired", "notified"]


def test_looks_that_examine_other_rules_or_models_end_nothing():
    state, changes = run([(0, [finding()]), (1, [], {("late", "quality")}), (2, [], {("other", "feed")}), (3, [], ())])
    assert whats(changes) == ["fired", "notified"]
    assert len(state.firing) == 1


def test_what_becomes_worse_is_told_again_and_what_becomes_better_is_not():
    looks = [(hour, [finding("quality", level=level)]) for hour, level in enumerate([None, "critical", "info", None])]
    state, changes = run(looks)
    assert whats(changes) == ["fired", "notified", "raised", "notified"]
    assert (changes[3].was, changes[3].alert.level, state.firing[0].level) == ("warning", "critical", "critical")
    assert message(changes[3]).text.startswith("now critical, it was warning: it moved")


def test_above_the_budget_one_digest_a_day():
    many = [finding("quality", f"c{number}") for number in range(30)]
    state, changes = run([(0, many), (1, [*many, finding("feed")]), (20, many[:25])])
    assert Counter(whats(changes))["notified"] == 4, "three of the budget, and the critical one"
    assert len(state.waiting) == 27
    state, changes = run([(24, many[:20]), (25, many[:20])], state=state)
    told = next(message(change) for change in changes if change.what == "digest")
    assert (told.subject, told.level) == ("27 alerts", "warning")
    assert told.text.count("(over)") == 5
    assert "and 7 more" in told.text
    state, changes = run([(hour, many[:20]) for hour in range(26, 100)], state=state)
    assert "digest" not in whats(changes), "they are known now"
    assert "notified" not in whats(changes)


def test_reminders_are_few_and_further_apart():
    _, changes = run([(hour, [finding()]) for hour in range(200)])
    at = [(change.at - START) / HOUR for change in changes if change.what == "reminded"]
    assert at == [4, 12]
    state, _ = run([(0, [finding()])])
    state = acknowledged(state, finding().key, "user:ada")
    _, changes = run([(hour, [finding()]) for hour in range(1, 100)], state=state)
    assert whats(changes) == []


def test_what_still_fires_when_a_silence_ends_is_told_then():
    state = silenced(AlertsState(), Silence(id="", subject="fa*", until=START + 3 * HOUR, by="user:ada"), START)
    state, changes = run([(hour, [finding(), finding(subject="speed")]) for hour in range(3)], state=state)
    assert [change.alert.finding.subject for change in changes if change.what == "notified"] == ["speed"]
    later, changes = run([(3, [finding(), finding(subject="speed")])], state=state)
    assert [change.alert.finding.subject for change in changes if change.what == "notified"] == ["fare"]
    ended = unsilenced(state, state.silences[0].id)
    _, changes = run([(2.5, [], ())], state=ended)
    assert whats(changes) == ["notified"]
    assert later.silences, "kept for a clock that is set back"


def test_a_clock_that_is_set_back_repeats_and_holds_up_nothing():
    state, changes = run(
        [(0, [finding("covariate")]), (-9000, [finding("covariate")]), (-8998, [finding("covariate")])]
    )
    assert whats(changes) == ["fired", "notified"]
    state, changes = run([(-20000, []), (-19000, [finding()])], state=state)
    assert whats(changes) == ["resolved", "cleared", "fired", "notified"]


def test_a_past_period_is_looked_at_in_its_own_time_and_told_in_the_present_one():
    state, changes = AlertsState(), []
    for hour in range(4):
        now = START + timedelta(days=4000, seconds=hour)
        state, more = decide(state, [finding("covariate")], START + hour * HOUR, policy=POLICY, now=now)
        changes += more
    assert whats(changes) == ["fired", "notified"]
    assert state.firing[0].fired == START + timedelta(days=4000, seconds=2)
    assert state.firing[0].began == START
    assert list(state.spent) == ["2037-11"]


def test_a_rule_that_is_turned_off_ends_its_alerts():
    state, _ = run([(0, [finding()])])
    off = alert_policy(AlertsSpec(rules={"feed": AlertRuleSpec(level="off")}))
    state, changes = run([(1, [finding(), finding(subject="other")], ())], policy=off, state=state)
    assert whats(changes) == ["resolved", "cleared"]
    assert not state.alerts


def test_several_findings_of_one_thing_are_one():
    later = finding(since=START + HOUR, moved="more", level="critical")
    state, changes = run([(2, [finding(rule="own"), msgspec.structs.replace(later, rule="own")])])
    assert whats(changes) == ["fired", "notified"]
    [alert] = state.firing
    assert (alert.level, alert.finding.since, alert.finding.moved) == ("critical", START, "more")


def test_what_is_over_is_bounded_unless_it_waits():
    spec = alert_policy(AlertsSpec(budget="0/day", resolve_after="0s", rules={"quality": AlertRuleSpec()}))
    state = AlertsState()
    for hour in range(150):
        state, _ = run([(hour / 10, [finding("quality", f"c{hour}")])], spec, state)
    assert len(state.over) == 149, "all wait for the digest"
    state, changes = run([(30, []), (31, [])], spec, state)
    assert whats(changes)[-1] == "digest"
    assert len(changes[-1].alerts) == 150
    assert len(run([(32, [])], spec, state)[0].over) == 100


def test_the_sentence_says_what_a_person_needs():
    found = finding(
        "data_fault",
        moved="missing values rose from 0.1% to 38%",
        kind="data_fault",
        cost="90 EUR a day",
        next="look at the feed",
        subject="salary_range\r\nBcc: x",
    )
    _, changes = run([(0, [found])])
    told = message(changes[1])
    assert told.text == (
        "missing values rose from 0.1% to 38%, since 2026-11-24 06:00 UTC. Likely a data fault: what is sent changed, "
        "and not the world. Cost: 90 EUR a day. Next: look at the feed. "
        f"`cumulant alerts ack {told.detail['id']}` acknowledges it."
    )
    assert (told.status, told.level, told.kind) == ("firing", "critical", "alert")
    assert told.key == message(changes[1]).key
    oldest = message(run([(0, [msgspec.structs.replace(found, at_least=True)])])[1][1]).text
    assert oldest.startswith("missing values rose from 0.1% to 38%, at least since 2026-11-24 06:00 UTC. Likely")


def test_periods_of_the_budget():
    at = datetime(2026, 12, 31, 23, tzinfo=UTC)
    names = [alert_policy(AlertsSpec(budget=f"2/{name}")).period_of(at) for name in ("hour", "day", "week", "month")]
    assert names == ["2026-12-31T23", "2026-12-31", "2026-W53", "2026-12"]
