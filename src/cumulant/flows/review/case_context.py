"""What a case shows of the log, of the model and of training rows; what cases have in common is read once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from cumulant.core.errors import NotFoundError, UsageError
from cumulant.core.servable import GraphServable, Servable
from cumulant.flows.registry.version_servable import describe_servable

if TYPE_CHECKING:
    from cumulant.project.project import Project
    from cumulant.review.cases import ReviewCase
    from cumulant.review.reasons import ReviewReference

_Place = tuple[str, int, int]


class CaseReader:
    """Reads the immutable context of cases once for a reviewer's session. Thread-safe."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._waiting: tuple[ReviewCase, ...] = ()
        self._rows: dict[_Place, dict[str, Any]] = {}
        self._described: dict[str, Servable | GraphServable] = {}
        self._references: dict[str, ReviewReference] = {}

    def expect(self, cases: Iterable[ReviewCase]) -> None:
        """These cases will be read: the rows of a day are read together."""
        self._waiting = tuple(cases)

    def row(self, case: ReviewCase) -> dict[str, Any] | None:
        """The case's row of the prediction log; None where it is no longer kept. Raises StorageError."""
        place = (case.worker, case.sequence, case.row)
        if place not in self._rows:
            day = case.time.date()
            self._rows |= self._read(day, [case, *(waiting for waiting in self._waiting if waiting.time.date() == day)])
        return self._rows.get(place)

    def _read(self, day: date, cases: Sequence[ReviewCase]) -> dict[_Place, dict[str, Any]]:
        from cumulant.serving.prediction_log.storage.log_reader import numbered_rows

        numbers = sorted({case.sequence for case in cases})
        rows = numbered_rows(self._project.log(), day, numbers, {case.worker for case in cases})
        return {(row["worker"], row["sequence"], row["row"]): row for row in rows}

    def described(self, model: str, version: str) -> Servable | GraphServable | None:
        """The version's servable; None where it is not registered or its files are missing."""
        name = f"{model}/{version}"
        if name not in self._described:
            try:
                resolved = self._project.registry().resolve(name)
                self._described[name] = describe_servable(self._project, resolved)
            except NotFoundError:
                return None
        return self._described[name]

    def reference(self, model: str, version: str) -> ReviewReference | None:
        """The stored training rows of a version; showing a case does not make them."""
        from cumulant.flows.review.review_reference import stored_reference

        name = f"{model}/{version}"
        if name not in self._references:
            try:
                reference = stored_reference(self._project, self._project.registry().resolve(name))
            except (NotFoundError, UsageError):
                reference = None
            if reference is None:
                return None
            self._references[name] = reference
        return self._references[name]
