"""Reading and checking a table: `cumulant data validate` beside Polars (streaming) and DuckDB, in one run.

Run: `python bench/data/checks.py [--rows 1000000 10000000] [--kinds parquet csv] [--memory 2GiB] [--duckdb PYTHON]`.
Each line is one engine on one file, in a process of its own: processor seconds with all threads, seconds, and the
largest resident memory. All count the nulls of each column, the rows outside two ranges and one set, and the rows whose
key came before; the lines must agree on these numbers. Ours also stores the accepted rows as a snapshot with a profile.
`--duckdb`: an interpreter that has DuckDB, which is no dependency of the project (`pip install duckdb`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

STEP = 500_000
OURS = """
import json, sys
from pathlib import Path
from cumulant.project.file.loading import load
from cumulant.flows.data.validate import validate
project = load(Path(sys.argv[1]))
found = validate(project, principal=project.principal()).snapshots["events"]
failed = {check.rule: check.failed for check in found.checks}
print(json.dumps({
    "rows": found.rows_in,
    "score": found.profile["score"].nulls,
    "amount": failed["amount:min"] + failed["amount:max"],
    "kind": failed["kind:in"],
    "repeats": failed["key:repeat"],
}))
"""
POLARS = """
import json, sys
import polars as pl
path = sys.argv[1]
rows = pl.scan_csv(path, infer_schema_length=1000) if path.endswith("csv") else pl.scan_parquet(path)
amount = (pl.col("amount") < 0) | (pl.col("amount") > 1000)
found = rows.select(
    rows=pl.len(), score=pl.col("score").null_count(), amount=amount.sum(),
    kind=(~pl.col("kind").is_in(["card", "cash", "wire"])).sum(), repeats=pl.len() - pl.col("id").n_unique(),
).collect(engine="streaming")
print(json.dumps(found.row(0, named=True)))
"""
DUCKDB = """
import json, sys
import duckdb
path, memory = sys.argv[1], sys.argv[2]
if memory:
    duckdb.sql(f"SET memory_limit = '{memory}'")
read = f"read_csv('{path}')" if path.endswith("csv") else f"read_parquet('{path}')"
found = duckdb.sql(f'''SELECT count(*), count(*) FILTER (score IS NULL), count(*) FILTER (amount < 0 OR amount > 1000),
    count(*) FILTER (kind NOT IN ('card', 'cash', 'wire')), count(*) - count(DISTINCT id) FROM {read}''').fetchall()[0]
print(json.dumps(dict(zip(["rows", "score", "amount", "kind", "repeats"], found))))
"""
PROJECT = """version: 1
data:
  events:
    path: {path}
    key: id
    event_time: at
    quarantine: 100%
    rules:
      amount: {{min: 0, max: 1000}}
      kind: {{in: [card, cash, wire]}}
      score: {{nulls: 5%}}
resources: {{memory: {memory}}}
"""


def write(path: Path, rows: int) -> None:
    """A table of seven columns in the order of time. Of each thousand rows one has a key that came before, and one a
    kind that is not allowed; these have a score, as refused rows are not counted by rules on the others.
    """
    rng, writer = np.random.default_rng(1), None
    with path.open("wb") as out:
        for first in range(0, rows, STEP):
            count = min(STEP, rows - first)
            ids, place = np.arange(first, first + count), np.arange(first, first + count) % 1000
            ids[::1000] = np.maximum(ids[::1000] - 1, 0)
            kinds = np.where(place == 500, "coin", rng.choice(["card", "cash", "wire"], count))
            filled = (rng.random(count) >= 0.02) | (place == 500) | (place == 0)
            frame = pl.DataFrame(
                {
                    "id": ids,
                    "customer": rng.integers(0, max(rows // 100, 1), count),
                    "at": 1_704_067_200_000_000 + np.arange(first, first + count) * (31_536_000_000_000 // rows),
                    "amount": np.round(rng.gamma(2.0, 50.0, count), 2),
                    "score": rng.normal(size=count),
                    "kind": kinds,
                    "note": [f"n{number}" for number in rng.integers(0, 100_000, count)],
                }
            ).with_columns(
                pl.col("at").cast(pl.Datetime("us", "UTC")),
                pl.when(pl.Series(filled)).then(pl.col("score")),
            )
            if path.suffix == ".csv":
                frame.write_csv(out, include_header=not first, datetime_format="%Y-%m-%dT%H:%M:%SZ")
                continue
            table = frame.to_arrow()
            writer = writer or pq.ParquetWriter(out, table.schema)
            writer.write_table(table, row_group_size=131_072)
        if writer is not None:
            writer.close()


def measured(python: str, code: str, *arguments: str) -> tuple[dict[str, int], str]:
    """What a process prints, and its processor seconds, seconds and memory; raises where it fails."""
    timed = (
        "import json, resource, subprocess, sys, time\n"
        "begin = time.perf_counter()\n"
        "done = subprocess.run([*json.loads(sys.argv[1])], capture_output=True, text=True)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(json.dumps([done.returncode, done.stdout, done.stderr, used.ru_utime + used.ru_stime, "
        "time.perf_counter() - begin, used.ru_maxrss / 2**20]))"
    )
    command = json.dumps([python, "-c", code, *arguments])
    done = subprocess.run([sys.executable, "-c", timed, command], capture_output=True, text=True, check=True)
    status, out, errors, processor, seconds, peak = json.loads(done.stdout)
    if status:
        raise SystemExit(errors[-2000:])
    return json.loads(out.splitlines()[-1]), f"{processor:8.1f} CPU s {seconds:8.1f} s {peak:6.2f} GiB"


def compare(folder: Path, rows: int, kind: str, memory: str, duckdb: str) -> None:
    path = folder / f"events.{kind}"
    write(path, rows)
    (folder / "cumulant.yaml").write_text(PROJECT.format(path=path, memory=memory))
    engines = {
        "cumulant": lambda: measured(sys.executable, OURS, str(folder)),
        "polars streaming": lambda: measured(sys.executable, POLARS, str(path)),
        "duckdb": lambda: measured(duckdb, DUCKDB, str(path), memory),
    }
    expected: dict[str, int] | None = None
    for name, run in engines.items():
        if (
            name == "duckdb"
            and subprocess.run([duckdb, "-c", "import duckdb"], capture_output=True, check=False).returncode
        ):
            print(f"{rows:>12,} {kind:8} {name:18} not installed: pip install duckdb", flush=True)
            continue
        found, figures = run()
        expected = expected or found
        print(f"{rows:>12,} {kind:8} {name:18} {figures}", flush=True)
        if found != expected:
            raise SystemExit(f"{name} counts {found}, not {expected}")
    path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--kinds", nargs="+", choices=["parquet", "csv"], default=["parquet", "csv"])
    parser.add_argument("--memory", default="2GiB")
    parser.add_argument("--duckdb", default=sys.executable)
    options = parser.parse_args()
    print(f"{os.cpu_count()} processors, resources.memory {options.memory}", flush=True)
    for kind in options.kinds:
        for rows in options.rows:
            with tempfile.TemporaryDirectory() as folder:
                compare(Path(folder), rows, kind, options.memory, options.duckdb)


if __name__ == "__main__":
    main()
