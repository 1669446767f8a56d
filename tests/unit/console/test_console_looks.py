"""The looks of a release on its page: drawn, in a table and as a file, as they were recorded."""

import csv
import io
import re
from urllib.parse import quote

import msgspec
import pytest
from console_support import ADA, HOSTILE
from releases import MOMENT, World, played, policy_with, release, remembered

from cumulant.console.look_charts import HEADS, decision_rule, difference_range, look_charts
from cumulant.core.events import Actor
from cumulant.flows.release import store
from cumulant.flows.release.release_queries import release_looks
from cumulant.release.decide import start
from cumulant.release.evidence.accumulate import count_look
from cumulant.release.evidence.look_recording import add_look
from cumulant.release.look_history import LookHistory, MetricHistory, MetricLook
from cumulant.release.spec import MetricSpec

PAGE = "/projects/flight-late/releases/r1"


@pytest.fixture(scope="module")
def canary():
    """A release that is in its first canary step."""
    world = World(seed=1, errors={"candidate": 0.004})
    return played(world, remembered(release(model="flight-late")), until="canary 10%")


def put(project, now):
    current = store.read(project.journal(), now.model)
    with project.journal().transaction(actor=Actor("service:controller")) as transaction:
        store.write(transaction, None, now, expect=current[1] if current else 0)


def put_looks(project, now, world, *, looks=30):
    """Play the release on and record its looks, as its controller does."""
    for _ in range(looks):
        now, _ = count_look(now, world.look(now))
        with project.journal().transaction(actor=Actor("service:controller")) as transaction:
            store.write_look(transaction, now, at=MOMENT)
    put(project, now)
    return now


@pytest.mark.slow
def test_the_looks_of_the_chosen_metric_are_drawn_over_time_or_samples(project, client, canary):
    put(project, canary)
    assert 'id="looks"' not in client.get(PAGE).text
    put_looks(project, canary, World(seed=5))
    text = client.get(PAGE).text
    assert "Confidence sequence of errors, candidate less champion" in text
    assert "Evidence on errors" in text
    assert "active time of the release" in text
    other = client.get(f"{PAGE}?metric=latency&x=samples").text
    assert "Confidence sequence of latency: share of slow requests" in other
    assert "slow requests, percentage points" in other  # what its test compares
    assert "Evidence on latency" in other
    assert "samples of the candidate" in other
    assert client.get(f"{PAGE}?metric={quote(HOSTILE)}").status_code == 404


def test_the_looks_of_a_metric_are_a_file(project, client, canary):
    put_looks(project, canary, World(seed=5), looks=4)
    response = client.get(f"{PAGE}/looks/errors.csv")
    rows = list(csv.reader(io.StringIO(response.text)))
    history = release_looks(project, "r1", principal=ADA)
    assert tuple(rows[0]) == HEADS
    assert len(rows) == 1 + len(history.metrics["errors"].looks)
    last = history.metrics["errors"].looks[-1]
    assert rows[-1][2:5] == ["canary 10%", str(last.champion_samples), str(last.candidate_samples)]
    assert float(rows[-1][7]) == pytest.approx(last.candidate - last.champion, rel=1e-5)
    assert float(rows[-1][8]) == pytest.approx(last.low, rel=1e-5)
    assert client.get(f"{PAGE}/looks/quality2.csv").status_code == 404


def metric_history(*looks, margin=0.005):
    return MetricHistory(
        metric="errors",
        unit="%",
        margin=margin,
        required=True,
        harm_bar=4.0,
        fine_bar=3.0,
        looks=tuple(
            MetricLook(
                at=MOMENT,
                seconds=10.0 * place,
                step=0,
                champion_samples=100,
                candidate_samples=100,
                champion=0.01,
                candidate=0.01,
                difference=0.0,
                low=low,
                high=high,
                harm=1.0,
                fine=1.0,
                harmful=False,
                acceptable=False,
            )
            for place, (low, high) in enumerate(looks)
        ),
    )


@pytest.mark.parametrize(
    ("looks", "low", "high"),
    [
        ([(-0.004, 0.006)], -0.004, 0.006),  # all of it
        ([(-0.9, 0.9), (-0.001, 0.001)], -0.01, 0.01),  # ten times the newest, about its middle
        ([(None, 0.9), (0.03, 0.04)], 0.0, 0.085),  # the early interval is cut
        ([(-0.9, 0.9), (None, 0.001)], -0.01, 0.01),  # an end that is not known is as far as the other
        ([(None, None)], 0.0, 0.005),  # nothing is known: no effect and the margin
    ],
)
def test_the_axis_is_clipped_at_ten_times_the_newest_interval(looks, low, high):
    ends = difference_range(metric_history(*looks))
    air = (high - low) * 0.05
    assert ends == pytest.approx((low - air, high + air))


