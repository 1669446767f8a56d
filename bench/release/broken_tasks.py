"""Rows of three tasks as models see them: flights, card payments, incomes; and models that are trained on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lightgbm
import numpy as np
import polars as pl

from cumulant.core.progress import silent
from cumulant.flows.data.validate import snapshots_of
from cumulant.flows.features.feature_table import feature_set
from cumulant.flows.features.task import resolve_task
from cumulant.flows.ledger.run_context import open_run
from cumulant.flows.training.train import work_of
from cumulant.flows.training.training_rows import labelled_rows
from cumulant.project.file.loading import load
from cumulant.project.new.templates import create_from_template

DAY = 86_400_000_000
_PARAMETERS = {
    "objective": "binary",
    "learning_rate": 0.07,
    "num_leaves": 15,
    "min_data_in_leaf": 60,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "num_threads": 1,
    "verbosity": -1,
}
_ROUNDS = 70


@dataclass(frozen=True)
class Task:
    """Rows [n] in order of time: `features` [n, k] as numbers, `texts` by column, `label`, and `at` where known.

    `stale`: columns that come from stored state, which a broken feature store serves late.
    """

    name: str
    columns: tuple[str, ...]
    features: np.ndarray
    texts: dict[str, np.ndarray]
    label: np.ndarray
    at: np.ndarray | None
    stale: tuple[int, ...]
    #: share of rows that are decided positive, or the threshold itself
    alerts: float | None
    threshold: float
    #: rows trained on, and rows of which labels are known before the release
    train: int
    past: int


def tasks(data: Path, cache: Path, names: tuple[str, ...]) -> Iterator[Task]:
    """The named tasks; `data` holds the public tables, `cache` keeps features once they are worked out."""
    cache.mkdir(parents=True, exist_ok=True)
    for name in names:
        file = cache / f"{name}.parquet"
        if not file.exists():
            _frame(name, data, cache).write_parquet(file)
        yield _task(name, pl.read_parquet(file))


def fitted(features: np.ndarray, label: np.ndarray, seed: int) -> lightgbm.Booster:
    """A model of the rows."""
    return lightgbm.train({**_PARAMETERS, "seed": seed}, lightgbm.Dataset(features, label), _ROUNDS)


def _frame(name: str, data: Path, cache: Path) -> pl.DataFrame:
    if name == "incomes":
        table = pl.read_csv(data / "tabular" / "adult.csv.gz")
        target = "income-per-year"
        return table.select(pl.exclude(target), (pl.col(target).str.contains(">")).cast(pl.Float64).alias("label__"))
    folder = cache / f"project-{name}"
    if not folder.exists():
        template = {"flights": "flights", "payments": "fraud"}[name]
        create_from_template(folder.name, template, directory=folder.parent)
        if name == "payments":
            for old in (folder / "data" / "payments").iterdir():
                old.unlink()
            table = pl.read_parquet(data / "fraud" / "handbook_tx_2018-04_06.parquet")
            customers = table["CUSTOMER_ID"].unique().sort().to_list()[::4]
            rows = table.filter(pl.col("CUSTOMER_ID").is_in(customers))
            rows.write_parquet(folder / "data" / "payments" / "a.parquet")
    with (
        load(folder) as project,
        open_run(project, "bench", action="model.evaluate", principal=project.principal(), progress=silent) as context,
    ):
        snapshots, _ = snapshots_of(context)
        task = resolve_task(project, snapshots)
        table = feature_set(context, task, snapshots, as_of=None)
        work = work_of(project, task, snapshots, table, as_of=None, quick=False, trials=None, time=None)
        rows = labelled_rows(
            project, task, work.snapshot, work.table, spec=work.training, evaluation=work.evaluation, as_of=None
        )
    order = np.argsort(rows.at, kind="stable")
    frame = rows.features.with_columns(label__=pl.Series(rows.target), at__=pl.Series(rows.at))
    return frame[order]


def _task(name: str, frame: pl.DataFrame) -> Task:
    columns = tuple(column for column in frame.columns if not column.endswith("__"))
    texts, numbers = {}, []
    for column in columns:
        values = frame[column]
        if values.dtype == pl.String:
            texts[column] = values.fill_null("missing").to_numpy().astype(str)
            counts = values.value_counts(sort=True)[column].to_list()
            places = {value: float(place) for place, value in enumerate(counts)}
            numbers.append(np.array([places[value] for value in values.to_list()]))
        else:
            numbers.append(values.cast(pl.Float64).to_numpy().astype(float))
    stored = tuple(place for place, column in enumerate(columns) if column[-1] in "dh" and column[-2].isdigit())
    if name == "incomes":
        stored = tuple(columns.index(one) for one in columns if "capital" in one or "hours" in one)
    sizes = {"flights": (40_000, 40_000), "payments": (40_000, 40_000), "incomes": (12_000, 8_000)}[name]
    return Task(
        name=name,
        columns=columns,
        features=np.stack(numbers, axis=1),
        texts=texts,
        label=frame["label__"].to_numpy(),
        at=frame["at__"].to_numpy() if "at__" in frame.columns else None,
        stale=stored,
        alerts=0.005 if name == "payments" else None,
        threshold=1 / 6 if name == "flights" else 0.5,
        train=sizes[0],
        past=sizes[1],
    )
