"""Features of more rows than memory holds: bit for bit those of all rows at once, and nothing left on disk."""

from __future__ import annotations

import os
import random
import resource
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from test_features_windows import HOUR, SCHEMA, START, make_plan

from cumulant.core.errors import StorageError, UsageError
from cumulant.core.expr import Column
from cumulant.core.plan import FeaturePlan, FeatureSpec
from cumulant.data.parts.spill import Spill, spill_in
from cumulant.features.offline import partitions, windows
from cumulant.features.offline.kernel import timeline
from cumulant.features.offline.memory_need import SourceSize
from cumulant.features.offline.offline import compute
from cumulant.features.offline.partitions import Layout, compute_partitioned, compute_within
from cumulant.features.offline.windows import GroupWindows, count_events

PLAN = make_plan(HOUR / 2, HOUR)


def rows(count: int, seed: int) -> pl.DataFrame:
    """Few and many rows a key, nulls everywhere, times out of order and equal, amounts of all magnitudes."""
    rng = random.Random(seed)

    def sometimes(value: Any) -> Any:
        return None if rng.random() < 0.1 else value

    def moment() -> Any:
        return sometimes(START + rng.randrange(200) * HOUR / 4 + rng.choice([0, 1]) * timedelta(microseconds=1))

    def amount() -> Any:
        return sometimes(rng.choice([rng.gauss(0, 1), rng.lognormvariate(3, 1), 0.0, -0.0, 1e16, 1e-300, 2.5]))

    return pl.DataFrame(
        [
            {
                "id": number,
                "card": sometimes(rng.choice(["heavy", f"c{rng.randrange(count // 8 + 1)}"])),
                "shop": sometimes(rng.randrange(4)),
                "at": moment(),
                "amount": amount(),
                "items": sometimes(rng.randrange(-5, 5)),
                "label": sometimes(rng.random() < 0.3),
                "word": sometimes(rng.choice(["x", "y", "", "ü"])),
                "done": moment(),
                "result": amount(),
                "asked": moment(),
            }
            for number in range(count)
        ],
        schema=SCHEMA,
    )


def sizes(frames: dict[str, pl.DataFrame]) -> dict[str, SourceSize]:
    return {
        name: SourceSize(frame.height, frame.estimated_size() / max(frame.height, 1)) for name, frame in frames.items()
    }


def parts(plan: FeaturePlan, frames: dict[str, pl.DataFrame], layout: Layout, scratch: Path) -> list[pl.DataFrame]:
    lazy = {name: frame.lazy() for name, frame in frames.items()}
    return list(compute_partitioned(plan, lazy, layout, sizes=sizes(frames), scratch=scratch))


