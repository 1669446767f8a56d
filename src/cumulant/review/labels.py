"""Decisions as labels: rows for the store of outcomes, with their reviewer and weight."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.ids import digest
from cumulant.core.masking import mask
from cumulant.review.cases import ReviewCase
from cumulant.review.policy import ReviewPolicy

if TYPE_CHECKING:
    from cumulant.core.clock import Clock
    from cumulant.outcomes.labels.ingest import IngestResult
    from cumulant.outcomes.labels.label_rows import LabelSchema
    from cumulant.outcomes.logs import OutcomeLogs

#: the name of the queue's labels wherever labels are shown
SOURCE = "review"


class ReviewedLabel(msgspec.Struct, frozen=True, kw_only=True):
    """One decision that holds. `weight`: how many rows of the log the case represents."""

    case: str
    id: str
    row: int
    model: str
    label: object
    known_time: datetime
    weight: float
    chance: float
    reviewers: tuple[str, ...]
    reasons: tuple[str, ...]
    ref: str | None


def to_label(case: ReviewCase, policy: ReviewPolicy, salt: bytes) -> ReviewedLabel:
    """The label of a done case."""
    decisive = [answer for answer in case.decisions if answer.label == case.label]
    assert case.label is not None
    return ReviewedLabel(
        case=case.id,
        id=case.request,
        row=case.row,
        model=case.model,
        label=msgspec.json.decode(case.label),
        known_time=max((answer.at for answer in decisive), default=case.closed or case.queued),
        weight=case.weight,
        chance=case.chance,
        reviewers=tuple(reviewer_name(answer.reviewer, policy, salt) for answer in decisive),
        reasons=case.reasons,
        ref=case.ref,
    )


def reviewer_name(reviewer: str, policy: ReviewPolicy, salt: bytes) -> str:
    """A reviewer as declared: by name, or as a keyed hash."""
    return reviewer if policy.reviewers == "named" else mask(reviewer, salt)


def ingest_labels(
    logs: OutcomeLogs,
    labels: Sequence[ReviewedLabel],
    schema: LabelSchema,
    *,
    salt: bytes,
    clock: Clock | None = None,
) -> IngestResult:
    """Ingest decisions as labels, idempotently; a record beside the labels names their origin.

    Raises:
        StorageError: as `outcomes.ingest_file`.
    """
    from cumulant.outcomes.labels.ingest import ingest_file
    from cumulant.outcomes.logs import writing_to

    name, lines = f"{digest(labels)[:16]}.jsonl", b"".join(msgspec.json.encode(label) + b"\n" for label in labels)
    logs.labels.put_state(f"{SOURCE}/{name}", lines)
    with TemporaryDirectory(prefix="cumulant-review-") as scratch:
        path = Path(scratch) / name
        with writing_to(str(path)):
            path.write_bytes(lines)
        return ingest_file(logs, path, schema, names={"id": "id"}, salt=salt, source=SOURCE, clock=clock)
