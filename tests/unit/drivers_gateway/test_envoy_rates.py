"""Shares of a rate by gateways, and the time that each try of a request has to connect."""

from __future__ import annotations

import contextlib
import math
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulant.core.errors import UsageError
from cumulant.core.traffic import Limits
from cumulant.drivers.envoy.client import EnvoyTraffic
from cumulant.drivers.envoy.clusters import build_clusters, cluster_name
from cumulant.drivers.envoy.routing import build_table
from cumulant.drivers.local.journal import SqliteJournal
from cumulant.flows.traffic.shared_traffic import SharedTraffic
from cumulant.testing.conformance.routes import CALM, MODEL, routes_of

GATEWAYS = st.integers(1, 200)
RATES = st.integers(1, 1_000_000)


def buckets(rate, gateways):
    """The buckets of a gateway's routes: of those that name an arm, and of the others."""
    routes = routes_of("http://127.0.0.1:1", limits=msgspec.structs.replace(CALM, rate=rate))
    (host,) = build_table({MODEL: routes}, gateways=gateways)["virtual_hosts"]
    limits = [
        route["typed_per_filter_config"].get("envoy.filters.http.local_ratelimit") for route in host["routes"][:-1]
    ]
    return [limit and limit["token_bucket"] for limit in limits]


@given(RATES, GATEWAYS)
def test_the_shares_of_all_gateways_are_the_rate_and_none_is_zero(rate, gateways):
    forced, split = buckets(rate, gateways)
    assert forced == split
    seconds = float(split["fill_interval"].removesuffix("s"))
    assert split["tokens_per_fill"] / seconds * gateways == pytest.approx(rate, rel=1e-8)
    assert 1.0 <= seconds <= gateways
    assert split["max_tokens"] == split["tokens_per_fill"] >= 1
    assert rate <= split["max_tokens"] * gateways < rate + gateways  # at once, of all


def test_a_stored_rate_that_lets_nothing_through_keeps_no_gateway_from_starting():
    assert buckets(0, 3) == buckets(1, 3)


@given(st.floats(0.0, 1e30), st.integers(0, 10), st.floats(0.0, 1e30), st.floats(0.0, 1e30))
def test_every_time_of_the_limits_is_one_that_envoy_takes(deadline, retries, eject_for, health_every):
    limits = Limits(deadline=deadline, retries=retries, eject_for=eject_for, health_every=health_every)
    routes = routes_of("http://127.0.0.1:1", "http://127.0.0.1:2", limits=limits)
    written = msgspec.json.encode([build_clusters(routes), build_table({MODEL: routes})]).decode()
    times = re.findall(r'"([^"]*[0-9]s)"', written)
    assert len(times) > 10
    assert all(re.fullmatch(r"\d{1,9}([.]\d{1,9})?s", time) for time in times)
    assert {time for time in times if float(time[:-1]) < 0.001} <= ({"0s"} if deadline == 0 else set())


@given(RATES)
def test_a_gateway_alone_has_all_of_the_rate_each_second(rate):
    assert buckets(rate, 1)[1] == {"max_tokens": rate, "tokens_per_fill": rate, "fill_interval": "1s"}


def test_routes_without_a_rate_have_no_bucket():
    assert buckets(None, 3) == [None, None]


@pytest.mark.parametrize(
    "limits",
    [{"rate": 0}, {"rate": -1}, {"retries": -1}, {"retry_budget": 500.0}, {"deadline": math.nan}, {"pending": -1}],
    ids=repr,
)
def test_limits_that_envoy_refuses_or_that_let_nothing_through_are_refused(tmp_path, limits):
    routes = routes_of("http://127.0.0.1:1", limits=msgspec.structs.replace(CALM, **limits))
    alone = EnvoyTraffic(f"envoy://{tmp_path}")
    with contextlib.closing(SqliteJournal(f"sqlite://{tmp_path}/journal.db")) as journal:
        for traffic in (alone, SharedTraffic(journal)):
            with pytest.raises(UsageError, match=rf"the limits of requests are not valid: .*\.{next(iter(limits))}"):
                traffic.apply(routes)
            assert traffic.in_force(MODEL) is None


def connect_seconds(limits):
    cluster, *_ = build_clusters(routes_of("http://127.0.0.1:1", limits=limits))
    return float(cluster["connect_timeout"].removesuffix("s"))


@given(st.floats(0.02, 600.0), st.integers(0, 10))
def test_every_try_has_its_turn_to_connect_within_the_deadline(deadline, retries):
    seconds = connect_seconds(Limits(deadline=deadline, retries=retries))
    assert 0 < seconds <= 1.0
    assert seconds * (retries + 1) <= deadline + (retries + 1) * 1e-9  # Envoy takes nine decimals
    if deadline >= retries + 1:
        assert seconds == 1.0


def test_a_cluster_has_another_name_where_its_time_to_connect_is_another():
    arm = routes_of("http://127.0.0.1:1").champion
    names = [cluster_name(MODEL, arm, Limits(deadline=deadline)) for deadline in (10.0, 60.0, 1.0, 0.5)]
    assert names[0] == names[1]
    assert len(set(names)) == 3
