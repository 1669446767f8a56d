"""Errors of a user's trainer: the line of the user's own file, the nearest name, and a next step."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from cumulant.core.errors import CumulantError, DefinitionError, UserCodeError
from cumulant.training.trainers.trainer import Problem, TrainingSample
from cumulant.training.trainers.user_trainer import UserTrainer, load_function


def fitted(folder: Path, body: str) -> CumulantError:
    (folder / "trainers.py").write_text(body)
    rows = TrainingSample(matrix=np.zeros((4, 0), dtype=np.float32), target=np.array([0.0, 1.0, 0.0, 1.0]))
    problem = Problem(task="binary", classes=("0", "1"), inputs=(), metric="log_loss")
    with pytest.raises((UserCodeError, DefinitionError)) as caught:
        UserTrainer("trainers.py:forest", folder).fit(problem, {}, rows)
    return caught.value


def test_a_signature_that_does_not_take_the_rows_is_named(tmp_path):
    error = fitted(tmp_path, "def forest(X):\n    return 3\n")
    assert error.message == "the trainer trainers.py:forest is forest(X), and is called with the rows and the target"
    assert error.hint == "write def forest(X, y): ..."


def test_the_line_is_the_users_own_also_where_a_library_raised(tmp_path):
    error = fitted(tmp_path, "import json\n\ndef forest(X, y):\n    return json.loads('{')\n")
    assert "raised JSONDecodeError at trainers.py, line 4: " in error.message
    assert "user.py" not in error.message
    assert "the same command again" in (error.hint or "")


def test_a_name_that_does_not_exist_has_the_nearest_one(tmp_path):
    error = fitted(tmp_path, "def forest(X, y):\n    weights = 1\n    return weigths\n")
    assert "at trainers.py, line 3: name 'weigths' is not defined" in error.message
    assert error.hint == 'did you mean "weights"?'


def test_a_missing_package_is_to_be_installed(tmp_path):
    error = fitted(tmp_path, "import nopackage\n\ndef forest(X, y):\n    return 3\n")
    assert "at trainers.py, line 1: No module named 'nopackage'" in error.message
    assert (error.hint or "").startswith("install nopackage ")


def test_a_missing_module_of_the_project_is_named_and_not_the_trainer(tmp_path):
    error = fitted(tmp_path, "from trainers_depth import DEPTH\n\ndef forest(X, y):\n    return DEPTH\n")
    assert "at trainers.py, line 1: No module named 'trainers_depth'" in error.message
    for path, module in (("nopackage.trees:fit", "nopackage.trees"), ("json.nomodule:fit", "json.nomodule")):
        with pytest.raises(DefinitionError, match=f"there is no module {module} for the trainer {path}"):
            load_function(path, tmp_path)


@pytest.mark.parametrize("file", ["trainer.py", "own/trainer.py"])
def test_a_trainer_imports_other_modules_of_the_project(tmp_path, file):
    for project, depth in (("one", 3), ("two", 5)):
        root = tmp_path / project
        (root / "own").mkdir(parents=True)
        (root / "own" / "depth.py").write_text(f"from sizes import SIZE\nDEPTH = SIZE + {depth}\n")
        (root / "sizes.py").write_text("SIZE = 100\n")
        (root / file).write_text(
            "from dataclasses import dataclass\nfrom own.depth import DEPTH\n\n@dataclass\nclass Model:\n"
            "    depth: int\n\ndef fit(X, y):\n    return Model(DEPTH)\n"
        )
        before = list(sys.path)
        fit = load_function(f"{file}:fit", root)
        model = fit(None, None)
        assert model.depth == 100 + depth, "the modules of each project are its own"
        assert pickle.loads(pickle.dumps(model)) == model
        assert sys.path == before
        assert not {"own", "own.depth", "sizes"} & sys.modules.keys()
    (root / "own" / "depth.py").write_text("DEPTH = 7\n")
    assert load_function(f"{file}:fit", root)(None, None).depth == 7
