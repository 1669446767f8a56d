"""A training set of 100,000 rows from Feast's file store and from the project that its definitions are imported as.

    python bench/features/feast_join.py DATA --feast PYTHON [--rows N]

PYTHON is an interpreter with Feast 0.67 (bench/online/peers.sh makes one). Two feature views with 12 features of the
payments in DATA, of cards and of terminals: each row is created two hours after its event, 2% are corrected within 12
hours more, and 2% of the rows to look up share card and time with another. `cumulant features import-feast` writes the
project; then, in turn: Feast's `get_historical_features` as it is and with `filter_by_created_timestamp`, each beside
`cumulant data validate` and `features get --out` on an empty state. Each is a process of its own; seconds of the
processor are user and system, of all its threads. Then a loop over all rows of a key, for a sample of the rows and for
rows where both differ: the newest event that was known, at most 30 days old, in its newest version that was known.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

DAYS, TTL = (1, 7, 30), 30 * 86_400_000_000
VIEWS = {"card": "CUSTOMER_ID", "term": "TERMINAL_ID"}
COLUMNS = {
    "card": [f"card_{name}_{d}d" for name in ("n", "mean") for d in DAYS],
    "term": [f"term_{name}_{d}d" for name in ("n", "fraud") for d in DAYS],
}
DELAY, LATER, SHARE, SAMPLE = 2 * 3_600_000_000, 12 * 3_600_000_000, 0.02, 3_000
FEAST = """
import json, os, sys, time
os.environ["FEAST_USAGE"] = "False"
sys.path.insert(0, os.getcwd())
import pandas as pd
import definitions as d
from feast import FeatureStore
store = FeatureStore(repo_path=".")
store.apply([d.card_entity, d.term_entity, d.card, d.term])
rows = pd.read_parquet("rows.parquet")
names = [f"{view.name}:{field.name}" for view in (d.card, d.term) for field in view.features]
options = {"filter_by_created_timestamp": True} if sys.argv[2] == "filtered" else {}
wall, cpu = time.perf_counter(), time.process_time()
frame = store.get_historical_features(rows, names, **options).to_df()
print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]))
frame.to_parquet(sys.argv[1])
"""


def definitions() -> str:
    lines = [
        "from datetime import timedelta",
        "from feast import Entity, FeatureView, Field, FileSource, ValueType",
        "from feast.types import Float64",
    ]
    for view, key in VIEWS.items():
        schema = ", ".join(f'Field(name="{name}", dtype=Float64)' for name in COLUMNS[view])
        lines += [
            f'{view}_entity = Entity(name="{view}", join_keys=["{key}"], value_type=ValueType.INT64)',
            f'{view}_rows = FileSource(name="{view}_rows", path="{view}.parquet", timestamp_field="event_timestamp", created_timestamp_column="created")',
            f'{view} = FeatureView(name="{view}", entities=[{view}_entity], ttl=timedelta(days=30), schema=[{schema}], source={view}_rows)',
        ]
    return "\n".join([*lines, ""])


def write_repository(data: Path, folder: Path, count: int) -> None:
    dice = np.random.default_rng(5)
    at = pl.col("TX_DATETIME").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    tx = pl.read_parquet(data / "fraud/handbook_tx_2018-04_06.parquet").with_columns(at.alias("event_timestamp"))
    tx = tx.with_columns(pl.col("TX_FRAUD").cast(pl.Float64))
    for view, key in VIEWS.items():
        value, name = ("TX_AMOUNT", "mean") if view == "card" else ("TX_FRAUD", "fraud")
        frame = tx.sort(key, "event_timestamp")
        parts = []
        for d in DAYS:
            rolled = frame.rolling("event_timestamp", period=f"{d}d", group_by=key)
            n, mean = (
                pl.len().cast(pl.Float64).alias(f"{view}_n_{d}d"),
                pl.col(value).mean().alias(f"{view}_{name}_{d}d"),
            )
            parts.append(rolled.agg(n, mean).drop(*([] if not parts else [key, "event_timestamp"])))
        rows = pl.concat(parts, how="horizontal").unique([key, "event_timestamp"], keep="last", maintain_order=True)
        rows = rows.with_columns(created=pl.col("event_timestamp") + pl.duration(microseconds=DELAY))
        fixed = rows.sample(fraction=SHARE, seed=7)
        later = pl.Series(dice.integers(0, LATER, fixed.height))
        fixed = fixed.with_columns(pl.col(COLUMNS[view]) + 1_000, pl.col("created") + later.cast(pl.Duration("us")))
        pl.concat([rows, fixed]).sort("created").write_parquet(folder / f"{view}.parquet")
    rows = tx.sample(count, seed=5).select(*VIEWS.values(), "event_timestamp", label=pl.col("TX_FRAUD").cast(pl.Int64))
    rows = rows.with_columns(
        pl.col("event_timestamp") + pl.Series(dice.integers(0, 86_400_000_000, count)).cast(pl.Duration("us"))
    )
    shared = rows.head(int(count * SHARE)).with_columns(pl.col("TERMINAL_ID").shuffle(seed=1))
    rows = pl.concat([rows.head(count - shared.height), shared]).with_row_index("number")
    rows.with_columns(pl.col("number").cast(pl.Int64)).write_parquet(folder / "rows.parquet")
    (folder / "definitions.py").write_text(definitions())
    (folder / "feature_store.yaml").write_text(
        "project: cards\nregistry: registry.db\nprovider: local\nonline_store: {type: sqlite, path: online.db}\n"
        "offline_store: {type: file}\nentity_key_serialization_version: 3\n"
    )


def measured(line: list[str], folder: Path) -> tuple[float, float, float, str]:
    """Seconds by the clock, of the processor, and peak MiB of a process; and its last line."""
    begun, out = time.perf_counter(), folder / "out.txt"
    with out.open("w") as stdout, (folder / "err.txt").open("w") as stderr:
        process = subprocess.Popen(line, cwd=folder, stdout=stdout, stderr=stderr)
        _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{line}: {(folder / 'err.txt').read_text()[-2000:]}")
    last = (out.read_text().splitlines() or [""])[-1]
    return time.perf_counter() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, last


def histories(folder: Path) -> dict[str, dict[int, dict[str, np.ndarray]]]:
    """By view and key: times, known times and the values of each row, by event time and then known time."""
    result: dict[str, dict[int, dict[str, np.ndarray]]] = {}
    for view, key in VIEWS.items():
        frame = pl.read_parquet(folder / f"{view}.parquet").sort("event_timestamp", "created")
        times = frame.with_columns(pl.col("event_timestamp", "created").cast(pl.Int64))
        result[view] = {
            name[0]: {column: part[column].to_numpy() for column in ("event_timestamp", "created", COLUMNS[view][0])}
            for name, part in times.partition_by(key, as_dict=True).items()
        }
    return result


def right(history: dict[int, dict[str, np.ndarray]], key: int, at: int, column: str) -> tuple[float | None, bool]:
    """The value, and whether an older event was corrected after the newest one was known."""
    rows = history.get(key)
    if rows is None:
        return None, False
    events, created = rows["event_timestamp"], rows["created"]
    chosen = np.flatnonzero((events <= at) & (events >= at - TTL) & (created <= at))
    known = np.flatnonzero((created <= at) & (created >= at - TTL))
    last = known[np.lexsort((events[known], created[known]))[-1]] if len(known) else -1
    newest = chosen[-1] if len(chosen) else -1
    return (float(rows[column][newest]) if newest >= 0 else None), bool(last != newest)


def compare(folder: Path, ours: pl.DataFrame, feast: pl.DataFrame, name: str) -> None:
    rows = pl.read_parquet(folder / "rows.parquet").with_columns(pl.col("event_timestamp").cast(pl.Int64))
    past, dice = histories(folder), np.random.default_rng(1)
    print(f"\n{name}: {rows.height - feast.height:,} of {rows.height:,} rows are missing")
    theirs = rows.select("number").join(feast, on="number", how="left", maintain_order="left")
    present = rows["number"].is_in(feast["number"].to_list())
    for view, key in VIEWS.items():
        column = COLUMNS[view][0]
        mine, other = ours[column].to_list(), theirs[column].cast(pl.Float64).fill_nan(None).to_list()
        differ = [place for place in range(rows.height) if present[place] and mine[place] != other[place]]
        some = dice.choice(rows.height, min(SAMPLE, rows.height), replace=False).tolist()
        chosen = dice.choice(differ, min(SAMPLE, len(differ)), replace=False).tolist() if differ else []
        for what, places in (("a sample", some), ("rows that differ", chosen)):
            counts: Counter[str] = Counter()
            for place in places:
                at, of = rows["event_timestamp"][place], rows[key][place]
                expected, corrected = right(past[view], of, at, column)
                counts["rows"] += 1
                counts["cumulant wrong"] += mine[place] != expected
                counts["of these by a correction after newer rows"] += mine[place] != expected and corrected
                counts["Feast wrong"] += present[place] and other[place] != expected
                counts["Feast missing"] += not present[place]
            print(f"  {column}: {len(differ):,} differ; {what}: {dict(counts)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("--feast", required=True)
    parser.add_argument("--rows", type=int, default=100_000)
    options = parser.parse_args()
    feast = str(Path(options.feast).absolute())
    cumulant = [sys.executable, "-m", "cumulant"]
    table: list[tuple[Any, ...]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_repository(options.data, folder, options.rows)
        project = folder / "project"
        line = [*cumulant, "features", "import-feast", str(folder), "--python", feast]
        wall, cpu, peak, _ = measured(
            [*line, "--rows", str(folder / "rows.parquet"), "--project", str(project)], folder
        )
        table.append(("import-feast", wall, cpu, peak))
        for name in ("default", "filtered"):
            wall, cpu, peak, last = measured([feast, "-c", FEAST, str(folder / f"{name}.parquet"), name], folder)
            join_wall, join_cpu = json.loads(last)
            table += [(f"Feast, {name}: process", wall, cpu, peak), (f"Feast, {name}: join", join_wall, join_cpu, peak)]
            shutil.rmtree(project / ".cumulant", ignore_errors=True)
            read_wall, read_cpu, read_peak, _ = measured([*cumulant, "data", "validate"], project)
            wall, cpu, peak, _ = measured(
                [*cumulant, "features", "get", "--out", str(folder / "ours.parquet")], project
            )
            table += [
                ("cumulant: data validate", read_wall, read_cpu, read_peak),
                ("cumulant: features get", wall, cpu, peak),
            ]
            both_wall, both_cpu = read_wall + wall, read_cpu + cpu
            print(
                f"{name}: Feast's process / both of ours: {table[-4][2] / both_cpu:.1f} of the processor, "
                f"{table[-4][1] / both_wall:.1f} by the clock; its join / features get: {join_cpu / cpu:.1f}, "
                f"{join_wall / wall:.1f}; its join / both: {join_cpu / both_cpu:.1f}, {join_wall / both_wall:.1f}",
                flush=True,
            )
        print("\n| what | s | CPU s | peak MiB |\n|---|---|---|---|")
        for what, wall, cpu, peak in table:
            print(f"| {what} | {wall:.1f} | {cpu:.1f} | {peak:.0f} |")
        ours = pl.read_parquet(folder / "ours.parquet")
        for name in ("default", "filtered"):
            compare(folder, ours, pl.read_parquet(folder / f"{name}.parquet"), f"Feast, {name}")
    print(f"\nload {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
