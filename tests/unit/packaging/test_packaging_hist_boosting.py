"""HistGradientBoosting models answer as scikit-learn's do, alone and at the end of a pipeline."""

from __future__ import annotations

import joblib
import numpy as np
import pandas as pd
import pytest
from foreign_models import built, given
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cumulant.core.errors import DefinitionError
from cumulant.packaging.convert.model_files import read_model
from cumulant.packaging.convert.model_objects import from_object
from cumulant.servable.engine import Engine

RANDOM = np.random.default_rng(3)
ROWS = RANDOM.normal(size=(1500, 5))
ROWS[RANDOM.random(ROWS.shape) < 0.1] = np.nan
#: of no value but missing ones, so that some splits part these from all others
ROWS[:, 4] = np.where(RANDOM.random(1500) < 0.3, np.nan, 1.0)
SCORE = np.nansum(ROWS[:, :3], axis=1) + 2 * np.isnan(ROWS[:, 4])


def classes(count):
    return np.digitize(SCORE, np.quantile(SCORE, np.linspace(0, 1, count + 1)[1:-1]))


@pytest.mark.parametrize(
    ("model", "goal", "outputs"),
    [
        (HistGradientBoostingRegressor(max_iter=20), SCORE, {"prediction"}),
        (HistGradientBoostingRegressor(max_iter=12, loss="poisson"), np.exp(SCORE / 4), {"prediction"}),
        (HistGradientBoostingRegressor(max_iter=12, loss="gamma"), np.exp(SCORE / 4), {"prediction"}),
        (HistGradientBoostingRegressor(max_iter=12, loss="quantile", quantile=0.9), SCORE, {"prediction"}),
        (HistGradientBoostingClassifier(max_iter=20), classes(2), {"label", "probability"}),
        (HistGradientBoostingClassifier(max_iter=12), np.array(list("no"))[classes(2)], {"label", "probability"}),
        (HistGradientBoostingClassifier(max_iter=12), classes(4), {"label", "probabilities"}),
    ],
)
def test_answers_are_those_of_the_original(tmp_path, model, goal, outputs):
    foreign = from_object(model.fit(ROWS, goal))
    servable = built(foreign, tmp_path / "one", given(ROWS))
    assert servable.parity.flips == 0
    assert servable.parity.max_difference < 1e-12
    assert {one.name for one in servable.outputs} == outputs
    assert foreign.converter == "cumulant, float64 trees"


def test_a_file_is_read_and_names_of_columns_are_kept(tmp_path):
    frame = pd.DataFrame(ROWS, columns=list("abcde"))
    joblib.dump(HistGradientBoostingClassifier(max_iter=10).fit(frame, classes(2)), tmp_path / "model.joblib")
    foreign = read_model(tmp_path / "model.joblib", trust_pickle=True)
    servable = built(foreign, tmp_path / "one", given(ROWS))
    assert servable.columns == tuple("abcde")
    assert servable.parity.max_difference < 1e-12


def test_a_pipeline_may_end_in_one(tmp_path):
    model = make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=20)).fit(ROWS, classes(2))
    foreign = from_object(model)
    servable = built(foreign, tmp_path / "one", given(ROWS))
    assert servable.parity.flips == 0
    assert foreign.kind == "scikit-learn"
    assert foreign.converter == "skl2onnx, FP64; cumulant, float64 trees"


def test_thresholds_and_missing_values_go_as_in_training(tmp_path):
    model = HistGradientBoostingRegressor(max_iter=5).fit(ROWS, SCORE)
    built(from_object(model), tmp_path / "one")
    edges = np.unique([float(node["num_threshold"]) for (tree,) in model._predictors for node in tree.nodes])
    rows = np.repeat(edges[np.isfinite(edges)], 5).reshape(-1, 5)
    rows = np.vstack([rows, np.nextafter(rows, np.inf), np.full((1, 5), np.nan), np.full((1, 5), 1e300)])
    (found,) = Engine(tmp_path / "one" / "model.onnx").run({"input": rows})
    assert np.abs(found - model.predict(rows)).max() < 1e-12


def test_what_has_no_form_is_said_exactly():
    with pytest.raises(DefinitionError, match="HistGradientBoostingRegressor is not fitted"):
        from_object(HistGradientBoostingRegressor())
    rows = np.column_stack([RANDOM.integers(0, 5, 1500), ROWS])
    model = HistGradientBoostingClassifier(max_iter=5, categorical_features=[0]).fit(rows, classes(2))
    with pytest.raises(DefinitionError, match="splits on categories") as caught:
        from_object(model)
    assert "OrdinalEncoder" in caught.value.hint
