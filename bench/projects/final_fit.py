"""What `training.final_fit: all` gains on held-out rows: the served and the tested model of one training.

    python bench/projects/final_fit.py TABLE.csv TARGET [--time COLUMN] [--by time|random] [--split 0]
        [--train-time 20s] [--clock wall|processor]

`new --from`, `train` with `final_fit: all`; a held-out part as in `zero_edit.py`. Both models have the same
configuration: the tested one is packaged and answers in place of the served one. Differences of log loss or RMSE are
paired by row and above 0 where the served model is better.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from zero_edit import command, gap, labels, options, ours, parts

from cumulant.flows.registry.model_record import find_record
from cumulant.flows.registry.version_servable import describe_row_servable
from cumulant.flows.training.search_step import load_model
from cumulant.packaging.builder import build
from cumulant.project.file.loading import load
from cumulant.statistics import Rows, metric


def answers_of_tested(folder: Path, test: Path) -> tuple[np.ndarray, int, int]:
    """Its answers, and how many rows the tested and the served model learned from."""
    with load(folder) as project:
        version = project.registry().resolve(f"{project.name}/1")
        record = find_record(project, version)
        served = describe_row_servable(project, version)
        objects = project.objects()
        tested = load_model(project, record.fitted.model)
        tables = project.tables()
        sample = tables.scan(tables.find(record.table)).head(100).collect()
        with tempfile.TemporaryDirectory() as scratch:
            made = Path(scratch) / "servable"
            build(
                tested,
                served.plan,
                name=served.name,
                sample=sample,
                out=made,
                lineage=served.lineage,
                example=served.example,
                target=record.training.target,
            )
            objects.put("servables/tested", made)
        project.registry().tag(version.name, version.version, {"cumulant.servable": "servables/tested"})
    out = folder / "tested.parquet"
    command("predict", "--input", str(test), "--output", str(out), "--project", str(folder))
    answers = pl.read_parquet(out)
    column = "probability" if "probability" in answers.columns else "prediction"
    return answers[column].to_numpy(), record.fitted.split.train, record.fitted.rows


def main() -> None:
    chosen = options(__doc__, train_time="20s").parse_args()
    chosen.edit = ["final_fit: all"]
    train, test = parts(chosen)
    folder = Path(tempfile.mkdtemp(prefix="cumulant-bench-"))
    try:
        served, said = ours(folder, train, test, chosen)
        tested, *rows = answers_of_tested(folder / "p", folder / "test.csv")
        truth = labels(test[chosen.target])
        main = "log_loss" if len(np.unique(truth)) == 2 else "rmse"
        values = [round(metric(main).value(Rows(truth=truth, prediction=one)), 5) for one in (served, tested)]
        found = {
            "table": chosen.table.name,
            "by": chosen.by if chosen.by == "time" else f"split {chosen.split}",
            "rows of tested, served": rows,
            f"{main} of served, tested": values,
            "better by": gap(main, truth, served, tested),
            **said,
        }
        print(json.dumps(found), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
