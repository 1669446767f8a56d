"""How much memory a training is expected to take, against what fits and rows take."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import msgspec
import numpy as np
import pytest

from cumulant.core.servable import Input
from cumulant.training import memory_need
from cumulant.training.memory_need import TrainingNeed, TrainingRows, total_need, training_need
from cumulant.training.payloads import perceptron
from cumulant.training.payloads.encoding import Matrix
from cumulant.training.payloads.payload import Floats
from cumulant.training.payloads.perceptron import NormalScores, Perceptrons
from cumulant.training.policy import TrainingPolicy
from cumulant.training.trainers import linear_trainer
from cumulant.training.trainers.mlp_trainer import MLP
from cumulant.training.trainers.trainer import Params, Problem, Trainer, TrainingSample
from cumulant.training.trainers.trainer_lookup import make_trainer

MIB = 1 << 20
ROWS, NUMBERS, TEXTS = 60_000, 12, 4
SPEC = TrainingPolicy(target="y", trainers=["linear"])
BUILT_IN = ["naive", "linear", "lightgbm", "mlp", "xgboost", "catboost", "sklearn:RandomForestClassifier"]


def read(rows: int, *, timed: bool = True, share: float = 1.0, numbers: int = NUMBERS) -> TrainingRows:
    kinds = ["float"] * numbers + ["str"] * TEXTS
    return TrainingRows(rows=rows, features=kinds, columns=3, timed=timed, share=share, tested=0.2)  # type: ignore[arg-type]


def need(rows: int, *trainers: str, threads: int = 2, **changes: object) -> int:
    spec = msgspec.structs.replace(SPEC, trainers=list(trainers) or SPEC.trainers, **changes)
    return training_need(read(rows), spec, threads=threads).search


def sample(rows: int) -> tuple[Problem, TrainingSample]:
    draw = np.random.default_rng(1)
    matrix = np.empty((rows, NUMBERS + TEXTS), dtype=np.float32)
    matrix[:, :NUMBERS] = draw.normal(size=(rows, NUMBERS))
    matrix[:, NUMBERS:] = draw.integers(0, 20, (rows, TEXTS))
    target = (matrix[:, 0] + draw.normal(size=rows) > 0).astype(np.float64)
    words = tuple(str(one) for one in range(20))
    inputs = [Input(f"n{one}", "number") for one in range(NUMBERS)]
    inputs += [Input(f"t{one}", "category", categories=words) for one in range(TEXTS)]
    problem = Problem(task="binary", classes=("no", "yes"), inputs=tuple(inputs), metric="log_loss")
    return problem, TrainingSample(matrix=matrix, target=target)


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_a_fit_takes_what_was_expected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    """Of the trainers that hold their rows in arrays of numpy, whose memory Python can trace."""
    trainer: Trainer = make_trainer(name, tmp_path)
    params: Params = {} if name == "linear" else {"rounds": 1, "width": 8}
    small, few = sample(500)
    trainer.fit(small, params, few)  # what is imported counts once
    problem, rows = sample(ROWS)
    monkeypatch.setattr(linear_trainer, "_BLOCK", 500)
    tracemalloc.start()
    try:
        trainer.fit(problem, params, rows)
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    expected = memory_need._fit(name, ROWS, ROWS, read(ROWS), SPEC) - memory_need._FITS[name].fixed
    assert 0.67 * expected < taken < 1.25 * expected


@pytest.mark.parametrize("name", BUILT_IN)
def test_more_rows_and_more_columns_need_more(name: str) -> None:
    assert need(10_000, name) < need(200_000, name) < need(2_000_000, name)
    few, many = (training_need(read(200_000, numbers=one), SPEC, threads=2).search for one in (12, 40))
    assert few < many


def test_the_largest_trainer_counts_as_they_are_fitted_one_after_the_other() -> None:
    names = [name for name in BUILT_IN if name != "catboost"]
    each = [need(1_000_000, name) for name in names]
    assert need(1_000_000, *names) == max(each)


def test_what_catboost_took_is_counted_beside_every_later_step() -> None:
    """Its allocator gives nothing back: 517,000 rows of 8 numbers and 2 texts peaked at 867 MiB while registered."""
    few = TrainingRows(rows=517_000, features=["float"] * 8 + ["str"] * 2, columns=3, timed=True, tested=0.2)  # type: ignore[list-item]
    alone, other, both = (
        training_need(few, msgspec.structs.replace(SPEC, trainers=names), threads=2)
        for names in (["catboost"], ["linear"], ["catboost", "linear"])
    )
    assert 0.95 * 867 * MIB < total_need(alone, 94 * MIB) < 1.1 * 867 * MIB
    fewer = training_need(
        msgspec.structs.replace(few, rows=222_000), msgspec.structs.replace(SPEC, trainers=["catboost"]), threads=2
    )
    assert total_need(fewer, 94 * MIB) > 666 * MIB  # the peak of so many rows on a quiet machine
    assert alone.later > other.later
    assert both.later == alone.later
    assert both.search > max(alone.search, other.search)


def test_few_rows_stay_within_a_small_memory() -> None:
    """517,000 rows, which were proposed for 640 MiB, peaked at 652 MiB."""
    few = TrainingRows(rows=517_000, features=["float"] * 8 + ["str"] * 2, columns=3, timed=True, tested=0.2)  # type: ignore[list-item]
    assert total_need(training_need(few, SPEC, threads=2), 94 * MIB) > 652 * MIB


def test_boosters_that_are_fitted_at_the_same_time_are_held_at_the_same_time() -> None:
    assert need(1_000_000, "lightgbm", threads=1) < need(1_000_000, "lightgbm", threads=3)
    assert need(1_000_000, "lightgbm", threads=3, ensemble=1) < need(1_000_000, "lightgbm", threads=3, ensemble=3)


@pytest.mark.parametrize(
    ("name", "small"), [("lightgbm", {"num_leaves": 7}), ("xgboost", {"max_depth": 3}), ("lightgbm", {"max_bin": 63})]
)
def test_histograms_of_larger_trees_need_more(name: str, small: dict[str, int]) -> None:
    assert need(200_000, name, trials=3) < need(200_000, name, trials=30)
    assert need(200_000, name, trials=30, parameters={name: small}) < need(200_000, name, trials=3)


@pytest.mark.parametrize(
    ("rows", "numbers", "depth", "taken"), [(1_200, 200, 6, 44), (3_000, 50, 10, 85), (14_900, 50, 10, 126)]
)
def test_trees_of_few_rows_have_few_nodes(rows: int, numbers: int, depth: int, taken: int) -> None:
    """`taken`: the MiB above its data that one fit of XGBoost took, at the depth that is searched at most."""
    spec = msgspec.structs.replace(SPEC, trainers=["xgboost"], trials=30)
    few = TrainingRows(rows=round(rows / 0.6), features=["float"] * numbers, columns=3, timed=True)
    free, fixed = (
        memory_need._histograms("xgboost", rows, round(rows / 0.75), few, one) / MIB
        for one in (spec, msgspec.structs.replace(spec, parameters={"xgboost": {"max_depth": depth}}))
    )
    assert 0.9 * taken < free < 1.8 * taken
    assert 0.9 * taken < fixed < 1.8 * taken


def test_a_second_fit_on_all_rows_needs_the_memory_of_all_rows() -> None:
    assert need(3_000_000, final_fit="train") < need(3_000_000, final_fit="all")


def test_a_part_of_the_rows_needs_less() -> None:
    whole, part = (training_need(read(1_000_000, share=one), SPEC, threads=2).search for one in (1.0, 0.1))
    assert part < whole


def test_rows_without_times_are_copied_to_their_side_of_the_split() -> None:
    naive = msgspec.structs.replace(SPEC, trainers=["naive"])
    timed, untimed = (training_need(read(1_000_000, timed=one), naive, threads=2) for one in (True, False))
    assert timed.search < untimed.search
    assert timed.later < untimed.later


def test_rows_of_a_short_test_are_learned_from() -> None:
    spec = msgspec.structs.replace(SPEC, trainers=["catboost"])
    need_of = {
        tested: training_need(msgspec.structs.replace(read(1_000_000), tested=tested), spec, threads=2).search
        for tested in (0.2, 0.05, 0.0)
    }
    assert need_of[0.2] < need_of[0.05] < need_of[0.0]


def test_rows_are_read_again_when_the_libraries_of_the_registration_are_loaded() -> None:
    plain, every = (
        training_need(read(1_000_000), msgspec.structs.replace(SPEC, final_fit=one), threads=2)
        for one in ("train", "all")
    )
    assert plain.later < plain.search
    assert every.later == every.search  # fitted once more
    assert total_need(plain, 0) == memory_need.LIBRARIES + plain.later


def test_the_libraries_count_until_rows_need_more() -> None:
    assert total_need(TrainingNeed(0, 0), 50 * MIB) == memory_need.LIBRARIES
    large = TrainingNeed(3000 * MIB, 2000 * MIB)
    assert total_need(large, 50 * MIB) == memory_need.SEARCH_LIBRARIES + 3000 * MIB
    assert total_need(large, 900 * MIB) == 3900 * MIB
    assert total_need(TrainingNeed(1000 * MIB, 900 * MIB), 0) == memory_need.LIBRARIES + 900 * MIB


def test_perceptrons_answer_blocks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, rows = sample(2000)
    payload = MLP().fit(problem, {"rounds": 1}, rows).payload
    assert isinstance(payload, Perceptrons)
    at_once, sizes, original = payload.predict(rows.matrix), list[int](), NormalScores.apply

    def apply(scores: NormalScores, matrix: Matrix) -> Floats:
        sizes.append(len(matrix))
        return original(scores, matrix)

    monkeypatch.setattr(NormalScores, "apply", apply)
    monkeypatch.setattr(perceptron, "_BLOCK", 300)
    assert np.allclose(payload.predict(rows.matrix), at_once, rtol=1e-12)
    assert sizes == [300] * 6 + [200]
    assert len(payload.predict(rows.matrix[:0])) == 0
