"""The feature engine against hand-written Polars, in the same sitting.

    .venv/bin/python bench/features/run.py ../shared/data

Each measurement is a new process, repeated three times; time is of the computation alone, from frames in memory (as-of
joins: from Parquet files), memory is the process's high-water mark (VmHWM). Ratios are of the medians. Prints rows for
bench/RESULTS.md and fails where an answer differs by more than a relative 1e-9.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl

DAYS = (1, 7, 30)
FEATURES = Path(__file__).parent / "handbook.py"
WINDOWS = [f"{name}_{d}d" for name in ("card_n", "card_mean", "terminal_n", "terminal_fraud") for d in DAYS]
COLUMNS = ["TX_AMOUNT", "night", "weekday", "amount_ratio", *WINDOWS]
REPEATS = 3


def peak_mb() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM"))


def payments(data: Path) -> pl.DataFrame:
    at = pl.col("TX_DATETIME").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return pl.read_parquet(data / "fraud/handbook_tx_2018-04_06.parquet").with_columns(at)


# hand-written
def row_features(tx: pl.DataFrame) -> list[pl.Expr]:
    local = pl.col("TX_DATETIME").dt.convert_time_zone("Europe/Paris").dt
    return [pl.col("TX_AMOUNT"), (local.hour() < 6).alias("night"), local.weekday().alias("weekday")]


def polars_rolling(tx: pl.DataFrame) -> pl.DataFrame:
    """DataFrame.rolling by key, with an offset for the label's delay."""
    at, card, terminal = "TX_DATETIME", tx.sort("CUSTOMER_ID", "TX_DATETIME"), tx.sort("TERMINAL_ID", "TX_DATETIME")
    cards, terminals = [card.select("TRANSACTION_ID", *row_features(tx))], [terminal.select("TRANSACTION_ID")]
    for d in DAYS:
        n, mean = pl.len().alias(f"card_n_{d}d"), pl.col("TX_AMOUNT").mean().alias(f"card_mean_{d}d")
        found = card.rolling(at, period=f"{d}d", closed="right", group_by="CUSTOMER_ID").agg(n, mean)
        cards.append(found.select(f"card_n_{d}d", f"card_mean_{d}d"))
        n, rate = (
            pl.len().alias(f"terminal_n_{d}d"),
            pl.col("TX_FRAUD").cast(pl.Float64).mean().alias(f"terminal_fraud_{d}d"),
        )
        rolled = terminal.rolling(at, period=f"{d}d", offset=f"-{7 + d}d", closed="right", group_by="TERMINAL_ID")
        terminals.append(rolled.agg(n, rate).select(f"terminal_n_{d}d", f"terminal_fraud_{d}d"))
    both = pl.concat(cards, how="horizontal").join(pl.concat(terminals, how="horizontal"), on="TRANSACTION_ID")
    return finish(both)


def polars_by(tx: pl.DataFrame) -> pl.DataFrame:
    """rolling_*_by over the key: sums over 7 + d days less sums over 7 days give the delayed windows."""
    at = "TX_DATETIME"
    tx = tx.with_columns(one=pl.lit(1.0), fraud=pl.col("TX_FRAUD").cast(pl.Float64))
    card = tx.sort("CUSTOMER_ID", at).with_columns(
        *[
            pl.col("one").rolling_sum_by(at, f"{d}d", closed="right").over("CUSTOMER_ID").alias(f"card_n_{d}d")
            for d in DAYS
        ],
        *[
            pl.col("TX_AMOUNT")
            .rolling_mean_by(at, f"{d}d", closed="right")
            .over("CUSTOMER_ID")
            .alias(f"card_mean_{d}d")
            for d in DAYS
        ],
    )
    spans = (7, *(7 + d for d in DAYS))
    terminal = card.sort("TERMINAL_ID", at).with_columns(
        pl.col(c).rolling_sum_by(at, f"{d}d", closed="right").over("TERMINAL_ID").alias(f"_{c}{d}")
        for d in spans
        for c in ("one", "fraud")
    )
    counts = [(pl.col(f"_one{7 + d}") - pl.col("_one7")).alias(f"terminal_n_{d}d") for d in DAYS]
    rates = [
        pl.when(pl.col(f"_one{7 + d}") > pl.col("_one7"))
        .then((pl.col(f"_fraud{7 + d}") - pl.col("_fraud7")) / (pl.col(f"_one{7 + d}") - pl.col("_one7")))
        .alias(f"terminal_fraud_{d}d")
        for d in DAYS
    ]
    windows = [f"card_{k}_{d}d" for k in ("n", "mean") for d in DAYS]
    return finish(terminal.select("TRANSACTION_ID", *row_features(tx), *windows, *counts, *rates))


