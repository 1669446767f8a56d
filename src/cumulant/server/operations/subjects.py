"""Personal data of one subject: what is stored, erasure, admission."""

from __future__ import annotations

import msgspec

from cumulant.flows.subjects.subjects import (
    Erasure,
    FoundSubject,
    SubjectAdmitted,
    admit_subject,
    erase_subject,
    find_subject,
)
from cumulant.server.operation import ApiCall, post


class SubjectBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`value`: the value of the subject's column; `source`: only of that source. In the body, so that it is in no log
    of addresses.
    """

    value: str
    source: str = ""


@post("/subjects/find", action="subjects.find", long=True, personal=True)
def find(call: ApiCall, body: SubjectBody) -> FoundSubject:
    """Find what is stored of a subject."""
    return find_subject(call.project, body.value, principal=call.principal, source=body.source, progress=call.progress)


@post("/subjects/erase", action="subjects.erase", long=True, personal=True)
def erase(call: ApiCall, body: SubjectBody) -> Erasure:
    """Erase what is stored of a subject."""
    return erase_subject(call.project, body.value, principal=call.principal, source=body.source, progress=call.progress)


@post("/subjects/admit", action="subjects.admit", long=True)
def admit(call: ApiCall, body: SubjectBody) -> SubjectAdmitted:
    """Read new rows of an erased subject again."""
    return admit_subject(call.project, body.value, principal=call.principal, source=body.source, progress=call.progress)


OPERATIONS = (find, erase, admit)
