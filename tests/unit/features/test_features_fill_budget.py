"""Online state of more rows than memory holds: the same content, nothing left on disk, and a clear refusal."""

from __future__ import annotations

import json
import subprocess
import sys

import polars as pl
import pytest
from test_features_partitions import PLAN, rows

from cumulant.core.errors import UsageError
from cumulant.core.plan import Field, Source
from cumulant.drivers.local.online import SqliteOnline
from cumulant.features.offline.groups import groups_of
from cumulant.features.online import fill_budget
from cumulant.features.online.fill_budget import FillBudget
from cumulant.features.online.materialization import materialize
from cumulant.features.online.state import STATE_KEY
from cumulant.features.online.tiles import TILES

#: of a process with 600,000 events and 64 MiB to fill by: how far its memory grows, in MiB
GROWTH = """
import json, sys
from pathlib import Path
import polars as pl
from cumulant.core.plan import Field, Source
from cumulant.core.system.memory import resident_memory
from cumulant.drivers.local.online import SqliteOnline
from cumulant.features.definition.definitions import source
from cumulant.features.definition.loading import collect
from cumulant.features.definition.plan import compile_plan
from cumulant.features.online.materialization import materialize

folder, memory = Path(sys.argv[1]), int(sys.argv[2]) or None
fields = (Field("id", "int"), Field("card", "int"), Field("at", "time"), *(Field(f"n{n}", "float") for n in range(4)))
card = source("tx").by("card")
windows = {f"w{n}": card.mean(f"n{n}", window="30d") for n in range(4)}
plan = compile_plan(collect(windows), {"tx": Source("tx", ("id",), "at", fields, {})}, entity="tx", predict_at=None)
rows = 600_000
file = folder / "tx.parquet"
pl.LazyFrame({"id": pl.int_range(rows, eager=True)}).with_columns(
    card=pl.col("id") * 7919 % 20_000, at=(pl.col("id") * 1_000_000).cast(pl.Datetime("us", "UTC")),
    **{f"n{n}": pl.col("id").cast(pl.Float64) * (n + 1) for n in range(4)},
).sink_parquet(file)
store, before = SqliteOnline(f"sqlite://{folder}/online.db"), resident_memory()
filled = materialize(plan, {"tx": pl.scan_parquet(file)}, store, table="t", memory=memory, scratch=folder / "spill")
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([filled.generation, filled.entities, (peak - before // 1024) // 1024]))
"""


class Recording(SqliteOnline):
    """What a table was replaced by."""

    def swap(self, table, rows):
        self.content = dict(rows)
        return super().swap(table, self.content.items())


def filled(tmp_path, frames, **limits):
    store = Recording(f"sqlite://{tmp_path}/online.db")
    done = materialize(PLAN, frames, store, table="t", tiles=TILES._replace(seed=1), **limits)
    store.content.pop(STATE_KEY)
    store.close()
    return done.generation, store.content


def test_the_content_is_the_same_in_parts(tmp_path, monkeypatch):
    frames = {name: rows(3_000, 10 + place).lazy() for place, name in enumerate(sorted(PLAN.sources))}
    whole = filled(tmp_path, frames)
    used = []
    original = FillBudget._partition
    monkeypatch.setattr(FillBudget, "_partition", lambda self, *of: used.append(of[-1]) or original(self, *of))
    monkeypatch.setattr(fill_budget, "_LEAST", 600_000)
    monkeypatch.setattr(fill_budget, "_MOST", 100)  # one card has a third of the rows
    assert filled(tmp_path, frames, memory=1, scratch=tmp_path / "spill") == whole
    assert len(used) == len(groups_of(PLAN))
    assert min(used) > 1
    assert not [path for path in (tmp_path / "spill").rglob("*") if path.is_file()]


def test_one_key_that_does_not_fit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fill_budget, "_LEAST", 100_000)
    frames = {name: rows(3_000, 3).lazy() for name in PLAN.sources}
    with pytest.raises(UsageError, match=r"one value of .* more than resources\.memory leaves") as caught:
        filled(tmp_path, frames, memory=1, scratch=tmp_path / "spill")
    assert "set resources.memory to" in str(caught.value.hint)
    assert not [path for path in (tmp_path / "spill").rglob("*") if path.is_file()]


def test_a_source_with_corrections_that_does_not_fit_is_refused():
    source = Source("tx", ("id",), "at", (Field("id", "int"), Field("amount", "float")), {})
    frame = pl.DataFrame({"id": range(10_000), "amount": [1.0] * 10_000})
    FillBudget(1 << 20, None).check_whole(source, frame)
    with pytest.raises(UsageError, match="the 10,000 rows of tx, whose posted rows may correct earlier ones"):
        FillBudget(100_000, None).check_whole(source, frame)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the high-water mark of Linux")
def test_memory_is_bounded(tmp_path):
    """64 MiB are always free to use; what is read and written at a time comes on top."""

    def growth(memory):
        line = [sys.executable, "-c", GROWTH, str(tmp_path), str(memory)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    whole, bounded = growth(0), growth(1)
    assert bounded[:2] == whole[:2]
    assert bounded[2] < 100
    assert whole[2] > bounded[2] + 20, "the test would see it"
