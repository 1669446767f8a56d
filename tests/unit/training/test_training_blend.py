"""A weighted average of trainers: taken where it is better beyond noise, one graph, and repeated from its records."""

import msgspec
import numpy as np
import polars as pl
import pytest

from cumulant.core.errors import DefinitionError, IntegrityError, UsageError
from cumulant.training.dataset import training_set
from cumulant.training.model import FittedModel
from cumulant.training.policy import TrainingPolicy
from cumulant.training.records import TrainingSummary, TrialRecord
from cumulant.training.search.blend import Candidates, blend
from cumulant.training.search.choices import ModelChoice, untuned
from cumulant.training.search.cross_validation import prepare_folds
from cumulant.training.search.final_fit import fit_all
from cumulant.training.search.refit import refit
from cumulant.training.search.search import search
from cumulant.training.search.search_metric import searched_metric
from cumulant.training.trainers.trainer_lookup import make_trainer

pytestmark = pytest.mark.slow

ROWS = 2000


def mixed(target, *, rows=ROWS, seed=0):
    """A steep line over several numbers, which trees follow in steps, and a step that no line follows."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, 6))
    shop = generator.choice(["north", "south", "east"], size=rows)
    value = x[:, :5] @ [1.0, 0.8, 0.6, 0.5, 0.4] + 1.1 * (x[:, 5] * x[:, 0] > 0.3) + (shop == "east")
    noisy = value + 0.7 * generator.normal(size=rows)
    frame = pl.DataFrame({**{f"x{place}": x[:, place] for place in range(6)}, "shop": shop})
    targets = {
        "late": noisy > 1.5,
        "kind": np.select([noisy > 2.5, noisy > 0.5], ["high", "middle"], "low"),
        "amount": noisy,
    }
    return training_set(frame, pl.Series(target, targets[target]), spec=TrainingPolicy(target=target))


def spec_of(target, **options):
    fixed = {"learning_rate": 0.1, "num_leaves": 15}
    return TrainingPolicy(
        target=target, **{"trials": 1, "ensemble": 1, "time": None, "parameters": {"lightgbm": fixed}} | options
    )


@pytest.fixture(scope="module", params=["late", "kind", "amount"])
def blended(request):
    rows, spec = mixed(request.param), spec_of(request.param)
    return rows, spec, search(rows, spec)


def test_the_blend_is_the_model_where_it_is_better_beyond_noise(blended):
    rows, spec, found = blended
    summary, alone = found.summary, search(rows, msgspec.structs.replace(spec, blend="off")).summary
    assert (summary.trainer, found.best.kind, summary.params) == ("blend", "blend", {})
    assert {one.trainer for one in summary.parts} == {"lightgbm", "linear"}
    assert sum(one.weight for one in summary.parts) == pytest.approx(1)
    assert min(one.weight for one in summary.parts) >= 0.05
    assert summary.blend.taken
    assert 0 < summary.blend.gain.low < summary.blend.gain.value < summary.blend.gain.high
    assert summary.score == summary.blend.score < alone.score == summary.scores[summary.blend.best]
    assert alone.trainer in ("lightgbm", "linear")
    assert alone.blend is None
    assert sum(found.best.importance.values()) == pytest.approx(1)


def test_its_gain_holds_on_rows_that_no_fold_had(blended):
    rows, spec, found = blended
    fresh = mixed(spec.target, rows=6000, seed=1)
    metric = searched_metric(spec, rows)
    alone = search(rows, msgspec.structs.replace(spec, blend="off")).best
    from cumulant.statistics import Rows

    ours, theirs = (
        metric.value(Rows(truth=fresh.target, prediction=model.predict_frame(fresh.features)))
        for model in (found.best, alone)
    )
    assert ours < theirs


def test_a_blend_is_read_back_and_repeated_from_its_records(blended, tmp_path):
    rows, spec, found = blended
    folder = found.best.to_folder(tmp_path / "model")
    read = FittedModel.from_folder(folder)
    matrix = found.best.encode(rows.features)
    assert np.array_equal(read.predict(matrix), found.best.predict(matrix))
    assert read.members()[0][0] == found.summary.parts[0].weight
    summary = msgspec.json.decode(msgspec.json.encode(found.summary), type=TrainingSummary)
    again = refit(rows, spec, summary, found.trials).to_folder(tmp_path / "again")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {path.name: path.read_bytes() for path in again.iterdir()} == files
    (folder / "member-1.linear.json").unlink(missing_ok=True)
    (folder / "member-0.linear.json").unlink(missing_ok=True)
    with pytest.raises(IntegrityError, match="there is no linear"):
        FittedModel.from_folder(folder)
    with pytest.raises(DefinitionError, match="of kind blend is no boosters"):
        found.best.boosters()


def test_weights_do_not_depend_on_what_the_search_finds():
    """All but the first points of a search are tuned, and the champion's parameters, which were chosen before."""
    rows = mixed("late", rows=900)
    few = spec_of("late", parameters={}, trials=3)
    short, long = (search(rows, spec) for spec in (few, msgspec.structs.replace(few, trials=5)))
    assert [trial.tuned for trial in long.trials if trial.trainer == "lightgbm"] == [False] * 3 + [True] * 2
    assert not any(trial.tuned for trial in short.trials)
    weights = [[(member.trainer, member.weight) for member in found.summary.blend.members] for found in (short, long)]
    assert weights[0] == weights[1]
    # of the untuned trials, or of all where that is surer
    assert long.summary.blend.gain.low >= short.summary.blend.gain.low
    warm = search(rows, msgspec.structs.replace(few, trials=4), champion={"num_leaves": 6})
    assert [trial.tuned for trial in warm.trials if trial.trainer == "lightgbm"] == [True] + [False] * 3