def bits(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    """Rows with the bits of floats, so that 0.0 and -0.0 differ."""
    return frame.select(pl.col(pl.Float64).map_elements(float.hex, pl.String), pl.exclude(pl.Float64)).rows()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("offset", "count", "others", "layout"),
    [
        (0 * HOUR, 900, 700, Layout(200, 400_000, 1e9)),  # parts of several blocks
        (-HOUR, 900, 700, Layout(10, 400_000, 1e9)),  # rows and results of several blocks together, several times
        (-HOUR, 900, 700, Layout(300, 1e9, 1e9)),  # one part
        (0 * HOUR, 900, 700, Layout(5000, 400_000, 900_000)),  # parts that are parted again
        (-HOUR, 900, 700, Layout(200, 400_000, 1e9, 3)),  # three at a time
        (0 * HOUR, 900, 700, Layout(200, 400_000, 900_000, 3)),  # and what is too large for a third of the memory
        (0 * HOUR, 900, 700, Layout(200, 400_000, 900_000, 3, 40_000)),  # some rows and results in memory until then
        (-HOUR, 900, 700, Layout(200, 400_000, 900_000, 3, 40_000)),
        (-HOUR, 900, 700, Layout(200, 400_000, 1e9, 2, 10**9)),  # all of them
        (0 * HOUR, 900, 0, Layout(450, 700_000, 1e9)),
        (-HOUR, 1, 700, Layout(400, 600_000, 1e9)),
    ],
)
def test_parts_are_bit_for_bit_the_whole(
    offset: timedelta, count: int, others: int, layout: Layout, tmp_path: Path
) -> None:
    plan = make_plan(offset, HOUR)
    frames = {"tx": rows(count, 1), "other": rows(others, 2)}
    whole = compute(plan, frames)
    found = parts(plan, frames, layout, tmp_path / "spill")
    assert len(found) == -(-count // layout.rows)
    joined = pl.concat(found)
    assert joined.schema == whole.schema
    assert bits(joined) == bits(whole)
    assert list((tmp_path / "spill").iterdir()) == []


def test_small_blocks_are_not_cut_into_pieces_for_each_partition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, added = {"tx": rows(900, 1), "other": rows(700, 2)}, Counter[str]()
    append = Spill.append
    monkeypatch.setattr(
        Spill, "append", lambda self, name, frame: (added.update([name.partition("-")[0]]), append(self, name, frame))
    )
    found = parts(PLAN, frames, Layout(10, 1_000_000, 1e9), tmp_path)
    assert added["rows"] == len(found) == 90
    assert bits(pl.concat(found)) == bits(compute(PLAN, frames))
    assert 0 < max(added["events"], added["queries"], added["result"]) < 90  # each group has several partitions


def test_rows_that_a_reader_left_out_stay_out(tmp_path: Path) -> None:
    """As of an earlier moment a snapshot keeps the positions of its rows."""
    frames = {"tx": rows(600, 1), "other": rows(300, 2)}
    frames = {name: frame.with_row_index("__row").filter(pl.col("__row") % 7 != 3) for name, frame in frames.items()}
    found = pl.concat(parts(PLAN, frames, Layout(150, 400_000, 1e9), tmp_path))
    assert bits(found) == bits(compute(PLAN, frames))


def test_a_plan_without_windows_is_computed_block_by_block(tmp_path: Path) -> None:
    plan = msgspec.structs.replace(PLAN, features=(FeatureSpec(name="amount", dtype="float", expr=Column("amount")),))
    frames = {"tx": rows(60, 1), "other": rows(0, 2)}
    found = parts(plan, frames, Layout(20, 400_000, 1e9), tmp_path)
    assert len(found) == 3
    assert bits(pl.concat(found)) == bits(compute(plan, frames))


def test_no_row_has_the_columns_of_the_whole(tmp_path: Path) -> None:
    frames = {"tx": rows(0, 1), "other": rows(700, 2)}
    (found,) = parts(PLAN, frames, Layout(400, 600_000, 1e9), tmp_path)
    assert found.height == 0
    assert found.schema == compute(PLAN, frames).schema == compute(PLAN, {"tx": rows(9, 1), "other": rows(9, 2)}).schema


@pytest.mark.parametrize("offset", [timedelta(0), -HOUR])
def test_windows_do_not_depend_on_how_many_rows_are_computed_at_a_time(
    offset: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, frames = make_plan(offset, HOUR), {"tx": rows(300, 1), "other": rows(300, 2)}
    known = frames | {"tx": frames["tx"].drop_nulls(["card", "shop", "at", "done", "asked"]).sort("at")}
    at_once = [bits(compute(plan, one)) for one in (frames, known)]
    for module in (windows, timeline):
        monkeypatch.setattr(module, "CHUNK", 7)
    assert [bits(compute(plan, one)) for one in (frames, known)] == at_once


def test_corrected_rows_count_as_often_as_they_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each correction of a key within a window is one more look at the events of the window."""
    first = rows(600, 1).with_columns(
        card=pl.format("c{}", pl.col("id") % 12),
        shop=pl.col("id") % 12,
        at=pl.lit(START) + pl.col("id") * timedelta(seconds=20),
        done=pl.lit(START),
    )
    ends = (START + pl.int_range(pl.len()) * timedelta(seconds=25)).cast(pl.Datetime("us", "UTC")).cast(pl.Int64)
    old = first.with_columns(__from=pl.lit(None, dtype=pl.Int64), __until=ends)
    new = first.with_columns(amount=pl.lit(1.0), __from=ends, __until=pl.lit(None, dtype=pl.Int64))
    frames = {"tx": pl.concat([old, new]), "other": rows(10, 2)}
    whole, sizes_of, groups = compute(PLAN, frames), [], []

    class Watched(GroupWindows):
        def __init__(self, plan: Any, group: Any, past: Any, queries: Any, *, apart: bool) -> None:
            if group.source == "tx":
                sizes_of.append(count_events(plan, group, past))
                groups.append(past.height)
            super().__init__(plan, group, past, queries, apart=apart)

    monkeypatch.setattr(partitions, "GroupWindows", Watched)
    assert bits(pl.concat(parts(PLAN, frames, Layout(200, 400_000, 1e9), tmp_path))) == bits(whole)
    assert sum(sizes_of) > 4 * sum(groups)
    assert max(sizes_of) * 120 < 2 * 400_000


def test_memory_decides_between_the_whole_and_parts(tmp_path: Path) -> None:
    frames = {"tx": pl.concat([rows(3000, 1)] * 6).with_columns(id=pl.int_range(pl.len())), "other": rows(10, 2)}
    lazy = {name: frame.lazy() for name, frame in frames.items()}
    whole = compute_within(PLAN, lazy, memory=1 << 40, scratch=tmp_path)
    assert isinstance(whole, pl.DataFrame)
    told: list[tuple[str, float]] = []
    found = compute_within(
        PLAN, lazy, memory=1 << 20, scratch=tmp_path, progress=lambda text, share: told.append((text, share))
    )
    assert not isinstance(found, pl.DataFrame)
    assert pl.concat(list(found)).equals(whole)
    count = f"{whole.height:,}"
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert (f"features: {count} of {count} rows read", 0.3) in told
    assert any(text.startswith("features: windows of group 1 of ") for text, _ in told)
    assert told[-1] == (f"features of {count} of {count} rows", 1.0)


def test_a_key_that_fits_no_part_is_named_with_what_to_set(tmp_path: Path) -> None:
    frames = {"tx": rows(800, 1), "other": rows(10, 2)}
    with pytest.raises(UsageError, match=r"one value of card has about \d+ rows") as error:
        parts(PLAN, frames, Layout(500, 400_000, 450_000), tmp_path / "spill")
    assert error.value.subject == "resources.memory"
    assert "set resources.memory to" in str(error.value.hint)
    assert list((tmp_path / "spill").iterdir()) == []


def test_files_are_of_their_owner_alone(tmp_path: Path) -> None:
    frames = {"tx": rows(300, 1), "other": rows(10, 2)}
    blocks = compute_partitioned(
        PLAN, frames, Layout(150, 400_000, 1e9), sizes=sizes(frames), scratch=tmp_path / "spill"
    )
    next(blocks)
    (folder,) = (tmp_path / "spill").iterdir()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder)] == [0o700, 0o700]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    blocks.close()  # type: ignore[attr-defined]
    assert list((tmp_path / "spill").iterdir()) == []


def test_a_disk_that_is_full_is_an_error_in_words_and_leaves_no_files(tmp_path: Path) -> None:
    frames = {"tx": rows(4000, 1), "other": rows(10, 2)}
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        with pytest.raises(StorageError, match="cannot be set aside on disk") as error:
            parts(PLAN, frames, Layout(2000, 400_000, 1e9), tmp_path / "spill")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "resources.memory" in str(error.value.hint)
    assert list((tmp_path / "spill").iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; import polars as pl\n"
        "from cumulant.data.parts.spill import spill_in\n"
        "with spill_in(Path(sys.argv[1])) as spill:\n"
        "    spill.write('a', pl.DataFrame({'x': [1]})); print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (left,) = tmp_path.iterdir()
        os.utime(left, (0, 0))
        with spill_in(tmp_path):
            assert left.exists()  # its process lives
        process.send_signal(signal.SIGKILL)
    os.utime(left, (time.time() - 3600,) * 2)
    with spill_in(tmp_path):
        assert not left.exists()
