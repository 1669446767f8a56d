"""What a rollback still owes to journal and registry: kept in the book until they were told, and told again till then.

A rollback needs neither of the two. What they do not take at once is noted beside what serves, and the controller
makes it so when they answer again. Each part compares before it changes, so that done twice it is done once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import msgspec

from cumulant.core.errors import CumulantError, LeaseHeldError, NotFoundError
from cumulant.core.events import Actor
from cumulant.flows.ledger.processes import is_gone
from cumulant.flows.registry.models import CHAMPION, ModelAliased
from cumulant.flows.release.controller.background import Beside
from cumulant.flows.stack.desired_state import Return, change_book, read_book
from cumulant.release.events import RolledBack

if TYPE_CHECKING:
    from cumulant.ports.journal import Journal
    from cumulant.project.project import Project

#: rows of rollbacks in the journal, written with their event: by model and moment
RETURNED = "release_returned"
#: what a rollback owes, in order
EVENT, ALIAS = "event", "alias champion"
#: between two tries of what could not be told
_PAUSE = 30.0


def tell_event(project: Project, model: str, one: Return) -> None:
    """The event and its row, once.

    Raises:
        CumulantError: the journal cannot be reached.
    """
    fact = RolledBack(model=model, given_up=", ".join(one.given_up), version=one.version, reason=one.reason, at=one.at)
    try:
        with project.journal().transaction(actor=Actor(one.by, one.reason)) as transaction:
            transaction.put(RETURNED, f"{model}/{one.at.isoformat()}/{one.version}", _plain(one), expect=0)
            transaction.emit(fact)
    except LeaseHeldError:  # told before, and cut off before that was noted
        return


def tell_alias(project: Project, model: str, one: Return) -> None:
    """The alias `champion` on the version, unless another has been brought to callers since.

    Raises:
        CumulantError: the registry cannot be reached, or does not know the version.
    """
    if "://" in one.version or read_book(project.state, model).champion not in (None, one.version):
        return
    registry = project.registry()
    try:
        present = registry.resolve(f"{model}@{CHAMPION}").version
    except NotFoundError:
        present = None
    if present == one.version:
        return
    registry.alias(model, CHAMPION, one.version)
    with project.journal().transaction(actor=Actor(one.by, one.reason)) as transaction:
        transaction.emit(ModelAliased(model=model, alias=CHAMPION, version=one.version))


TELLING: dict[str, Callable[[Project, str, Return], None]] = {EVENT: tell_event, ALIAS: tell_alias}


def noted(project: Project, model: str, one: Return) -> None:
    """Put a rollback into the book in place of what it said of it; one that owes nothing is no longer in it.

    Raises:
        StorageError, IntegrityError: as `change_book`.
    """
    change_book(project.state, model, lambda book: msgspec.structs.replace(book, returns=_with(book.returns, one)))


def _with(returns: tuple[Return, ...], one: Return) -> tuple[Return, ...]:
    others = tuple(other for other in returns if (other.at, other.version) != (one.at, one.version))
    return (*others, one) if one.owed else others


def _plain(one: Return) -> dict[str, object]:
    return cast("dict[str, object]", msgspec.to_builtins(msgspec.structs.replace(one, owed=(), teller=None)))


def owing(project: Project) -> tuple[Return, ...]:
    """Rollbacks of the project's model that still owe something, and that nobody is busy telling of.

    Raises:
        IntegrityError: the book is damaged.
    """
    book = read_book(project.state, project.name)
    free = (one for one in book.returns if one.teller is None or is_gone(one.teller))
    return tuple(free) if book.model == project.name else ()


def known(journal: Journal, model: str) -> list[Return]:
    """Rollbacks of a model that the journal was told of, the oldest first."""
    found = (msgspec.convert(row.value, Return) for row in journal.rows(RETURNED, f"{model}/"))
    return sorted(found, key=lambda one: one.at)


def returns(project: Project, model: str) -> list[Return]:
    """All rollbacks of a model, the oldest first: those that the journal knows, and those that it was not told yet.

    Raises:
        CumulantError: the journal cannot be reached, or the book is damaged.
    """
    found = known(project.journal(), model)
    book = read_book(project.state, project.name)
    if model == project.name == book.model:
        found += [one for one in book.returns if EVENT in one.owed]
    return sorted(found, key=lambda one: one.at)


def settle(project: Project, report: Callable[[str], None]) -> None:
    """Tell what is owed, and say in a sentence what was told, or waits on."""
    try:
        for one in owing(project):
            report(_settled(project, one))
    except CumulantError as error:
        report(f"a rollback is not told yet: {project.vault.redact(error.message)}")


def _settled(project: Project, one: Return) -> str:
    faults = {}
    for name in one.owed:
        try:
            TELLING[name](project, project.name, one)
        except CumulantError as error:
            faults[name] = project.vault.redact(error.message)
    noted(project, project.name, msgspec.structs.replace(one, owed=tuple(faults), teller=None))
    if faults:
        left = "; ".join(f"{name}: {fault}" for name, fault in faults.items())
        return f"the rollback to version {one.version} is not told yet: {left}"
    return f"the rollback to version {one.version} is told now: {', '.join(one.owed)}"


class Owed:
    """Settles beside the controller's rounds, half a minute after the last try at the earliest."""

    def __init__(
        self, project: Project, report: Callable[[str], None], *, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self._project, self._report, self._steady = project, report, steady
        self._beside = Beside("a rollback is not told yet", report, project.vault.redact)
        self._next: float | None = None

    def tick(self) -> threading.Thread | None:
        """Begin to settle if something is owed; the thread that does it."""
        now = self._steady()
        early = self._next is not None and now < self._next
        if self._beside.busy or early or not _owes(self._project):
            return None
        self._next = now + _PAUSE
        return self._beside.begin(lambda: settle(self._project, self._report))


def _owes(project: Project) -> bool:
    try:
        return bool(owing(project))
    except CumulantError:  # `settle` says what is wrong with the book
        return True
