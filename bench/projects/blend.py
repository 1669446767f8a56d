"""The model that a search chooses with a blend and without one, on held-out rows of public tables.

    python bench/projects/blend.py ../shared/data [--trials 12] [--splits 3]

Both have the same trials on the same folds; the budget is of trials, so that a busy machine finds the same models. Each
split holds out another random quarter. Prints a Markdown row a table and split: the members with their weights, the
gain out of fold and the gain on the held-out rows, with intervals (above 0: the blend is better);
0 where no blend was taken.
Then the serving price: processor time of the packaged model without a blend, and of its average with a linear model.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from cumulant.packaging.builder import to_onnx
from cumulant.statistics import Estimate, Rows, difference, metric
from cumulant.training.dataset import TrainingSet, training_set
from cumulant.training.model import FittedModel
from cumulant.training.payloads.payload import Blend
from cumulant.training.policy import TrainingPolicy
from cumulant.training.search.search import search

TABLES = {
    "german-credit": ("german_credit.csv.gz", "credit"),
    "telco-churn": ("telco_churn.csv.gz", "Churn"),
    "california-housing": ("california_housing.parquet", "MedHouseVal"),
    "adult": ("adult.csv.gz", "income-per-year"),
}
_ONE, _BATCH = 3000, 1000


def rows_of(file: Path, target: str) -> TrainingSet:
    table = pl.read_parquet(file) if file.suffix == ".parquet" else pl.read_csv(file, infer_schema_length=None)
    same = [name for name, kind in table.schema.items() if kind == pl.String and table[name].n_unique() > 1000]
    label = table[target]
    if label.n_unique() == 2:
        label = label == label.unique().sort()[1]
    return training_set(table.drop(target, *same), label, spec=TrainingPolicy(target=target))


def averaged(first: FittedModel, second: FittedModel) -> FittedModel:
    """Both as one model, whatever it gains."""
    payload = Blend(members=(first.payload, second.payload), weights=(0.7, 0.3))
    return FittedModel(msgspec.structs.replace(first.card, kind=payload.kind), payload)


def processor(model: FittedModel, matrix: np.ndarray) -> tuple[float, float]:
    """Microseconds of the processor: for a request of one row, and a row of a batch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(to_onnx(model).SerializeToString(), options)
    name, found = session.get_inputs()[0].name, []
    for rows, times in ((1, _ONE), (_BATCH, 20)):
        part = np.ascontiguousarray(matrix[:rows])
        session.run(None, {name: part})
        begun = time.process_time()
        for _ in range(times):
            session.run(None, {name: part})
        found.append((time.process_time() - begun) / times / rows * 1e6)
    return found[0], found[1]


def shown(one: Estimate) -> str:
    return "–" if one.low is None else f"{one.value:+.5f} [{one.low:+.5f}, {one.high:+.5f}]"


def compared(name: str, rows: TrainingSet, seed: int, trials: int) -> None:
    order = np.random.default_rng(seed).permutation(len(rows))
    cut = len(rows) * 3 // 4
    train, test = rows.take(np.sort(order[:cut])), rows.take(np.sort(order[cut:]))
    spec = TrainingPolicy(target="y", trials=trials, time=None, seed=seed)
    with tempfile.TemporaryDirectory() as scratch:
        found = search(train, spec, scratch=Path(scratch))
        alone = search(train, msgspec.structs.replace(spec, blend="off"), scratch=Path(scratch)).best
    tried, measure = found.summary.blend, metric(found.summary.metric)
    answers = [Rows(truth=test.target, prediction=one.predict_frame(test.features)) for one in (found.best, alone)]
    members = "–" if tried is None else ", ".join(f"{one.trainer} {one.weight:.2f}" for one in tried.members)
    held = "0 (not taken)" if found.best.kind != "blend" else shown(difference(measure, *answers))
    value = measure.value(answers[1])
    matrix = alone.encode(test.features)
    line = search(train, msgspec.structs.replace(spec, trainers=["linear"])).best
    models = (alone, averaged(alone, line))
    prices = [f"{one:.0f} / {batch:.1f}" for one, batch in (processor(model, matrix) for model in models)]
    gain = "–" if tried is None else shown(tried.gain)
    print(
        f"| {name} {seed} | {measure.name} {value:.5f} | {members} | {gain} | {held} | {' | '.join(prices)} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--tables", nargs="*", default=list(TABLES))
    chosen = parser.parse_args()
    print(
        "| table, split | without | tried | gain out of fold | gain on held-out rows | us a request / a row of 1,000: alone | averaged |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in chosen.tables:
        file, target = TABLES[name]
        rows = rows_of(chosen.data / "tabular" / file, target)
        for seed in range(chosen.splits):
            compared(name, rows, seed, chosen.trials)


if __name__ == "__main__":
    main()