@pytest.mark.slow
def test_the_interval_of_latency_is_that_of_the_shares_of_slow_requests(canary):
    now, world, history = canary, World(seed=2, took={"candidate": 4.5}), None
    for _ in range(45):
        now, _ = count_look(now, world.look(now))
        history = add_look(history, now, at=MOMENT)
    latency = history.metrics["latency"]
    last = latency.looks[-1]
    assert latency.boundary == 0.0
    assert last.low < last.difference < last.high < 0  # fewer slow requests, not milliseconds
    rule = decision_rule(latency)
    assert "Rollback: the evidence that more requests are slow reaches 100%" in rule
    assert "the last step needs 100%" in rule
    assert "Rollback" not in decision_rule(msgspec.structs.replace(latency, kind=None))  # recorded by an older version


def test_the_interval_of_pairs_is_that_of_their_test_at_other_differences():
    declared = {"quality": MetricSpec(margin=0.02), "prediction": MetricSpec(margin=0.05)}
    now, history = start(remembered(release(policy_with(block="10s", metrics=declared)))), None
    world = World(seed=2)
    for _ in range(60):
        now, _ = count_look(now, world.look(now))
        history = add_look(history, now, at=MOMENT)
    quality, prediction = history.metrics["quality"], history.metrics["prediction"]
    for metric in (quality, prediction):
        first, last = metric.looks[0], metric.looks[-1]
        assert (first.low, first.high) == (None, None)
        assert last.low <= last.difference <= last.high < metric.margin
        sequence, evidence = look_charts(history, metric, "time", "/file.csv")
        assert "of the whole release" in sequence.note
        assert "no harm may be proven while the interval still crosses the margin" in sequence.note
        assert "a difference beyond the margin reaches 100%" in evidence.note


def test_a_change_in_either_direction_is_harm_where_a_metric_is_two_sided():
    metric = metric_history((-0.004, 0.006))
    for two_sided, zones in ((False, 1), (True, 2)):
        shown = msgspec.structs.replace(metric, two_sided=two_sided)
        history = LookHistory(release="r1", steps=("canary 10%",), alpha=0.05, metrics={"errors": shown})
        drawing = str(look_charts(history, shown, "time", "/file.csv")[0].drawing)
        assert drawing.count("zone harm") == zones
        assert drawing.count("zone fine") == 1


def test_what_is_beyond_the_axis_is_drawn_at_its_edge():
    metric = metric_history((None, None), (-0.9, 0.9), (-0.001, 0.001))
    history = LookHistory(release="r1", steps=("canary 10%",), alpha=0.05, metrics={"errors": metric})
    sequence, evidence = look_charts(history, metric, "time", "/file.csv")
    text = str(sequence.drawing)
    assert text.rindex("<polygon") < text.index(">promotion<") < text.index(">canary 10%<")  # no line crosses a word
    numbers = [float(number) for number in re.findall(r"[xy][12]?=\"([-\d.]+)\"", text)]
    assert max(numbers) <= sequence.drawing.width
    assert min(numbers) >= 0
    assert sequence.note.startswith("95% intervals")
    assert evidence.rows == sequence.rows
    assert [style for style, _ in sequence.legend] == ["model", "span-band", "zone-harm", "zone-fine"]


def test_the_measured_line_of_looks_that_were_recorded_without_differences_is_that_of_their_values():
    metric = metric_history((-0.9, 0.9), (None, 0.0025))
    old = [msgspec.structs.replace(look, candidate=0.012, difference=None) for look in metric.looks]
    metric = msgspec.structs.replace(metric, looks=tuple(old))
    history = LookHistory(release="r1", steps=("canary 10%",), alpha=0.05, metrics={"errors": metric})
    sequence = look_charts(history, metric, "time", "/file.csv")[0]
    assert str(sequence.drawing).count('class="model"') == 1
    assert [row[7] for row in sequence.rows] == [0.002, 0.002]
    # The newest interval, whose low end is not known, reaches as far below the measured difference as above it.
    assert difference_range(metric) == pytest.approx((-0.0035, 0.0075))
    assert msgspec.structs.replace(metric, unit="ms").difference(old[0]) is None  # of times, not of shares
