"""`project.subjects`: where rows of one person are, and their erasure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.api.errors import short_methods
from cumulant.api.group import MethodGroup

if TYPE_CHECKING:
    from cumulant.flows.subjects.subjects import Erasure, FoundSubject, SubjectAdmitted


@short_methods
class ProjectSubjects(MethodGroup):
    """What a project holds of one subject (a person, a customer)."""

    def find(self, value: str, *, source: str = "") -> FoundSubject:
        """The places that hold rows of the subject or its keyed hash, as `cumulant subjects find`.

        Raises:
            UsageError: no source declares a subject.
            NotFoundError: there is no such source.
        """
        from cumulant.flows.subjects.subjects import find_subject

        with self._follow("find subject") as progress:
            return find_subject(self._loaded, value, principal=self._principal, source=source, progress=progress)

    def erase(self, value: str, *, source: str = "") -> Erasure:
        """Erase what can be erased of the subject, and search again, as `cumulant subjects erase --yes`.

        Where the result is `pending`, its receipts say why; call it again.

        Raises:
            UsageError: no source declares a subject.
            NotFoundError: there is no such source.
        """
        from cumulant.flows.subjects.subjects import erase_subject

        with self._follow("erase subject") as progress:
            return erase_subject(self._loaded, value, principal=self._principal, source=source, progress=progress)

    def admit(self, value: str, *, source: str = "") -> SubjectAdmitted:
        """Read rows of an erased subject again, of events after its erasure, as `cumulant subjects admit`.

        Raises:
            UsageError: no source declares a subject; a source has no event time.
            NotFoundError: there is no such source, or the subject was not erased there.
        """
        from cumulant.flows.subjects.subjects import admit_subject

        with self._follow("admit subject") as progress:
            return admit_subject(self._loaded, value, principal=self._principal, source=source, progress=progress)
