"""The recorded looks of a release: what is kept of each, and that old ones are thinned."""

import msgspec
from releases import MOMENT, World, played, release, remembered

from cumulant.core.traffic import CANDIDATE
from cumulant.release.decide import decide, start
from cumulant.release.evidence.accumulate import count_look
from cumulant.release.evidence.look import PerArm
from cumulant.release.evidence.look_recording import MOST_LOOKS, add_look
from cumulant.release.evidence.metric_state import LookBlock, Tempering, with_block, with_interval
from cumulant.release.evidence.metrics import metrics
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


def test_the_interval_weighs_requests_that_depend_on_each_other_as_the_evidence_does():
    now = start(remembered(release()))
    now, _ = count_look(now, World(seed=1).look(now))
    metric, boards = metrics(now.policy)["errors"], []
    block = LookBlock(units=PerArm(champion=2000, candidate=2000), bad=PerArm(champion=30, candidate=30))
    for weight in (1.0, 1 / 4):
        board = now.boards["errors"]
        for _ in range(12):
            board = with_block(board, metric, block, step=0, tempering=Tempering(champion=weight, candidate=weight))
        boards.append(with_interval(board))
    alone, four = boards
    assert four.low < alone.low < 0 < alone.high < four.high
    assert four.fine < alone.fine


def test_a_look_without_new_evidence_is_not_recorded():
    world = World(seed=1)
    now = played(world, remembered(release()), until="canary 10%")
    counted, _ = count_look(now, world.look(now))
    history = add_look(None, counted, at=MOMENT)
    assert add_look(history, counted, at=MOMENT) == history
    assert "disagreement" not in history.metrics  # it has no margin here, and decides nothing
    old = {name: msgspec.structs.replace(each, kind=None, looks=()) for name, each in history.metrics.items()}
    assert add_look(msgspec.structs.replace(history, metrics=old), counted, at=MOMENT) == history


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
