"""How long labels take, as a project declares it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from release_servers import project
from releases import MOMENT

from cumulant.runtime.release.label_delay import label_delay
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
        assert label_delay(found) == delay