def test_a_trainer_without_untuned_trials_is_weighed_by_those_it_has():
    records = [
        TrialRecord(number=0, trainer="linear", score=0.5),
        TrialRecord(number=1, trainer="lightgbm", score=0.4, tuned=True),
        TrialRecord(number=2, trainer="xgboost", score=0.4, tuned=True),
        TrialRecord(number=3, trainer="xgboost", score=0.6),
        TrialRecord(number=4, trainer="lightgbm", state="cut"),
    ]
    assert [record.number for record in untuned(records)] == [0, 1, 3]


def test_a_trainer_cannot_be_called_blend():
    with pytest.raises(UsageError, match='no trainer "blend"'):
        search(mixed("late", rows=300), spec_of("late", trainers=["blend"]))


def choices_of(rows, folds, names, answers):
    return [
        ModelChoice(
            trainer=make_trainer(name, None), members=(), answers=folds_answers, score=folds.mean_score(folds_answers)
        )
        for name, folds_answers in zip(names, answers, strict=True)
    ]


def tried_blend(choices, folds, rows):
    """Of trainers without a search: every fold chooses the same."""
    return blend(choices, [Candidates(choices, [choices] * folds.count)], folds, rows)


def noise_worlds(count, *, clusters, shared):
    """How often a blend is taken of two answers that know the same: each adds noise that its days or customers share,
    `shared` of it, to the truth; the second much more, so that the best is alone as good as any average.
    """
    taken = 0
    for seed in range(count):
        generator = np.random.default_rng(seed)
        group = np.repeat(np.arange(clusters), 600 // clusters)
        truth = generator.normal(size=600)
        frame = pl.DataFrame({"x": generator.normal(size=600)})
        rows = training_set(frame, pl.Series("y", truth), spec=TrainingPolicy(target="y"), groups=pl.Series(group))
        spec = TrainingPolicy(target="y")
        folds, _, _ = prepare_folds(rows, spec, searched_metric(spec, rows))
        own = generator.normal(size=600) * (1 - shared) + generator.normal(size=clusters)[group] * shared
        first = 0.5 * truth + 0.5 * own
        second = first + 0.3 * generator.normal(size=clusters)[group] + 0.3 * generator.normal(size=600)
        answers = [first[folds.places], second[folds.places]]
        tried = tried_blend(choices_of(rows, folds, ["lightgbm", "linear"], answers), folds, rows)
        taken += tried is not None and tried.better
    return taken


@pytest.mark.parametrize(("clusters", "shared"), [(600, 0.0), (20, 0.8)])
def test_an_answer_that_adds_only_noise_is_rarely_taken(clusters, shared):
    assert noise_worlds(40, clusters=clusters, shared=shared) <= 3


def searched(records, answers, folds, trainer, *, without=None):
    """The best of the trials whose `answers` are these, by all folds or by the others."""
    best = max(range(len(answers)), key=lambda trial: -folds.mean_score(answers[trial], without=without))
    return ModelChoice(
        trainer=make_trainer(trainer, None),
        members=(records[best],) if records else (),
        answers=answers[best],
        score=folds.mean_score(answers[best], without=without),
    )


def long_search_worlds(count, *, own, other):
    """How often a blend is taken of a trainer with 100 trials, none really better than another, which differ by noise
    of size `own`, and of a second trainer with the same error and noise of size `other`. Three of the first one's
    trials are untuned.
    """
    taken = 0
    for seed in range(count):
        generator = np.random.default_rng(seed)
        truth = generator.normal(size=800)
        frame = pl.DataFrame({"x": generator.normal(size=800)})
        rows = training_set(frame, pl.Series("y", truth), spec=TrainingPolicy(target="y"))
        spec = TrainingPolicy(target="y")
        folds, _, _ = prepare_folds(rows, spec, searched_metric(spec, rows))
        error = 0.5 * generator.normal(size=800)
        noises, scales = own * generator.normal(size=(100, 800)), 1 + 0.05 * generator.normal(size=100)
        first = [(scale * (truth + error) + noise)[folds.places] for scale, noise in zip(scales, noises, strict=True)]
        second = [(truth + 0.97 * error + other * generator.normal(size=800))[folds.places]]
        tried = searched_blend({"lightgbm": (first, 3), "linear": (second, 1)}, folds, rows)
        taken += tried is not None and tried.better
    return taken


def searched_blend(trials, folds, rows):
    """The blend of trainers whose trials gave these answers; the first few of each are untuned."""

    def best(*, plain, without=None):
        return [
            searched(None, answers[: untuned if plain else None], folds, name, without=without)
            for name, (answers, untuned) in trials.items()
        ]

    candidates = [
        Candidates(best(plain=plain), [best(plain=plain, without=fold) for fold in range(folds.count)])
        for plain in (True, False)
    ]
    return blend(best(plain=False), candidates, folds, rows)


def test_a_long_search_does_not_hide_what_an_average_gains():
    """Of the best of 100 trials on the rows that chose it, the blend is taken in 4 of these worlds."""
    assert long_search_worlds(10, own=0.2, other=0.25) >= 7


def test_a_long_search_does_not_make_an_average_look_good():
    """The second trainer has the first one's error and more: the average of both gains nothing."""
    assert long_search_worlds(20, own=0.0, other=0.55) <= 2


def test_a_long_search_gains_no_weight_by_its_length():
    """Two trainers whose errors are as large, and independent: half the weight each is best. By the rows that chose it,
    the best of 100 trials has .6.
    """
    weights = []
    for seed in range(15):
        generator = np.random.default_rng(seed)
        truth = generator.normal(size=80)
        frame = pl.DataFrame({"x": generator.normal(size=80)})
        rows = training_set(frame, pl.Series("y", truth), spec=TrainingPolicy(target="y"))
        spec = TrainingPolicy(target="y")
        folds, _, _ = prepare_folds(rows, spec, searched_metric(spec, rows))
        answers = [(truth + 0.5 * error)[folds.places] for error in generator.normal(size=(101, 80))]
        tried = searched_blend({"lightgbm": (answers[:100], 1), "linear": (answers[100:], 1)}, folds, rows)
        weights.append({member.name: weight for member, weight in zip(tried.members, tried.weights, strict=True)})
    assert 0.45 <= np.mean([each["lightgbm"] for each in weights]) <= 0.55


def test_a_model_of_the_users_takes_no_part_and_a_constant_none():
    rows = mixed("amount", rows=600)
    spec = spec_of("amount")
    folds, _, _ = prepare_folds(rows, spec, searched_metric(spec, rows))
    truth = rows.target[folds.places]
    generator = np.random.default_rng(0)
    good = [truth + generator.normal(size=len(truth)) for _ in range(2)]
    assert tried_blend(choices_of(rows, folds, ["lightgbm", "linear"], good), folds, rows).better
    assert tried_blend(choices_of(rows, folds, ["lightgbm", "sklearn:Ridge"], good), folds, rows) is None
    assert tried_blend(choices_of(rows, folds, ["lightgbm", "naive"], good), folds, rows) is None


def test_a_blend_is_fitted_on_more_rows_with_its_weights_calibration_and_threshold(blended):
    rows, spec, found = blended
    part = rows.take(np.arange(1500))
    small = search(part, spec)
    whole = fit_all(small.best, rows, spec, small.summary, small.trials)
    assert (whole.kind, whole.trainer) == (small.best.kind, small.best.trainer)
    assert (whole.calibration, whole.threshold) == (small.best.calibration, small.best.threshold)
    if small.best.kind == "blend":
        assert [weight for weight, _ in whole.members()] == [weight for weight, _ in small.best.members()]
    # On the rows of the search it is the model of the search.
    same = fit_all(found.best, rows, spec, found.summary, found.trials)
    matrix = rows.features.head(50)
    assert np.array_equal(same.predict_frame(matrix), found.best.predict_frame(matrix))
    assert not np.array_equal(whole.predict_frame(matrix), small.best.predict_frame(matrix))