def finish(frame: pl.DataFrame) -> pl.DataFrame:
    ratio = (pl.col("TX_AMOUNT") / pl.col("card_mean_30d")).alias("amount_ratio")
    return frame.with_columns(ratio).sort("TRANSACTION_ID").select("TRANSACTION_ID", *COLUMNS)


# ours
def handbook_plan(tx: pl.DataFrame) -> Any:
    from cumulant.core.plan import Field, KnownAt, Source
    from cumulant.features.definition.loading import load
    from cumulant.features.definition.plan import compile_plan
    from cumulant.features.offline.polars_compiler import kind_of

    fields = tuple(Field(name, kind_of(dtype)) for name, dtype in tx.schema.items())
    known = dict.fromkeys(("TX_FRAUD", "TX_FRAUD_SCENARIO"), KnownAt(delay_us=7 * 86_400_000_000))
    tx_source = Source("tx", ("TRANSACTION_ID",), "TX_DATETIME", fields, known)
    return compile_plan(load(FEATURES), {"tx": tx_source}, entity="tx", predict_at=None)


def measure_features(mode: str, data: Path, out: Path) -> dict[str, Any]:
    tx = payments(data)
    if mode == "ours":
        from cumulant.features.offline.offline import compute

        plan = handbook_plan(tx)
        start, spent = time.perf_counter(), time.process_time()
        found = compute(plan, {"tx": tx})
        seconds, cpu = time.perf_counter() - start, time.process_time() - spent
        memory = peak_mb()
        found = found.with_columns(tx["TRANSACTION_ID"]).sort("TRANSACTION_ID")
    else:
        start, spent = time.perf_counter(), time.process_time()
        found = {"rolling": polars_rolling, "by": polars_by}[mode](tx)
        seconds, cpu = time.perf_counter() - start, time.process_time() - spent
        memory = peak_mb()
    found.select("TRANSACTION_ID", *COLUMNS).write_parquet(out)
    return {"seconds": seconds, "cpu": cpu, "mb": memory}


# the as-of join
def write_asof(features: Path, data: Path, folder: Path) -> None:
    """A table a key, one row a moment, and 100,000 rows up to a day after a payment."""
    tx = (
        payments(data)
        .sort("TRANSACTION_ID")
        .with_columns(pl.read_parquet(features).drop("TRANSACTION_ID", "TX_AMOUNT"))
    )
    tx = tx.rename({"TX_DATETIME": "at"})
    for key, prefix in (("CUSTOMER_ID", "card_"), ("TERMINAL_ID", "terminal_")):
        table = tx.select(key, "at", *(name for name in WINDOWS if name.startswith(prefix)))
        table.unique([key, "at"], keep="last", maintain_order=True).sort("at").write_parquet(folder / f"{key}.parquet")
    rows = tx.sample(100_000, seed=5, shuffle=True).select("TRANSACTION_ID", "CUSTOMER_ID", "TERMINAL_ID", "at")
    seconds = pl.Series(range(100_000)).shuffle(seed=6) * 86_399 // 99_999
    rows.with_columns(pl.col("at") + pl.duration(seconds=seconds)).write_parquet(folder / "rows.parquet")


def measure_asof(mode: str, folder: Path, out: Path) -> dict[str, Any]:
    keys = ("CUSTOMER_ID", "TERMINAL_ID")
    if mode == "ours":
        from cumulant.features.offline.offline import compute

        plan = asof_plan(folder)
        start, spent = time.perf_counter(), time.process_time()
        found = compute(plan, {name: pl.scan_parquet(folder / f"{name}.parquet") for name in ("rows", *keys)})
    else:
        start, spent = time.perf_counter(), time.process_time()
        joined = pl.read_parquet(folder / "rows.parquet").with_row_index("__row").sort("at")
        for key in keys:
            table = pl.read_parquet(folder / f"{key}.parquet").sort("at")
            joined = joined.join_asof(
                table, on="at", by=key, strategy="backward", tolerance="30d", check_sortedness=False
            )
        found = joined.sort("__row").select("__row", *WINDOWS)
    seconds, cpu = time.perf_counter() - start, time.process_time() - spent
    memory = peak_mb()
    found.write_parquet(out)
    return {"seconds": seconds, "cpu": cpu, "mb": memory}


