"""`cumulant new --from FILE` and `cumulant train`, untouched, beside LightGBM's defaults on the same split.

    python bench/projects/tabular.py ../shared/data

Prints a Markdown row a data set: seconds of both commands, and the searched metric on the held-out fifth.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import lightgbm
import numpy as np
import polars as pl

from cumulant.core.progress import silent
from cumulant.flows.data.validate import snapshots_of
from cumulant.flows.features.feature_table import feature_set
from cumulant.flows.features.task import resolve_task
from cumulant.flows.ledger.run_context import open_run
from cumulant.flows.training.search_step import rows_of
from cumulant.flows.training.train import work_of
from cumulant.project.file.loading import load
from cumulant.statistics import estimate, metric
from cumulant.training.evaluation.evaluation import scored
from cumulant.training.splits import TrainTestSplit

CUMULANT = Path(sys.executable).with_name("cumulant")
DATA = {
    "adult": ("adult.csv.gz", "income-per-year", "log_loss"),
    "german-credit": ("german_credit.csv.gz", "credit", "log_loss"),
    "telco-churn": ("telco_churn.csv.gz", "Churn", "log_loss"),
    "california-housing": ("california_housing.parquet", "MedHouseVal", "rmse"),
}


def commands(folder: Path, name: str, file: Path, target: str) -> tuple[dict, float]:
    """The training's JSON document and the seconds of both commands."""
    begun = time.perf_counter()
    for line in (
        ["new", name, "--from", str(file), "--target", target, "--project", str(folder)],
        ["train", "--project", str(folder / name)],
    ):
        done = subprocess.run([CUMULANT, *line, "--json"], capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1):
            raise SystemExit(f"{' '.join(line)}\n{done.stderr or done.stdout}")
    return json.loads(done.stdout), time.perf_counter() - begun


def same_split(folder: Path) -> TrainTestSplit:
    """The rows that the command trained on and was judged by."""
    with (
        load(folder) as project,
        open_run(project, "bench", action="model.evaluate", principal=project.principal(), progress=silent) as context,
    ):
        snapshots, _ = snapshots_of(context)
        task = resolve_task(project, snapshots)
        table = feature_set(context, task, snapshots, as_of=None)
        return rows_of(
            context, work_of(project, task, snapshots, table, as_of=None, quick=False, trials=None, time=None)
        )


def defaults(split: TrainTestSplit) -> np.ndarray:
    """LightGBM's defaults, texts as its own categories."""
    texts = [name for name, kind in split.train.features.schema.items() if kind == pl.String]
    both = pl.concat([split.train.features, split.test.features]).with_columns(pl.col(texts).cast(pl.Categorical))
    frame, cut = both.to_pandas(), len(split.train)
    kind = lightgbm.LGBMRegressor if split.train.task == "regression" else lightgbm.LGBMClassifier
    model = kind(n_jobs=2, verbose=-1, random_state=0).fit(frame[:cut], split.train.target)
    test = frame[cut:]
    return model.predict(test) if split.train.task == "regression" else model.predict_proba(test)[:, 1]


def main() -> None:
    warnings.filterwarnings("ignore")
    data = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data") / "tabular"
    folder = Path(tempfile.mkdtemp(prefix="cumulant-bench-"))
    print("| data | rows | seconds | metric | ours | LightGBM defaults | naive |")
    print("|---|---|---|---|---|---|---|")
    try:
        for name, (file, target, measure) in DATA.items():
            found, seconds = commands(folder, name, (data / file).resolve(), target)
            split = same_split(folder / name)
            theirs = estimate(metric(measure), scored(split.test, defaults(split)))
            ours, naive = (found["training"][kind][measure] for kind in ("metrics", "naive"))
            print(
                f"| {name} | {found['data']['rows_in']:,} | {seconds:.0f} | {measure} "
                f"| {ours['value']:.4f} [{ours['low']:.4f}, {ours['high']:.4f}] "
                f"| {theirs.value:.4f} [{theirs.low:.4f}, {theirs.high:.4f}] | {naive['value']:.4f} |",
                flush=True,
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
