"""Decisions become labels once, and who decided is recorded beside them, for every machine."""

import json
from datetime import UTC, datetime

from cumulant.outcomes.labels.label_facts import newest_labels
from cumulant.outcomes.labels.label_rows import LabelSchema
from cumulant.outcomes.logs import OutcomeLogs
from cumulant.review.labels import ReviewedLabel, ingest_labels
from cumulant.testing.log import folder_log

KNOWN = datetime(2026, 10, 1, tzinfo=UTC)


def test_decisions_are_labels_once_with_a_record_of_their_origin(tmp_path):
    logs = OutcomeLogs(*(folder_log(tmp_path / name) for name in ("labels", "joined", "inbox")))
    decided = ReviewedLabel(
        case="c1",
        id="r1",
        row=2,
        model="late",
        label=True,
        known_time=KNOWN,
        weight=40.0,
        chance=0.025,
        reviewers=("#ada",),
        reasons=("unsure",),
        ref=None,
    )
    schema = LabelSchema(task="binary", classes=(False, True))
    taken = [ingest_labels(logs, [decided], schema, salt=b"") for _ in range(2)]
    assert [one.again for one in taken] == [False, True]
    ((label,), total) = newest_labels(logs, datetime.now(UTC))
    assert (label.id, label.row, label.weight, label.source, total) == ("r1", 2, 40.0, "review", 1)
    (record,) = logs.labels.states("review")
    assert (json.loads(record)["reviewers"], json.loads(record)["chance"]) == (["#ada"], 0.025)
