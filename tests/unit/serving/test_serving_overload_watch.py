"""Readiness checks report that requests are refused, and nothing that is long past."""

from types import SimpleNamespace

from cumulant.serving.models.overload_watch import OverloadWatch


def model(refused, version="1"):
    return SimpleNamespace(name="late", version=version, runner=SimpleNamespace(refused=refused))


def test_refusals_are_reported_for_a_minute_after_the_last_one():
    now = [0.0]
    watch = OverloadWatch(steady=lambda: now[0])
    assert not watch.read([model(0)])
    assert watch.read([model(3)])
    now[0] = 50.0
    assert watch.read([model(3)])
    assert watch.read([model(4)])
    now[0] = 100.0
    assert watch.read([model(4)])
    now[0] = 110.1
    assert not watch.read([model(4)])


def test_a_version_that_is_loaded_anew_begins_with_no_refusal():
    watch = OverloadWatch(steady=lambda: 0.0)
    assert not watch.read([model(0), model(0, "2")])
    assert not watch.read([model(0, "3")])
    assert watch.read([model(1, "3")])


def test_what_connections_refuse_counts_too():
    watch = OverloadWatch(steady=lambda: 0.0)
    assert not watch.read([model(0)], 0)
    assert watch.read([model(0)], 7)
