"""`cumulant new --from`, `train`, untouched, judged on a quarter of the rows that neither of them saw.

    python bench/projects/zero_edit.py TABLE.csv TARGET [--time COLUMN] [--time-format 31/12/2024] [--by time|random]
        [--split 0] [--train-time 60s] [--clock wall|processor] [--edit "final_fit: train"]
        [--autogluon PYTHON [--answers FOLDER]]

`--by time` holds out the newest quarter by the column `--time`, else `--split` seeds the shuffle. The held-out rows are
answered by `predict`, from the registered model's servable. Beside it, on the same rows: LightGBM's defaults, texts as
its own categories; with `--autogluon` (a Python that has autogluon.tabular, which is not installed here) AutoGluon with
the preset medium_quality and the same time; `--answers` keeps its answers, for a second run on the same rows. With
`--clock processor` the time is that of the work done (`processor_clock.py`), so that a busy machine is fair to both.
`cpu` are seconds of the processor, with start-up: of `new` and `train`, and of AutoGluon's fit and predict. `--edit`
adds or replaces lines of `training:`, to measure a setting. Differences of log loss or RMSE are paired by row and above
0 where ours is better.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import get_args

import lightgbm
import numpy as np
import polars as pl

from cumulant.core.units import duration
from cumulant.data.spec import DateFormat
from cumulant.data.text import date_text, iso_text
from cumulant.statistics import Rows, difference, metric

CUMULANT = Path(sys.executable).with_name("cumulant")
CLOCK = Path(__file__).with_name("processor_clock.py")


def command(*line: str, before: tuple[str, ...] = ()) -> dict:
    done = subprocess.run([*before, str(CUMULANT), *line, "--json"], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(line)}\n{done.stderr or done.stdout}")
    return json.loads(done.stdout)


def processor_seconds() -> float:
    """Of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def halves(
    table: pl.DataFrame, *, moment: str | None, split: int, form: DateFormat | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Three quarters to learn from, and the quarter that is held out: at random, or the newest by the column `moment`.

    Rows of one time are never in both. form: how texts of times are written; None: ISO 8601, or as `new` finds it.
    """
    if moment is None:
        table = table.sample(fraction=1, shuffle=True, seed=7 + split)
        cut = table.height * 3 // 4
        return table[:cut], table[cut:]
    times = moments(table[moment], form)
    first = times.sort()[table.height * 3 // 4]
    older = (times < first).fill_null(True)  # without a time too
    return table.filter(older), table.filter(~older)


def moments(column: pl.Series, form: DateFormat | None) -> pl.Series:
    """A column of times, or of texts that are times, so that it can be ordered."""
    if column.dtype != pl.String:
        return column
    text = column.str.strip_chars()
    form = form or date_text.detect(text.drop_nulls())
    times = text.to_frame().select(iso_text.moments(pl.col(text.name), None, form)).to_series()
    if times.null_count() > column.null_count():
        raise SystemExit(f"{column.name} holds texts that are no times: name their format by --time-format")
    return times


def ours(folder: Path, train: pl.DataFrame, test: pl.DataFrame, chosen: argparse.Namespace) -> tuple[np.ndarray, dict]:
    train.write_csv(folder / "train.csv")
    test.drop(chosen.target).write_csv(folder / "test.csv")
    extra = ["--time", chosen.time] if chosen.time else []
    begun, used = time.perf_counter(), processor_seconds()
    command(
        "new", "p", "--from", str(folder / "train.csv"), "--target", chosen.target, *extra, "--project", str(folder)
    )
    made = time.perf_counter() - begun
    project = str(folder / "p")
    edits = "".join(f"  {line}\n" for line in chosen.edit)
    file = folder / "p" / "cumulant.yaml"
    replaced = tuple(f"  {line.split(':')[0]}:" for line in chosen.edit)
    text = "".join(line for line in file.read_text().splitlines(True) if not line.startswith(replaced))
    file.write_text(text.replace("\ntraining:\n", f"\ntraining:\n{edits}", 1))
    clock = (sys.executable, str(CLOCK)) if chosen.clock == "processor" else ()
    line = ("train", "--time", chosen.train_time, "--trials", "200", "--project", project)
    found = command(*line, before=clock)
    seconds, cpu = time.perf_counter() - begun, processor_seconds() - used
    out = folder / "answers.parquet"
    command("predict", "--input", str(folder / "test.csv"), "--output", str(out), "--project", project)
    answers = pl.read_parquet(out)
    said = {"seconds": round(seconds, 1), "new_seconds": round(made, 1), "cpu": round(cpu, 1)}
    said |= {key: found["training"].get(key) for key in ("trainer", "blend")}
    column = "probability" if "probability" in answers.columns else "prediction"
    return answers[column].to_numpy(), said


def defaults(train: pl.DataFrame, test: pl.DataFrame, target: str) -> np.ndarray:
    both = pl.concat([train, test])
    texts = [name for name, kind in both.schema.items() if kind == pl.String and name != target]
    frame = both.drop(target).with_columns(pl.col(texts).cast(pl.Categorical))
    frame = frame.select(pl.selectors.numeric() | pl.selectors.boolean() | pl.selectors.categorical()).to_pandas()
    label = labels(both[target])
    binary = len(np.unique(label)) == 2
    kind = lightgbm.LGBMClassifier if binary else lightgbm.LGBMRegressor
    model = kind(n_jobs=2, verbose=-1, random_state=0).fit(frame[: train.height], label[: train.height])
    return model.predict_proba(frame[train.height :])[:, 1] if binary else model.predict(frame[train.height :])


def autogluon(folder: Path, chosen: argparse.Namespace) -> tuple[np.ndarray, dict]:
    """Its answers, and the seconds that its process took."""
    seconds = str(duration(chosen.train_time).total_seconds())
    name = f"{chosen.table.stem}-{chosen.by}-{chosen.split}-{chosen.train_time}-{chosen.clock}.json"
    stored = None if chosen.answers is None else chosen.answers / name
    if stored is not None and stored.exists():
        past = json.loads(stored.read_text())
        return np.array(past["answers"]), past["said"]
    clock = [str(CLOCK)] if chosen.clock == "processor" else []
    peer = str(Path(__file__).with_name("autogluon_peer.py"))
    line = [chosen.autogluon, *clock, peer, str(folder), chosen.target, seconds]
    begun, used = time.perf_counter(), processor_seconds()
    subprocess.run(line, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": ""})
    said = {
        "autogluon_seconds": round(time.perf_counter() - begun, 1),
        "autogluon_cpu": round(processor_seconds() - used, 1),
    }
    answers = pl.read_csv(folder / "autogluon.csv")["answer"].to_numpy()
    if stored is not None:
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_text(json.dumps({"answers": answers.tolist(), "said": said}))
    return answers, said


def gap(name: str, truth: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> list[float | None]:
    """The difference with the ends of its 95% interval."""
    rows = [Rows(truth=truth, prediction=np.asarray(each, dtype=np.float64)) for each in (ours, theirs)]
    found = difference(metric(name), *rows)
    return [None if one is None else round(one, 5) for one in (found.value, found.low, found.high)]


def labels(values: pl.Series) -> np.ndarray:
    if values.n_unique() == 2:
        return (values == values.unique().sort()[1]).to_numpy().astype(float)
    return values.to_numpy().astype(float)


def options(description: str | None, *, train_time: str) -> argparse.ArgumentParser:
    """Which table is learned, how long, and which rows of it are held out."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("target")
    parser.add_argument("--time")
    parser.add_argument("--time-format", choices=get_args(DateFormat), help="of texts that are not ISO 8601")
    parser.add_argument("--by", choices=["time", "random"], default="random")
    parser.add_argument("--train-time", default=train_time)
    parser.add_argument("--clock", choices=["wall", "processor"], default="wall")
    parser.add_argument("--split", type=int, default=0)
    return parser


def parts(chosen: argparse.Namespace) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows of the table to learn from, and those that are held out."""
    table = pl.read_csv(chosen.table, infer_schema_length=None).drop_nulls(chosen.target)
    if chosen.by == "time" and chosen.time is None:
        raise SystemExit("--by time needs --time COLUMN")
    moment = chosen.time if chosen.by == "time" else None
    return halves(table, moment=moment, split=chosen.split, form=chosen.time_format)


def main() -> None:
    parser = options(__doc__, train_time="60s")
    parser.add_argument("--edit", action="append", default=[], metavar="LINE")
    parser.add_argument("--autogluon", metavar="PYTHON")
    parser.add_argument("--answers", type=Path, metavar="FOLDER")
    chosen = parser.parse_args()
    train, test = parts(chosen)
    folder = Path(tempfile.mkdtemp(prefix="cumulant-bench-"))
    try:
        answers, said = ours(folder, train, test, chosen)
        truth = labels(test[chosen.target])
        binary = len(np.unique(truth)) == 2
        others = {"lightgbm defaults": defaults(train, test, chosen.target)}
        if chosen.autogluon:
            others["autogluon"], seconds = autogluon(folder, chosen)
            said |= seconds
        measured = {}
        for name in ("roc_auc", "log_loss") if binary else ("rmse", "mae"):
            both = (answers, *others.values())
            measured[name] = [round(metric(name).value(Rows(truth=truth, prediction=each)), 5) for each in both]
        main = "log_loss" if binary else "rmse"
        said["better by"] = {name: gap(main, truth, answers, each) for name, each in others.items()}
        print(
            json.dumps(
                {
                    "table": chosen.table.name,
                    "rows": train.height + test.height,
                    "by": chosen.by if chosen.by == "time" else f"split {chosen.split}",
                    ", ".join(["ours", *others]): measured,
                    **said,
                    "edit": chosen.edit,
                    "time": f"{chosen.train_time} ({chosen.clock})",
                    "load": round(os.getloadavg()[0], 1),
                }
            ),
            flush=True,
        )
    finally:
        if os.environ.get("KEEP"):
            print(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
