"""Keys of few values: told beforehand, and where a step waits for an arm that none of them falls to."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from release_servers import project, serving
from releases import MOMENT, counted_requests, policy_with, release

from cumulant.core.traffic import CANDIDATE, CHAMPION, Arm, Exchange, Routes
from cumulant.core.units import to_micros
from cumulant.flows.release.controller.external_servers import ExternalServers
from cumulant.flows.release.plan.release_plan import plan_release
from cumulant.flows.release.start.key_counts import count_known_keys, few_keys_warning, smallest_arm
from cumulant.flows.release.start.start import start_release
from cumulant.ports.access import Principal
from cumulant.release.decide import decide, list_unmet_conditions
from cumulant.release.evidence.accumulate import count_look
from cumulant.release.evidence.look import Look
from cumulant.release.spec import CanarySpec, StagesSpec
from cumulant.serving.prediction_log.entry import LogEntry
from cumulant.serving.prediction_log.personal_values import PersonalValueMask
from cumulant.serving.prediction_log.storage.part_writer import LogParts
from cumulant.testing.clock import ManualClock

ADA = Principal("user:ada")
KEYED = "release: {key: customer, stages: {shadow: null, ab: null, canary: {weights: [50%]}}}\n"


def exchange(key, arm=CHAMPION, *, revision=1, model="late", time=None):
    at = to_micros(datetime.now(UTC)) if time is None else time
    return Exchange(
        request="r",
        time=at,
        model=model,
        assigned=arm,
        served=arm,
        status=200,
        duration_us=2000,
        key=key,
        revision=revision,
    )


@pytest.fixture
def late(tmp_path):
    with project(tmp_path / "late", KEYED, clock=ManualClock(MOMENT)) as found:
        arm = Arm(name="champion", version="1", endpoints=("http://127.0.0.1:1",))
        found.gateway().apply(Routes(model="late", revision=1, champion=arm, key="customer"))
        yield found


def test_the_smallest_share_is_the_holdback_by_default():
    step, share = smallest_arm(policy_with())
    assert (step.label, share) == ("canary 95%", pytest.approx(0.05))


def test_few_keys_are_told_and_enough_are_not(late):
    spec = late.policies.release
    assert few_keys_warning(late, "late", spec) is None, "nothing tells"
    late.gateway().put(exchange(f"k{number % 39}") for number in range(500))
    said = few_keys_warning(late, "late", spec)
    assert said is not None
    assert said.startswith(
        "requests of the last week had 39 different values of customer: in canary 50% the champion gets 50% of them,"
        " which is about 19, where 20 or more are wanted"
    )
    late.gateway().put([exchange("k39", model="other"), exchange("k39", time=1), exchange("")])
    assert few_keys_warning(late, "late", spec) is not None, "another model's, too old, without a key"
    late.gateway().put([exchange("k39")])
    assert few_keys_warning(late, "late", spec) is None
    assert few_keys_warning(late, "late", msgspec.structs.replace(spec, key=None)) is None
    other = msgspec.structs.replace(spec, key="shop")
    assert few_keys_warning(late, "late", other) is None, "the log's keys are of another column"


def test_plan_and_start_warn(late):
    late.gateway().put(exchange(f"k{number % 3}") for number in range(50))
    planned = plan_release(late, principal=ADA, requests="200/s")
    assert "had 3 different values of customer" in planned.warnings[0]
    with serving() as one, serving() as other:
        arms = ExternalServers(champion=one.url, candidate=other.url)
        begun = start_release(late, principal=ADA, outside=arms, clock=ManualClock(MOMENT))
    assert begun.notes == (planned.warnings[0],)


def holdback(keys):
    """A release in canary 95%, whose look brought 30 requests of these keys, all the candidate's."""
    canary = CanarySpec(weights=["95%"], at_least="10s", soak="10s", at_most="60s", samples=20)
    spec = policy_with(key="customer", stages=StagesSpec(shadow=None, ab=None, canary=canary))
    now = release(spec, status="running")
    found = [exchange(keys[number % len(keys)], CANDIDATE) for number in range(30)]
    return count_look(now, Look(seconds=5, requests=counted_requests(now, found)))[0]


def test_a_step_says_that_no_key_falls_to_an_arm():
    now = holdback(["a", "b", "c"])
    said = (
        "none of the 3 values of customer that were seen falls to the champion, which should have 5% of them: there"
        " are too few for so small a share"
    )
    assert list_unmet_conditions(now)[0] == said
    assert decide(now, at=MOMENT).reason == f"in canary 95%, {said}"
    late = msgspec.structs.replace(now, seconds=60.0)
    over = decide(late, at=MOMENT)
    assert (over.status, over.reason) == ("inconclusive", f"canary 95% took its longest time and {said}")
    early = msgspec.structs.replace(now, samples={CANDIDATE: 10, CHAMPION: 0})
    assert not any("none of" in one for one in list_unmet_conditions(early)), "it may still come"
    both = msgspec.structs.replace(now, samples={CANDIDATE: 30, CHAMPION: 1})
    assert not any("none of" in one for one in list_unmet_conditions(both))
    assert not any("none of" in one for one in list_unmet_conditions(holdback([""]))), (
        "requests without keys wait for requests"
    )


def test_the_prediction_log_tells_where_the_gateway_goes_by_another_key(late):
    parts = LogParts(
        late.state / "predictions",
        PersonalValueMask(b"k", {"late": []}),
        file_size=1 << 26,
        failed=lambda error, rows: None,
    )
    rows = [{"customer": number % 4} if number else {"shop": 1} for number in range(12)]
    entry = LogEntry(
        id="r",
        time_us=to_micros(datetime.now(UTC)),
        latency_us=1,
        model="late",
        version="1",
        sequence=1,
        event_times=[None] * 12,
        ages=[None] * 12,
        rows=msgspec.json.encode(rows),
        answers=msgspec.json.encode([{"prediction": 1}] * 12),
    )
    parts.add(entry, "w.1", "")
    parts.close()
    late.gateway().put(exchange(f"k{number}") for number in range(99))
    assert count_known_keys(late, "late", "customer", enough=40) == 40
    arm = Arm(name="champion", version="1", endpoints=("http://127.0.0.1:1",))
    late.gateway().apply(Routes(model="late", revision=2, champion=arm))
    assert count_known_keys(late, "late", "customer", enough=40) == 4
    assert count_known_keys(late, "late", "city", enough=40) is None
