"""The outbox of rollbacks: what journal and registry were not sent yet, stored in the desired state and retried.

A rollback needs neither of the two. What they do not take at once is noted beside what serves, and the controller
makes it so when they answer again. Each part compares before it changes, so that done twice it is done once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, cast

import msgspec

from cumulant.core.errors import CumulantError, LeaseHeldError, NotFoundError
from cumulant.core.events import Actor
from cumulant.flows.deployment.deployment import deployment_of
from cumulant.flows.ledger.lease import await_lease
from cumulant.flows.registry.models import CHAMPION, ModelAliased
from cumulant.flows.stack.desired_state import Rollback
from cumulant.release.events import RolledBack

if TYPE_CHECKING:
    from cumulant.ports.journal import Journal
    from cumulant.project.project import Project


#: rows of rollbacks in the journal, written with their event: by model and moment
RETURNED = "release_returned"
#: what a rollback delivers, in order
EVENT, ALIAS = "event", "alias champion"
#: seconds between two attempts of a failed delivery
_PAUSE = 30.0
_ACTOR = Actor("service:release-controller")
#: the lease of whoever delivers the rollbacks of a model, and its length in seconds
DELIVERY, DELIVERY_SECONDS = "rollback_delivery/{model}", 15.0


def emit_rollback(project: Project, model: str, rollback: Rollback) -> None:
    """The event and its row, once.

    Raises:
        CumulantError: the journal cannot be reached.
    """
    fact = RolledBack(
        model=model,
        given_up=", ".join(rollback.given_up),
        version=rollback.version,
        reason=rollback.reason,
        at=rollback.at,
        rollback=rollback.id,
    )
    try:
        with project.journal().transaction(actor=Actor(rollback.by, rollback.reason)) as transaction:
            transaction.put(RETURNED, f"{model}/{rollback.id}", _plain(rollback), expect=0)
            transaction.emit(fact)
    except LeaseHeldError:  # delivered before, and killed before that was recorded
        return


def move_champion_alias(project: Project, model: str, rollback: Rollback) -> None:
    """The alias `champion` on the version, unless another version serves since.

    Raises:
        CumulantError: the registry cannot be reached, or does not know the version.
    """
    if "://" in rollback.version or deployment_of(project).read(model).champion not in (None, rollback.version):
        return
    registry = project.registry()
    try:
        present = registry.resolve(f"{model}@{CHAMPION}").version
    except NotFoundError:
        present = None
    if present == rollback.version:
        return
    registry.alias(model, CHAMPION, rollback.version)
    with project.journal().transaction(actor=Actor(rollback.by, rollback.reason)) as transaction:
        transaction.emit(ModelAliased(model=model, alias=CHAMPION, version=rollback.version))


DELIVERIES: dict[str, Callable[[Project, str, Rollback], None]] = {EVENT: emit_rollback, ALIAS: move_champion_alias}


def store_rollback(project: Project, model: str, rollback: Rollback) -> None:
    """Put a rollback into the desired state in place of what it said of it; one that owes nothing is no longer in it.

    Raises:
        StorageError, IntegrityError: as `Deployment.change`.
    """
    deployment_of(project).change(
        model, lambda desired: msgspec.structs.replace(desired, rollbacks=_with(desired.rollbacks, rollback))
    )


def _with(returns: tuple[Rollback, ...], rollback: Rollback) -> tuple[Rollback, ...]:
    others = tuple(other for other in returns if other.id != rollback.id)
    return (*others, rollback) if rollback.pending else others


def _plain(rollback: Rollback) -> dict[str, object]:
    return cast("dict[str, object]", msgspec.to_builtins(msgspec.structs.replace(rollback, pending=())))


def undelivered_rollbacks(project: Project) -> tuple[Rollback, ...]:
    """Rollbacks of the project's model of which something is not delivered yet.

    Raises:
        IntegrityError: the desired state is damaged.
    """
    desired = deployment_of(project).read(project.name)
    return desired.rollbacks if desired.model == project.name else ()


def recorded_rollbacks(journal: Journal, model: str) -> list[Rollback]:
    """Rollbacks of a model in the journal, the oldest first."""
    rollbacks = (msgspec.convert(row.value, Rollback) for row in journal.rows(RETURNED, f"{model}/"))
    return sorted(rollbacks, key=lambda rollback: rollback.at)


def list_rollbacks(project: Project, model: str, report: Callable[[str], None] | None = None) -> list[Rollback]:
    """All rollbacks of a model, the oldest first: those in the journal and those that are not delivered yet.

    Where the desired state cannot be read, `report` gets a sentence, and the list is of the journal alone.

    Raises:
        CumulantError: the journal cannot be reached, or the desired state cannot be read and there is no `report`.
    """
    # First what is not delivered: what is delivered meanwhile is in the journal then.
    undelivered: Sequence[Rollback] = ()
    if model == project.name:
        try:
            undelivered = undelivered_rollbacks(project)
        except CumulantError as error:
            if report is None:
                raise
            report(f"rollbacks that the journal has not received yet are not shown: {error.message}")
    known = {rollback.id: rollback for rollback in undelivered if EVENT in rollback.pending}
    known |= {rollback.id: rollback for rollback in recorded_rollbacks(project.journal(), model)}
    return sorted(known.values(), key=lambda rollback: rollback.at)


def deliver_rollbacks(project: Project, report: Callable[[str], None]) -> None:
    """Deliver what is pending, unless another process does, and report in a sentence what was delivered or waits."""
    try:
        if not undelivered_rollbacks(project):
            return
        with _delivery_lease(project) as is_free:
            for rollback in undelivered_rollbacks(project) if is_free else ():
                report(_deliver_rollback(project, rollback))
    except CumulantError as error:
        report(f"a rollback is not recorded yet: {project.vault.redact(error.message)}")


@contextmanager
def _delivery_lease(project: Project) -> Iterator[bool]:
    """Whether this process may deliver. Without a journal it may: each part compares before it changes."""
    name = DELIVERY.format(model=project.name)
    try:
        lease = await_lease(project.journal(), name, ttl=DELIVERY_SECONDS, actor=_ACTOR)
    except CumulantError:
        yield True
        return
    with nullcontext() if lease is None else lease.renewed():
        yield lease is not None


def _deliver_rollback(project: Project, rollback: Rollback) -> str:
    faults = {}
    for name in rollback.pending:
        try:
            DELIVERIES[name](project, project.name, rollback)
        except CumulantError as error:
            faults[name] = project.vault.redact(error.message)
    store_rollback(project, project.name, msgspec.structs.replace(rollback, pending=tuple(faults)))
    if faults:
        undelivered = "; ".join(f"{name}: {fault}" for name, fault in faults.items())
        return f"the rollback to version {rollback.version} is not recorded yet: {undelivered}"
    return f"the rollback to version {rollback.version} is recorded now: {', '.join(rollback.pending)}"


class RollbackOutbox:
    """Delivers rollbacks in the background of the controller, at most once in half a minute."""

    def __init__(
        self, project: Project, report: Callable[[str], None], *, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self._project, self._report, self._steady = project, report, steady
        self._beside = BackgroundTask("a rollback is not recorded yet", report, project.vault.redact)
        self._next: float | None = None

    def tick(self) -> threading.Thread | None:
        """Begin a delivery if one is pending; the thread that does it."""
        now = self._steady()
        early = self._next is not None and now < self._next
        if self._beside.busy or early or not _has_undelivered(self._project):
            return None
        self._next = now + _PAUSE
        return self._beside.begin(lambda: deliver_rollbacks(self._project, self._report))


def _has_undelivered(project: Project) -> bool:
    try:
        return bool(undelivered_rollbacks(project))
    except CumulantError:  # `deliver_rollbacks` says what is wrong with the desired state
        return True


class BackgroundTask:
    """One piece of work at a time, in a thread that ends with the process.

    Args:
        what: begins the sentence that reports a failure.
        redact: takes secrets out of that sentence.
    """

    def __init__(self, what: str, report: Callable[[str], None], redact: Callable[[str], str]) -> None:
        self._what, self._report, self._redact = what, report, redact
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def begin(self, work: Callable[[], None]) -> threading.Thread:
        """The thread that does it; call this only while it is not busy."""
        self._thread = threading.Thread(target=self._do, args=(work,), daemon=True)
        self._thread.start()
        return self._thread

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except CumulantError as error:
            self._report(f"{self._what}: {self._redact(error.message)}")
        except Exception as error:  # noqa: BLE001 - the edge: a driver's fault is reported, and tried again
            self._report(f"{self._what}: {self._redact(f'{type(error).__name__}: {error}')}")
