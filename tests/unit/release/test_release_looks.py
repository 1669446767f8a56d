"""The recorded looks of a release: what is kept of each, and that old ones are thinned."""

import msgspec
from releases import MOMENT, World, played, release, remembered

from cumulant.core.traffic import CANDIDATE
from cumulant.release.decide import decide
from cumulant.release.evidence.accumulate import count_look
from cumulant.release.evidence.look_recording import MOST_LOOKS, add_look
from cumulant.release.look_history import LookHistory
from cumulant.release.state import Board
from cumulant.testing.clock import ManualClock


def played_with_looks(now, world, *, most=400, clock=None):
    """The release over looks until it ends, and its history."""
    clock, history = clock or ManualClock(MOMENT), None
    for _ in range(most):
        counted, skewed = count_look(now, world.look(now))
        history = add_look(history, counted, at=clock.now())
        now = decide(counted, skewed=skewed, at=clock.now())
        if now.over:
            break
    return now, history


def test_the_last_look_of_a_harmful_candidate_is_the_one_that_rolled_it_back():
    world = World(seed=3, errors={"candidate": 0.05})
    now = played(world, remembered(release()), until="canary 10%")
    now, history = played_with_looks(now, world)
    assert now.status == "rolled_back"
    errors = history.metrics["errors"]
    assert [look.harmful for look in errors.looks] == [False] * (len(errors.looks) - 1) + [True]
    last, board = errors.looks[-1], now.boards["errors"]
    assert last.harm >= errors.harm_bar
    assert (last.low, last.high) == (board.low, board.high)
    assert last.low > 0
    assert msgspec.convert(msgspec.to_builtins(history), LookHistory) == history


def test_a_look_without_new_evidence_is_not_recorded():
    world = World(seed=1)
    now = played(world, remembered(release()), until="canary 10%")
    counted, _ = count_look(now, world.look(now))
    history = add_look(None, counted, at=MOMENT)
    assert add_look(history, counted, at=MOMENT) == history
    assert "disagreement" not in history.metrics  # it has no margin here, and decides nothing


def test_old_looks_are_thinned_and_the_ends_of_steps_stay():
    now, history, ends = release(status="running"), None, {}
    for number in range(3 * MOST_LOOKS):
        board = Board(
            metric="errors", margin=0.005, harm_bar=4.0, fine_bar=3.0, most_harm=number / 1000, samples={CANDIDATE: 1}
        )
        now = msgspec.structs.replace(now, boards={"errors": board}, at=number // 100 % 2, seconds=float(number))
        history = add_look(history, now, at=MOMENT)
        looks = history.metrics["errors"].looks
        assert len(looks) <= MOST_LOOKS
        assert looks[-1].seconds == number
        ends |= {number - number % 100: looks[-1]}
    assert set(ends.values()) <= set(looks)
    assert looks[0].seconds == 0
    assert [look.seconds for look in looks] == sorted({look.seconds for look in looks})
