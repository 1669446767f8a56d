"""`cumulant.register`: a fitted model becomes a version of the registry, or a folder."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import cumulant
from cumulant.core.errors import ParityError, UsageError
from cumulant.servable.folder import load_description

# Plain MLflow speaks through warnings.
pytestmark = pytest.mark.filterwarnings("ignore")

FRAME = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 3)), columns=list("abc"))
GOAL = (FRAME.a > 0).astype(int)


@pytest.fixture(scope="module")
def model():
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME, GOAL)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return cumulant.new(FRAME.assign(y=GOAL), target="y", name="shop", directory=tmp_path_factory.mktemp("project"))


def test_a_version_that_plain_mlflow_loads(project, model):
    import mlflow

    found = cumulant.register(model, FRAME, name="clf", project=project)
    assert found.uri == "models:/clf/1"
    assert found.servable.parity.flips == 0
    assert "probability" in repr(found)
    assert "models:/clf/1" in found._repr_html_()
    mlflow.set_tracking_uri(project.loaded.registry().tracking_uri)
    answers = mlflow.pyfunc.load_model(found.uri).predict(FRAME)
    assert np.allclose(answers["probability"], model.predict_proba(FRAME)[:, 1])
    assert answers["label"].tolist() == model.predict(FRAME).tolist()


def test_it_is_shown_as_other_versions_are(project, model, capsys):
    from cumulant.cli.app import run

    cumulant.register(model, FRAME, name="seen", project=project)
    assert "probability" in repr(project.model("seen"))
    assert run(["models", "show", "seen", "--project", str(project.root)]) == 0
    assert run(["models", "compare", "seen/1", "seen/1", "--project", str(project.root), "--json"]) == 0
    assert '"batching"' in capsys.readouterr().out


def test_once_for_the_same_servable(project, model):
    first = cumulant.register(model, FRAME, name="once", project=project)
    again = cumulant.register(model, FRAME, name="once", project=project.root)
    assert first.uri == again.uri == "models:/once/1"
    assert [event.data["model"] for event in project.events(kinds=["model.registered"])].count("once") == 1


def test_a_version_is_packaged_again_as_it_is(project, model, tmp_path):
    cumulant.register(model, FRAME, name="again", project=project)
    folder = project.loaded.registry().download("models:/again/1", tmp_path / "got")
    found = cumulant.register(folder, name="copy", out=tmp_path / "out")
    assert load_description(found.uri).name == "copy"


def test_a_folder_needs_no_project(model, tmp_path):
    found = cumulant.register(model, FRAME.to_numpy(), name="clf", out=tmp_path / "out")
    assert found.version is None
    assert load_description(tmp_path / "out").columns == ("a", "b", "c")


def test_what_is_refused(project, model, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="cannot be the name"):
        cumulant.register(model, name="a/b", project=project)
    with pytest.raises(UsageError, match="cannot be packaged"):
        cumulant.register(object(), name="clf", project=project)
    with pytest.raises(ParityError):
        cumulant.register(model, FRAME, name="strict", out=tmp_path / "out", tolerance=0)
    assert not (tmp_path / "out").exists()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"no cumulant\.yaml"):
        cumulant.register(model, name="clf")
