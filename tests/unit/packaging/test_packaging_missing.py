"""Which columns a packaged model's rows must carry: those without which the original has no answer."""

from __future__ import annotations

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from foreign_models import built, given
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from cumulant.packaging.convert.model_objects import from_object
from cumulant.servable.folder import load_description

NAMES = ("amount", "hour", "age")
MATRIX = np.random.default_rng(3).normal(size=(200, 3))
FRAME = pd.DataFrame(MATRIX, columns=list(NAMES))
LABELS = (MATRIX.sum(axis=1) > 0).astype(int)


def fitted(model):
    """With missing values in the rows of those that bear them: LightGBM takes them for zeros otherwise."""
    bears = not isinstance(model, (LinearRegression, LogisticRegression, LinearSVC))
    frame = FRAME.mask(np.random.default_rng(4).random(FRAME.shape) < 0.1) if bears else FRAME
    return model.fit(frame, LABELS)


@pytest.mark.parametrize("sample", [None, given(MATRIX)])
@pytest.mark.parametrize("model", [LinearRegression(), LogisticRegression(), LinearSVC()])
def test_a_linear_model_needs_every_column(tmp_path, model, sample):
    servable = built(from_object(fitted(model)), tmp_path / "out", sample)
    assert servable.required == NAMES
    assert load_description(tmp_path / "out").required == NAMES


@pytest.mark.parametrize("sample", [None, given(MATRIX)])
@pytest.mark.parametrize(
    "model",
    [
        lightgbm.LGBMClassifier(n_estimators=5, verbose=-1),
        xgboost.XGBClassifier(n_estimators=5),
        HistGradientBoostingClassifier(max_iter=5),
        make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()),
    ],
)
def test_a_model_that_bears_missing_values_needs_no_column(tmp_path, model, sample):
    assert built(from_object(fitted(model)), tmp_path / "out", sample).required == ()


def test_of_a_pipeline_the_columns_that_nothing_fills_are_needed(tmp_path):
    filling = ColumnTransformer([("fill", SimpleImputer(), [1])], remainder="passthrough")
    model = make_pipeline(filling, LogisticRegression()).fit(FRAME, LABELS)
    assert built(from_object(model), tmp_path / "out", given(MATRIX)).required == ("amount", "age")
