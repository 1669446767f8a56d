"""Find and erase what a project holds of a subject, and admit it again."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

import msgspec

from cumulant.core.errors import NotFoundError, UsageError, not_found
from cumulant.core.events import Fact
from cumulant.core.progress import Progress, silent
from cumulant.flows.data.erasures import read_erasure, write_erasure
from cumulant.flows.ledger.actions import verb
from cumulant.flows.ledger.run_context import open_run
from cumulant.flows.subjects.places import Receipt, Subject, SubjectPlace, subject_of
from cumulant.flows.subjects.stores import STORES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cumulant.flows.data.erasures import RecordedErasure
    from cumulant.flows.ledger.run_context import Context
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project


class SubjectErased(Fact, frozen=True, kw_only=True):
    """An erasure ended. `subject` is the keyed hash; `stores`: what became of it in each."""

    kind: ClassVar[str] = "subjects.erased"

    subject: str
    sources: tuple[str, ...]
    stores: dict[str, str]
    #: records that are remaining, hashes included
    remaining: int


class SubjectAdmitted(Fact, frozen=True, kw_only=True):
    """New rows of an erased subject are read. `subject` is the keyed hash; `since`: events from then on, by source."""

    kind: ClassVar[str] = "subjects.admitted"

    subject: str
    since: dict[str, datetime]


class FoundSubject(msgspec.Struct, frozen=True, kw_only=True):
    """Where a subject is. `subject`: its keyed hash."""

    subject: str
    sources: tuple[str, ...]
    places: tuple[SubjectPlace, ...]


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """What an erasure did, and the places that a new search found afterwards."""

    subject: str
    sources: tuple[str, ...]
    receipts: tuple[Receipt, ...]
    remaining: tuple[SubjectPlace, ...]

    @property
    def pending(self) -> bool:
        """Whether something waits for another run."""
        return any(receipt.status == "pending" for receipt in self.receipts)


@verb("subjects.find", personal=True)
def find_subject(
    project: Project, value: str, *, principal: Principal, source: str = "", progress: Progress = silent
) -> FoundSubject:
    """The places that hold rows of a subject, or its hash; of one source's subjects, else of all.

    Raises:
        UsageError: no source declares a subject.
        NotFoundError: there is no such source.
    """
    subject = _subject(project, value, source)
    with open_run(project, "find subject", principal=principal, progress=progress) as context:
        places = _search(context, subject)
    return FoundSubject(subject=subject.hash, sources=tuple(subject.columns), places=tuple(places))


@verb("subjects.erase", personal=True)
def erase_subject(
    project: Project, value: str, *, principal: Principal, source: str = "", progress: Progress = silent
) -> Erasure:
    """Erase what can be erased of a subject, say of the rest why it stays, and search again.

    It may be cut off and run again.

    Raises:
        UsageError, NotFoundError: as `find_subject`.
    """
    subject = _subject(project, value, source)
    with open_run(project, "erase subject", principal=principal, progress=progress) as context:
        receipts = []
        for store in STORES:
            if store.erase is not None:
                context.progress(f"erasing: {store.name}")
                receipts.append(store.erase(context, subject))
        remaining = _search(context, subject)
        context.emit(
            SubjectErased(
                subject=subject.hash,
                sources=tuple(subject.columns),
                stores={receipt.store: receipt.status for receipt in receipts},
                remaining=sum(place.rows for place in remaining),
            )
        )
    return Erasure(
        subject=subject.hash, sources=tuple(subject.columns), receipts=tuple(receipts), remaining=tuple(remaining)
    )


@verb("subjects.admit")
def admit_subject(
    project: Project, value: str, *, principal: Principal, source: str = "", progress: Progress = silent
) -> SubjectAdmitted:
    """Read rows of an erased subject again: those of events after its erasure, which the next run on the data reads.

    Earlier rows stay out, such as those of a file that is delivered again.

    Raises:
        UsageError: no source declares a subject; a source has no event time.
        NotFoundError: there is no such source, or the subject was not erased there.
    """
    subject = _subject(project, value, source)
    with (
        open_run(project, "admit subject", principal=principal, progress=progress) as context,
        context.transaction() as transaction,
    ):
        recorded = {name: read_erasure(transaction, name, subject.hash) for name in subject.columns}
        erasures = {name: erasure for name, erasure in recorded.items() if erasure is not None}
        _check_admission(project, subject, erasures)
        for name, erasure in erasures.items():
            admitted = msgspec.structs.replace(erasure, admitted=erasure.admitted or context.now())
            write_erasure(transaction, name, subject.hash, admitted)
        since = {name: erasure.at for name, erasure in erasures.items()}
        fact = SubjectAdmitted(subject=subject.hash, since=since)
        transaction.emit(fact)
    return fact


def _check_admission(project: Project, subject: Subject, erasures: Mapping[str, RecordedErasure]) -> None:
    if not erasures:
        raise NotFoundError(
            f"no erasure of {subject.hash} is recorded, so that its rows are read",
            subject=subject.hash,
            hint="check the value, and that the environment has the salt of the erasure",
        )
    for name in erasures:
        if project.policies.sources[name].spec.time is None:
            raise UsageError(
                f"{name} has no event time, by which rows from before the erasure would be told from later ones",
                subject=name,
                hint=f"declare data.{name}.event_time, or admit the subject to another source with --source",
            )


def _search(context: Context, subject: Subject) -> list[SubjectPlace]:
    places: list[SubjectPlace] = []
    for store in STORES:
        if store.find is not None:
            context.progress(f"searching: {store.name}")
            places += store.find(context, subject)
    return places


def _subject(project: Project, value: str, source: str) -> Subject:
    declared = {
        name: policy.spec.subject
        for name, policy in project.policies.sources.items()
        if policy.spec.subject is not None
    }
    if source and source not in project.policies.sources:
        raise not_found("source", source, project.policies.sources)
    chosen = {name: column for name, column in declared.items() if source in ("", name)}
    if not chosen:
        raise UsageError(
            f"{source or 'no source'} declares {'no ' if source else 'a '}subject: whose row a row is",
            subject=source or project.name,
            hint="write under data: SOURCE: `subject: COLUMN`",
        )
    if not value:
        raise UsageError("an empty text names nobody", hint="write the value of the subject's column")
    return subject_of(value, project.salt(), chosen)