def asof_plan(folder: Path) -> Any:
    from cumulant.core.plan import Field, Source
    from cumulant.features.definition.definitions import source
    from cumulant.features.definition.loading import collect
    from cumulant.features.definition.plan import compile_plan
    from cumulant.features.offline.polars_compiler import kind_of

    sources, lookups = {}, {}
    for name in ("rows", "CUSTOMER_ID", "TERMINAL_ID"):
        schema = pl.read_parquet_schema(folder / f"{name}.parquet")
        sources[name] = Source(name, (), "at", tuple(Field(column, kind_of(dtype)) for column, dtype in schema.items()))
        if name != "rows":
            lookups[f"of_{name}"] = source(name).as_of(name, within="30d").columns(*(c for c in schema if c in WINDOWS))
    return compile_plan(collect(lookups), sources, entity="rows", predict_at=None)


# the sitting
def run(*arguments: str | Path) -> dict[str, Any]:
    done = subprocess.run([sys.executable, __file__, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def medians(calls: dict[str, tuple[str | Path, ...]]) -> dict[str, dict[str, Any]]:
    """Minimum and median of each figure of each call; the calls take turns, so that a busy machine slows all alike."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in calls}
    for _ in range(REPEATS):
        for name, arguments in calls.items():
            runs[name].append(run(*arguments))
    return {
        name: {key: (min(r[key] for r in done), statistics.median(r[key] for r in done)) for key in done[0]}
        for name, done in runs.items()
    }


def worst(ours: Path, theirs: Path) -> float:
    """The largest relative difference; a value on one side only counts as infinite."""
    a, b = pl.read_parquet(ours), pl.read_parquet(theirs)
    found = 0.0
    for name in a.columns:
        x, y = a[name].cast(pl.Float64), b[name].cast(pl.Float64)
        if (x.is_null() != y.is_null()).any():
            return float("inf")
        share = ((x - y).abs() / pl.select(pl.max_horizontal(x.abs(), y.abs(), pl.lit(1e-300))).to_series()).max()
        found = max(found, float(share or 0.0))  # type: ignore[arg-type]
    return found


def line(name: str, found: dict[str, Any], base: dict[str, Any] | None = None) -> None:
    ratio = (
        ""
        if base is None
        else f"{found['seconds'][1] / base['seconds'][1]:.2f} x, {found['mb'][1] / base['mb'][1]:.2f} x"
    )
    low, median = found["seconds"]
    print(f"| {name} | {low:.2f} / {median:.2f} s | {found['cpu'][1]:.2f} s | {found['mb'][1]:.0f} MB | {ratio} |")


def main(data: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = {mode: folder / f"{mode}.parquet" for mode in ("ours", "rolling", "by", "asof_ours", "asof_polars")}
        found = medians({mode: ("features", mode, data, table[mode]) for mode in ("rolling", "by", "ours")})
        best = min(("rolling", "by"), key=lambda mode: found[mode]["seconds"][1])
        print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; Polars {pl.__version__}\n")
        print("| what | min / median | CPU | peak memory | time and memory against Polars |\n|---|---|---|---|---|")
        line("handbook, Polars rolling(group_by, offset)", found["rolling"])
        line("handbook, Polars rolling_*_by.over", found["by"])
        line("handbook, ours", found["ours"], found[best])
        write_asof(table["ours"], data, folder)
        asof = medians({mode: ("asof", mode, folder, table[f"asof_{mode}"]) for mode in ("polars", "ours")})
        line("as-of join of 100,000 rows, Polars join_asof", asof["polars"])
        line("as-of join of 100,000 rows, ours", asof["ours"], asof["polars"])
        differences = [worst(table["ours"], table["rolling"]), worst(table["asof_ours"], table["asof_polars"])]
        print(f"\nlargest relative difference: features {differences[0]:.1e}, as-of join {differences[1]:.1e}")
        if max(differences) > 1e-9:
            raise SystemExit("the answers differ")


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(Path(sys.argv[1]))
    else:
        what, mode, source_path, out_path = sys.argv[1:]
        measure = measure_features if what == "features" else measure_asof
        print(json.dumps(measure(mode, Path(source_path), Path(out_path))))
