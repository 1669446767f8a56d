"""How long labels take, as a project declares it."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from release_servers import project
from releases import MOMENT

from cumulant.core.events import Actor
from cumulant.flows.registry.model_record import MODEL, ModelRecord
from cumulant.flows.release.plan.label_delay import find_label_delay
from cumulant.flows.training.fitted import Fitted, SplitSummary
from cumulant.testing.clock import ManualClock

_SOURCE = "data: {tx: {path: x.csv, event_time: at, known_time: {%s: [fraud]}}}\ntraining: {target: fraud}\n"


@pytest.mark.parametrize(
    ("text", "delay"),
    [
        (_SOURCE % "7d", timedelta(days=7)),
        (_SOURCE % "7d" + "monitoring: {performance: {label_delay: 20d}}\n", timedelta(days=20)),
        (_SOURCE % "chargeback_at", None),
        ("", None),
    ],
)
def test_the_delay_of_labels(tmp_path: Path, text: str, delay: timedelta | None) -> None:
    with project(tmp_path / "late", text, clock=ManualClock(MOMENT)) as found:
        assert find_label_delay(found) == delay


@pytest.mark.parametrize("split", [(MOMENT, MOMENT + timedelta(days=3)), (MOMENT, None), None])
def test_the_delay_of_labels_in_a_column_is_the_gap_of_the_champions_training(
    tmp_path: Path, split: tuple[datetime, datetime | None] | None
) -> None:
    fields = ("fitted", ModelRecord), ("split", Fitted), ("train_to", SplitSummary), ("test_from", SplitSummary)
    assert all(name in kind.__struct_fields__ for name, kind in fields), "the record of a version has another form"
    (servable := tmp_path / "servable").mkdir()
    with project(tmp_path / "late", _SOURCE % "chargeback_at", clock=ManualClock(MOMENT)) as found:
        registry = found.registry()
        with registry.run("late", "1", key="1") as run:
            registry.register(run, "late", servable, [1], tags={}, key="1")
        registry.alias("late", "champion", "1")
        if split is not None:
            gap = {"train_to": split[0], "test_from": split[1], "test_to": None}
            record = msgspec.to_builtins({"run": "r1", "fitted": {"split": gap, "trials": []}})
            with found.journal().transaction(actor=Actor("user:ada")) as transaction:
                transaction.put(MODEL, "late/1", record, expect=0)
        assert find_label_delay(found) == (timedelta(days=3) if split and split[1] else None)
