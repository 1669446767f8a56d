"""What the rule of retraining says of a look, and what the look leaves behind: one transaction, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from cumulant.flows.monitoring.state import (
    TRAINING,
    WATCH,
    Standing,
    Wanted,
    is_same,
    read_left,
    read_wanted,
    said_by,
    write,
)
from cumulant.monitoring.events import PerformanceLooked, RetrainingAsked
from cumulant.monitoring.policy import RetrainAction, RetrainEvidence, RetrainState, decide

if TYPE_CHECKING:
    from cumulant.flows.ledger.run_context import Context
    from cumulant.flows.monitoring.result import Judged
    from cumulant.ports.journal import Transaction
    from cumulant.project.project import Project

#: makes alerts of what was found, in a transaction where there is one
Tell = Callable[["Judged", "Transaction | None"], None]


def decided(
    project: Project, standing: Standing, evidence: RetrainEvidence, *, fresh: bool, waited: bool
) -> tuple[RetrainState, RetrainAction]:
    """The rule's word. A look without a new window says nothing new of harm; only time may then ask, unless harm was
    a reason at the look before, which `waited` for something else, such as sound data.
    """
    terms = project.policies.monitoring.retrain
    wanted, _ = read_wanted(project.journal(), project.name)
    if wanted is not None and wanted.open:
        said = f"A training is on its way: {wanted.sentence}"
        return standing.retrain, RetrainAction(do="nothing", trigger=None, sentence=said)
    if not (fresh or waited):
        terms = msgspec.structs.replace(terms, on_harm=False)
    state, action = decide(standing.retrain, evidence, terms)
    return (state if fresh or action.do == "train" else standing.retrain), action


def remember(
    context: Context, before: Standing | None, after: Standing, found: Judged, *, expect: int, tell: Tell
) -> None:
    """Write down what was counted, with its events, its alerts and the training that it asks for; what a look that saw
    nothing new would say again is not written. `before`: the watch as it was read; `expect`: its version.

    Raises:
        LeaseHeldError: another process has looked meanwhile.
    """
    fact = _fact(after, found)
    after = msgspec.structs.replace(after, looked=said_by(fact))
    if before is not None and is_same(before, after):
        tell(found, None)
        return
    _, seen = read_wanted(context.project.journal(), found.model)
    with context.transaction() as transaction:
        if before is not None and before.version != after.version:
            _, left = read_left(transaction, found.model, before.version)
            write(transaction, WATCH, f"{found.model}/{before.version}", before, expect=left)
        write(transaction, WATCH, found.model, after, expect=expect)
        if found.fresh or before is None or before.looked != after.looked:
            transaction.emit(fact)
        if found.action.do == "train":
            _ask(transaction, found, expect=seen)
        tell(found, transaction)


def _fact(after: Standing, found: Judged) -> PerformanceLooked:
    last, action = found.harm, found.action
    return PerformanceLooked(
        model=found.model, version=after.version, until=after.until.isoformat(), windows=found.fresh,
        word="cannot_tell" if last is None else last.word, change=None if last is None else last.kind,
        action=action.do, reason=action.sentence,
    )  # fmt: skip


def _ask(transaction: Transaction, found: Judged, *, expect: int) -> None:
    trigger, sentence = found.action.trigger, found.action.sentence
    assert trigger is not None
    since = found.harm_since if trigger == "harm" else None
    wanted = Wanted(asked=found.at, champion=found.version, trigger=trigger, sentence=sentence, since=since)
    write(transaction, TRAINING, found.model, wanted, expect=expect)
    transaction.emit(RetrainingAsked(model=found.model, champion=found.version, trigger=trigger, reason=sentence))
