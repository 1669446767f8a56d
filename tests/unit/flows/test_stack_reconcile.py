"""What is done so that the processes that are present become those that are wanted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cumulant.flows.stack.reconcile import PresentProcess, WantedProcess, plan_actions, stop_order

SERVER = WantedProcess(name="server-1", kind="server", command=("serve", "1"), version="1")
OTHER = WantedProcess(name="server-2", kind="server", command=("serve", "2"), version="2")
GATEWAY = WantedProcess(name="gateway", kind="gateway", command=("gateway",))
CONTROLLER = WantedProcess(name="controller", kind="controller", command=("control",))


def named(*ones):
    return {one.name: one for one in ones}


def up(one, **changes):
    return PresentProcess(**{"command": one.command, "alive": True, **changes})


def test_everything_starts_servers_first():
    assert plan_actions(named(CONTROLLER, GATEWAY, SERVER), {}, 0.0) == [
        ("start", "server-1"),
        ("start", "gateway"),
        ("start", "controller"),
    ]


def test_nothing_is_done_where_all_is_as_it_should_be():
    assert plan_actions(named(SERVER), {"server-1": up(SERVER)}, 5.0) == []


def test_what_ended_starts_again_when_its_pause_is_over():
    ended = {"server-1": up(SERVER, alive=False, due=7.0)}
    assert plan_actions(named(SERVER), ended, 6.9) == []
    assert plan_actions(named(SERVER), ended, 7.0) == [("start", "server-1")]


def test_a_version_that_nobody_asks_for_is_drained_then_stopped_then_forgotten():
    def of(**changes):
        return plan_actions(named(SERVER), {"server-1": up(SERVER), "server-2": up(OTHER, **changes)}, 0.0)

    assert of(drained=False) == []
    assert of() == [("stop", "server-2")]
    assert of(stopping=True) == []
    assert of(alive=False) == [("forget", "server-2")]


def test_another_command_replaces_the_process():
    changed = WantedProcess(name="server-1", kind="server", command=("serve", "1", "--workers", "2"), version="1")
    assert plan_actions(named(changed), {"server-1": up(SERVER)}, 0.0) == [("stop", "server-1")]
    assert plan_actions(named(changed), {"server-1": up(SERVER, stopping=True)}, 0.0) == []
    assert plan_actions(named(changed), {"server-1": up(SERVER, alive=False)}, 0.0) == [("start", "server-1")]


def test_a_candidate_that_comes_back_while_it_ends_is_started_once_it_has_ended():
    assert plan_actions(named(OTHER), {"server-2": up(OTHER, stopping=True)}, 0.0) == []
    assert plan_actions(named(OTHER), {"server-2": up(OTHER, alive=False)}, 0.0) == [("start", "server-2")]


def test_the_controller_ends_first_and_the_servers_last():
    kinds = {one.name: one.kind for one in (SERVER, GATEWAY, OTHER, CONTROLLER)}
    assert stop_order(kinds) == [["controller"], ["gateway"], ["server-1", "server-2"]]
    assert stop_order({"gateway": "gateway"}) == [["gateway"]]
    assert stop_order({"gateway": "gateway", "agent": "agent", **kinds}) == [
        ["agent", "controller"], ["gateway"], ["server-1", "server-2"],
    ]  # fmt: skip


@given(
    st.sets(st.sampled_from([SERVER, OTHER, GATEWAY, CONTROLLER])),
    st.dictionaries(
        st.sampled_from([SERVER, OTHER, GATEWAY, CONTROLLER]),
        st.builds(lambda alive, changed: (alive, changed), st.booleans(), st.booleans()),
    ),
)
def test_from_anywhere_it_comes_to_what_is_wanted_and_rests(wanted, begin):
    """A world that does what it is told ends with exactly the wanted processes, whatever it began with."""
    want = named(*wanted)
    world = {
        one.name: up(one, alive=alive, command=("old",) if changed else one.command)
        for one, (alive, changed) in begin.items()
    }
    for _ in range(5):
        for verb, name in plan_actions(want, world, 1.0):
            match verb:
                case "start":
                    assert name not in world or not world[name].alive
                    world[name] = up(want[name])
                case "stop":
                    world[name] = PresentProcess(command=world[name].command, alive=False)
                case "forget":
                    del world[name]
    assert world == {name: up(one) for name, one in want.items()}
    assert plan_actions(want, world, 1.0) == []
