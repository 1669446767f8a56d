"""`plan` refuses what `train` and `release start` would refuse: planted faults of a project made by `new --from`."""

from __future__ import annotations

import random
import re
import socket
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from cumulant.core.errors import (
    CumulantError,
    DataError,
    DefinitionError,
    EngineUnavailableError,
    MissingPartError,
    ProjectFileError,
)
from cumulant.flows.data.validate import newest_snapshot
from cumulant.flows.features.feature_table import featurize
from cumulant.flows.features.task import resolve_task
from cumulant.flows.project.planning import plan
from cumulant.flows.training.train import train
from cumulant.flows.training.training_rows import columns_read, labelled_rows
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load
from cumulant.project.new.create import create_from
from cumulant.training.splits import split

ME = Principal("tester")

#: fault -> what is appended to the project file, and a piece of the message; `plan` and `train` see these without any data
OF_THE_FILE = {
    "metric of no task": ("  metric: acuracy\n", 'the search cannot follow "acuracy"'),
    "metric of another task": ("  task: binary\n  metric: rmse\n", "rmse does not measure the task binary"),
    "gate metric": ("evaluation: {gate: {acuracy: {min: 0.5}}}\n", 'did you mean "accuracy"?'),
    "gate cost": ("evaluation: {gate: {cost: {margin: 0.1}}}\n", "no cost is declared"),
    "negative cost": ("  cost: {false_negative: -1, false_positive: 1}\n", "is negative"),
    "costs of 0": ("  cost: {false_negative: 0, false_positive: 0}\n", "both costs are 0"),
    "two thresholds": ("  threshold: {alerts: 100/day, rate: 2%}\n", "has both `alerts` and `rate`"),
    "no threshold": ("  threshold: {}\n", "has neither `alerts` nor `rate`"),
    "no trainer": ("  trainers: []\n", "training.trainers names none"),
    "trainer twice": ("  trainers: [naive, linear, linear]\n", "names linear more than once"),
    "one row": ("  rows: 1\n", "training.rows: 1 is too few to learn from; write 1,000 or more"),
    "no time": ("  time: 0s\n", "training.time may not be 0"),
    "no alerts": ("  threshold: {alerts: 0/day}\n", "training.threshold.alerts may not be 0"),
    "rate of 0": ("  threshold: {rate: 0%}\n", "training.threshold.rate may not be 0"),
    "threshold above 1": ("  threshold: 1.5\n", "is no probability"),
    "limit above the most": ("evaluation: {gate: {roc_auc: {min: 1.2}}}\n", "1.2 is above 1"),
    "limit below the least": ("evaluation: {gate: {brier: {max: -1}}}\n", "-1 is below 0"),
    "limit that lets none pass": ("evaluation: {gate: {roc_auc: {max: 0.5}}}\n", "lets no model pass"),
    "margin of the whole range": ("evaluation: {gate: {roc_auc: {margin: 5}}}\n", "lets every model pass"),
    "limit that lets all pass": ("evaluation: {gate: {accuracy: {min: 0}}}\n", "lets every model pass"),
    "limit on the wrong side": ("evaluation: {gate: {log_loss: {min: 0.5}}}\n", "write max"),
    "test of nothing": ("evaluation: {test: 0%}\n", "leaves nothing"),
    "parameters": ("  parameters: {lightgmb: {num_leaves: 15}}\n", 'did you mean "lightgbm"?'),
}
#: these are refused by every command: no release could go by them
OF_A_RELEASE = {
    "falling weights": ("release: {stages: {canary: {weights: [50%, 10%]}}}\n", "do not grow: 50%, 10%"),
    "no holdback": ("release: {stages: {canary: {weights: [50%, 100%]}}}\n", "ends at 100%"),
    "weight of ab": ("release: {stages: {ab: {weight: 100%}}}\n", "leaves one of the arms without requests"),
    "margin above 100%": ("release: {metrics: {latency: {margin: 10000%}}}\n", "latency.margin"),
    "margin of text": ("release: {metrics: {errors: {margin: lots}}}\n", '"lots" is not a share'),
    "margin above all": ("release: {metrics: {errors: {margin: 5}}}\n", "more than all requests"),
    "metric of a release": ("release: {metrics: {latncy: {margin: 10%}}}\n", 'did you mean "latency"?'),
    "shadow of nothing": ("release: {stages: {shadow: {mirror: 0%}}}\n", "and mirrors none"),
    "alpha of 0": ("release: {alpha: 0%}\n", "release.alpha is 0%"),
    "alpha of 1": ("release: {alpha: 1.0}\n", "release.alpha is 1.0"),
    "queue": ("serving: {queue: fast}\n", '"fast" is not a duration'),
    "bounds": ('release: {metrics: {mine: {call: "m.py:f", margin: 1}}}\n', "least and greatest value"),
}
#: no release or server goes by these; `plan` refuses them, and what runs of such a project can be stopped
OF_A_PLAN = {
    "quantile": ("release: {metrics: {errors: {quantile: 0.5}}}\n", "only latency is compared at a quantile"),
    "query of a built-in": ('release: {metrics: {errors: {prometheus: "e{arm}"}}}\n', "does not read this"),
    "direction of a built-in": ("release: {metrics: {errors: {better: higher}}}\n", "does not read this"),
    "bounds of a built-in": ("release: {metrics: {errors: {bounds: [0, 1]}}}\n", "does not read this"),
    "query without arm": (
        "release: {metrics: {mine: {prometheus: up, margin: 0.1, bounds: [0, 1]}}}\n",
        "both arms the same number",
    ),
    "authority": ("release: {authority: none.pem}\n", "there is no file none.pem"),
    "address": ("serving: {http: nowhere}\n", '"nowhere" is not HOST:PORT'),
    "port": ('serving: {grpc: "127.0.0.1:99999"}\n', "is not HOST:PORT"),
    "one port": ('serving: {grpc: "127.0.0.1:8080"}\n', "is the address of serving.http"),
    "cache": ('serving: {shared_cache: "http://x"}\n', "is no cache"),
    "log of nothing": ("serving: {log: {keep: 0d}}\n", "serving.log.keep may not be 0"),
    "no body": ("serving: {body_limit: 0B}\n", "serving.body_limit may not be 0"),
}
LEAK = 'leak = col("fraud") * 2 + 1\n'
FOREST = '  trainers: ["sklearn:RandomForestClassifier"]\n'
#: these are seen when the task is known; no features are computed for it
OF_A_TRAINER = {
    "unknown parameter": ("  parameters: {lightgbm: {num_leafs: 15}}\n", 'lightgbm has no parameter "num_leafs"'),
    "negative value": ("  parameters: {lightgbm: {learning_rate: -1}}\n", "(learning_rate) > (0.0)"),
    "too small": ("  parameters: {lightgbm: {num_leaves: 1}}\n", "(num_leaves) > (1)"),
    "text for a number": ("  parameters: {lightgbm: {num_leaves: many}}\n", "should be of type int"),
    "objective": ("  parameters: {lightgbm: {objective: foo}}\n", "Unknown objective type name: foo"),
    "linear value": ("  parameters: {linear: {C: -1}}\n", "'C' parameter of LogisticRegression"),
    "linear name": ("  parameters: {linear: {c: 1}}\n", 'linear has no parameter "c"'),
    "naive": ("  parameters: {naive: {rate: 1}}\n", 'naive has no parameter "rate"'),
    "sklearn parameter": (
        FOREST + '  parameters: {"sklearn:RandomForestClassifier": {trees: 3}}\n',
        'has no parameter "trees"',
    ),
    "sklearn value": (
        FOREST + '  parameters: {"sklearn:RandomForestClassifier": {n_estimators: 0}}\n',
        "'n_estimators' parameter",
    ),
    "sklearn task": ('  trainers: ["sklearn:LinearRegression"]\n', "does not predict classes"),
    "signature": ('  trainers: ["trainers.py:forest"]\n', "is called with the rows and the target"),
}
#: these are seen in the columns or rows
OF_THE_DATA = {
    "slice": ("evaluation: {slices: [contry]}\n", 'evaluation.slices names "contry"'),
    "cost column": ("  cost: {false_negative: amont, false_positive: 1}\n", 'training.cost names "amont"'),
    "cost of text": ("  cost: {false_negative: country, false_positive: 1}\n", "cost column country holds String"),
    "clusters": ("evaluation: {clusters: crad}\n", 'evaluation.clusters names "crad"'),
    "long test": ("evaluation: {test: 4500d}\n", "the train rows would be 0"),
    "long test that leaves too few for folds": ("evaluation: {test: 385h}\n", "too few for folds"),
    "allowed feature": ("  allow: [amont]\n", 'training.allow names "amont"'),
    "short half-life": ("  half_life: 1ms\n", "a half-life of 1ms leaves"),
    "constant output": ("serving: {fallback: {constant: {predicton: 0}}}\n", '"predicton" is no output'),
    "constant answer": ("serving: {fallback: {constant: {prediction: maybe}}}\n", "maybe is no prediction"),
    "constant probability": ("serving: {fallback: {constant: {prediction: 0, probability: 7}}}\n", "7 is no prob"),
    "late begin": ('  since: "2031-01-01"\n', "no row of rows is of 2031-01-01 or later"),
    "release key of the label": ("release: {key: fraud}\n", 'release.key names "fraud"'),
    "release key": ("release: {key: crad}\n", 'release.key names "crad"'),
    "metric of the wrong task": ("  metric: rmse\n", 'the search cannot follow the metric "rmse"'),
    "gate of the wrong task": ("evaluation: {gate: {rmse: {margin: 1}}}\n", 'evaluation.gate names "rmse"'),
}


@pytest.fixture(scope="module")
def payments(tmp_path_factory):
    """A project on 400 payments, as `new --from` writes it, but for its trainers."""
    folder, dice = tmp_path_factory.mktemp("faults"), random.Random(3)
    at, lines = datetime(2026, 1, 1, tzinfo=UTC), ["id,card,at,amount,country,fraud"]
    for number in range(400):
        at += timedelta(minutes=dice.randint(30, 90))
        amount = dice.expovariate(1 / 50)
        fraud = int(dice.random() < 0.1 + 0.5 * (amount > 100))
        lines.append(
            f"p{number},c{dice.randint(1, 40)},{at:%Y-%m-%d %H:%M:%S},{amount:.2f},{dice.choice('ABC')},{fraud}"
        )
    (folder / "payments.csv").write_text("\n".join(lines) + "\n")
    create_from(folder / "payments.csv", "fraud", name="pay", directory=folder)
    file = folder / "pay" / "cumulant.yaml"
    file.write_text(re.sub(r"  trainers: .*\n", "", file.read_text()))
    return folder / "pay"


@pytest.fixture
def with_fault(payments):
    """Writes the project file with a fault at its end, and puts it back afterwards."""
    file = payments / "cumulant.yaml"
    whole = file.read_text()

    def write(fault: str):
        file.write_text(whole + fault)
        return payments

    yield write
    file.write_text(whole)


@contextmanager
def features_of(folder, more: str):
    """The features file with `more` at its end, within the block."""
    file = folder / "features.py"
    whole = file.read_text()
    file.write_text(whole.replace("import source", "import col, source") + more)
    try:
        yield
    finally:
        file.write_text(whole)


def planned(folder):
    return plan(load(folder), principal=ME)


@contextmanager
def without_data(folder):
    """The project without its data, within the block."""
    (folder.parent / "payments.csv").rename(folder.parent / "away.csv")
    try:
        yield
    finally:
        (folder.parent / "away.csv").rename(folder.parent / "payments.csv")


@pytest.mark.parametrize("flow", [plan, train])
@pytest.mark.parametrize(("fault", "message"), OF_THE_FILE.values(), ids=OF_THE_FILE)
def test_a_fault_of_the_file_is_refused_before_data_are_read(with_fault, fault, message, flow):
    """The project loads, so that what runs of it can be stopped."""
    folder = with_fault(fault)
    with load(folder) as project, without_data(folder), pytest.raises(ProjectFileError) as caught:
        flow(project, principal=ME)
    check_problem(caught.value, message)


@pytest.mark.parametrize(("fault", "message"), OF_A_PLAN.values(), ids=OF_A_PLAN)
def test_a_setting_that_nothing_would_go_by_is_refused_by_plan(with_fault, fault, message):
    folder = with_fault(fault)
    with load(folder) as project, without_data(folder), pytest.raises(ProjectFileError) as caught:
        plan(project, principal=ME)
    check_problem(caught.value, message)


@pytest.mark.parametrize(("fault", "message"), OF_A_RELEASE.values(), ids=OF_A_RELEASE)
def test_a_fault_of_a_release_is_refused_when_the_project_is_loaded(with_fault, fault, message):
    folder = with_fault(fault)
    with pytest.raises(ProjectFileError) as caught:
        load(folder)
    check_problem(caught.value, message)


def check_problem(error: ProjectFileError, message: str) -> None:
    assert message in error.message
    [(file, line, _)] = error.problems
    assert file == "cumulant.yaml"
    assert line is not None


def test_parameters_of_a_trainer_that_an_environment_leaves_out_are_accepted(with_fault):
    folder = with_fault(
        '  parameters: {"trainers.py:forest": {trees: 5}, lightgbm: {num_leaves: 15}}\n'
        "environments: {small: {training: {trainers: [linear]}}}\n"
    )
    with load(folder, environment="small") as project:
        assert plan(project, principal=ME).target == "fraud"


def test_environments_that_share_a_registry_are_named(with_fault):
    url = "mlflow+postgresql://db.invalid/ml?artifacts=s3://acme/mlflow"
    folder = with_fault(f"environments: {{prod: {{tracking_uri: '{url}'}}, dev: {{tracking_uri: '{url}'}}}}\n")
    with load(folder, environment="dev") as project:
        [warning] = plan(project, principal=ME, checks=False).warnings
    assert "environment prod has the same registry as dev" in warning


@pytest.mark.parametrize(("fault", "message"), OF_THE_DATA.values(), ids=OF_THE_DATA)
def test_a_fault_that_the_data_show_is_refused(with_fault, fault, message):
    folder = with_fault(fault)
    with pytest.raises(CumulantError) as caught:
        planned(folder)
    assert message in caught.value.message


@pytest.mark.parametrize(("fault", "message"), OF_A_TRAINER.values(), ids=OF_A_TRAINER)
def test_a_trainer_that_cannot_be_used_as_declared_is_refused(with_fault, fault, message):
    folder = with_fault(fault)
    code = folder / "trainers.py"
    code.write_text("def forest(x):\n    return x\n")
    try:
        with load(folder) as project, pytest.raises(DefinitionError) as caught:
            plan(project, principal=ME)
    finally:
        code.unlink()
    assert message in caught.value.message


def test_a_training_refuses_a_parameter_as_a_plan_does(with_fault):
    folder = with_fault("  parameters: {lightgbm: {num_leaves: 1}}\n")
    with load(folder) as project, pytest.raises(DefinitionError, match="num_leaves"):
        train(project, principal=ME)


def test_parameters_that_trainers_take_are_planned(with_fault):
    """Also names that LightGBM knows by another name, and lists, whose length only the features tell."""
    lightgbm = "{eta: 0.05, num_leaf: 15, rounds: 50, num_iterations: 9, monotone_constraints: [0, 0, 0, 0, 1]}"
    folder = with_fault(f"  parameters: {{lightgbm: {lightgbm}, linear: {{C: 0.5, alpha: 2}}}}\n")
    assert planned(folder).target == "fraud"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ('  trainers: ["trainers.py:forest"]\n', "there is no file trainers.py"),
        ('release: {metrics: {mine: {call: "m.py:f", margin: 0.1, bounds: [0, 1]}}}\n', "there is no file m.py"),
    ],
)
def test_code_that_is_missing_is_refused_before_data_are_read(with_fault, fault, message):
    folder = with_fault(fault)
    with without_data(folder), pytest.raises(CumulantError) as caught:
        planned(folder)
    assert message in caught.value.message


def test_what_no_feature_reads_may_be_named(with_fault):
    """`card` is personal and `id` is the key: no feature reads them, and slices, clusters and a key of a release may."""
    folder = with_fault("evaluation: {slices: [card, country], clusters: card}\nrelease: {key: card}\n")
    assert planned(folder).target == "fraud"


def test_a_sound_project_is_planned(with_fault):
    sound = (
        "  cost: {false_negative: amount, false_positive: 1}\n  threshold: {rate: 5%}\n  half_life: 1d\n"
        "serving: {fallback: {constant: {prediction: 0, probability: 0.0}}, grpc: '127.0.0.1:0', http: '127.0.0.1:0'}\n"
        "evaluation: {test: 5d, gate: {average_precision: {margin: 0.05}, cost: {margin: 1}, roc_auc: {max: 0.99}}}\n"
        "release: {metrics: {latency: {margin: 50}, quality: {margin: 3.5}, errors: {margin: 90%}}}\n"
    )
    assert planned(with_fault(sound)).target == "fraud"


def test_a_test_of_most_rows_is_a_note_where_rows_have_times(with_fault):
    assert planned(with_fault("")).notes == ()
    (note,) = planned(with_fault("evaluation: {test: 55%}\n")).notes
    assert "evaluation.test: a test of 55% leaves fewer rows to learn from than to evaluate on" in note


def test_a_constant_answer_is_refused_also_where_the_rows_were_checked_without_it(with_fault):
    folder = with_fault("")
    assert planned(folder).target == "fraud"
    with_fault("serving: {fallback: {constant: {prediction: maybe}}}\n")
    with pytest.raises(DefinitionError, match="maybe is no prediction"):
        planned(folder)


@pytest.mark.parametrize("flow", [plan, train])
def test_a_feature_of_the_target_alone_is_refused(with_fault, flow):
    folder = with_fault("")
    with features_of(folder, LEAK), load(folder) as project, pytest.raises(DataError, match="this is leakage"):
        flow(project, principal=ME)


def test_a_training_refuses_what_only_the_rows_give_away(with_fault):
    """No rule sees that `twin` is the label; the search looks at the rows."""
    folder = with_fault("")
    twin = 'twin = (col("fraud") + 0 * col("amount")).cast("float")\n'
    with features_of(folder, twin), load(folder) as project, pytest.raises(DataError, match="in every row"):
        train(project, principal=ME, quick=True)


def test_a_feature_of_the_target_alone_may_be_allowed(with_fault):
    folder = with_fault("  allow: [leak]\n")
    with features_of(folder, LEAK):
        assert "leak" in planned(folder).features.names


def test_a_part_of_the_target_is_planned(with_fault):
    """`amount` does not tell `amount - fee`, and so a training may take it."""
    folder = with_fault("")
    file = folder / "cumulant.yaml"
    file.write_text(file.read_text().replace("target: fraud", "target: amount - fraud"))
    assert "amount" in planned(folder).features.names


def test_a_personal_text_among_the_features_is_planned(with_fault):
    """`card` is personal text: a training leaves it out, and `plan` has no such column to leave out."""
    folder = with_fault("")
    with features_of(folder, 'also = rows.columns("card")\n'):
        assert "card" in planned(folder).features.names


def test_a_cost_is_that_of_the_feature_where_a_column_has_the_same_name(with_fault):
    """The column `id` holds text, which is no cost; a training takes the feature of that name, a number."""
    folder = with_fault("  cost: {false_negative: id, false_positive: 1}\n")
    with features_of(folder, 'id = col("id").str.length()\n'):
        assert planned(folder).target == "fraud"


@pytest.fixture(scope="module")
def visits(tmp_path_factory):
    """A project on 100 rows without times, of which 4% are the test: whole values of a feature of five values."""
    folder, dice = tmp_path_factory.mktemp("visits"), random.Random(5)
    lines = ["id,town,amount,fraud"]
    for number in range(100):
        amount = dice.expovariate(1 / 50)
        lines.append(f"v{number},{'abcde'[number % 5]}{number},{amount:.2f},{int(dice.random() < 0.4)}")
    (folder / "visits.csv").write_text("\n".join(lines) + "\n")
    (folder / "features.py").write_text(
        'from cumulant.features import col, source\n\nrows = source("rows")\nplain = rows.columns("amount")\n'
        'town_group = col("town").str.slice(0, 1)\n'
    )
    (folder / "cumulant.yaml").write_text(
        "version: 1\nmodel: {name: visits}\ndata: {rows: {path: visits.csv, key: [id]}}\n"
        "training: {target: fraud, trainers: [naive, linear], trials: 1}\n"
        "evaluation: {test: 4%, clusters: town_group}\n"
    )
    return folder


def test_a_split_by_a_feature_is_left_to_the_training(visits):
    """By its own key 4% of 100 rows are too few for a test, and by clusters of 20 rows they are not."""
    assert planned(visits).target == "fraud"
    project = load(visits)
    table = featurize(project, principal=ME).table
    snapshot, spec, evaluation = newest_snapshot(project, "rows"), project.training(), project.policies.evaluation
    task = resolve_task(project, {"rows": snapshot})  # type: ignore[dict-item]
    rows = labelled_rows(project, task, snapshot, table, spec=spec, evaluation=evaluation, as_of=None)
    assert len(split(rows, evaluation).test) == 20


def test_only_the_columns_that_are_checked_are_read(with_fault):
    folder = with_fault("  cost: {false_negative: amount, false_positive: 1}\n")
    planned(folder)
    project = load(folder)
    snapshot = newest_snapshot(project, "rows")
    task = resolve_task(project, {"rows": snapshot})  # type: ignore[dict-item]
    columns = columns_read(task, snapshot, project.training(), project.policies.evaluation)
    assert columns == {"id", "at", "fraud", "amount"}


@pytest.mark.parametrize(
    ("pattern", "invalid", "named"),
    [("^[[:upper:]]$", "refuse", ["country:pattern"]), ("^[[:upper:]]$", "warn", []), ("^[A-Z]$", "refuse", [])],
)
def test_a_rule_that_requests_are_not_checked_for_is_named(with_fault, pattern, invalid, named):
    folder = with_fault(f"serving: {{invalid: {invalid}}}\n")
    file = folder / "cumulant.yaml"
    rules = f'    rules:\n      country: {{pattern: "{pattern}"}}\n'
    file.write_text(file.read_text().replace("    rules:\n", rules))
    notes = planned(folder).notes
    assert [name for name in named if name in notes[0]] == named
    assert len(notes) == len(named)


def test_rows_that_were_checked_are_not_read_again(with_fault, monkeypatch):
    folder = with_fault("")
    assert planned(folder).target == "fraud"
    with monkeypatch.context() as patch:
        patch.setattr("cumulant.flows.training.training_rows.rows_without_features", None)
        assert planned(folder).target == "fraud"
    with pytest.raises(CumulantError, match="does not measure this task"):
        planned(with_fault("evaluation: {gate: {rmse: {margin: 0.1}}}\n"))


@pytest.mark.parametrize(
    "body", ["    model = (X, y)", "    if len(X):\n        return\n    return None", "    def f():\n        return 1"]
)
def test_a_trainer_that_returns_nothing_is_refused(with_fault, body):
    folder = with_fault('  trainers: ["trainers.py:forest"]\n')
    code = folder / "trainers.py"
    code.write_text(f"def forest(X, y):\n{body}\n")
    try:
        with pytest.raises(DefinitionError, match="forest returns nothing"):
            planned(folder)
        for accepted in (
            "    if len(X):\n        return (X, y)",
            "    try:\n        return X\n    finally:\n        pass",
            "    if not len(X):\n        return\n    return X",
            "    if len(X):\n        return\n    else:\n        return X",
            "    if len(X):\n        return None\n    raise ValueError(y)",
        ):
            code.write_text(f"def forest(X, y):\n{accepted}\n")
            assert planned(folder).target == "fraud"
        code.write_text(
            "import functools\n\n\ndef model(f):\n    @functools.wraps(f)\n    def g(X, y):\n        return X\n"
            f"    return g\n\n\n@model\ndef forest(X, y):\n{body}\n"
        )
        assert planned(folder).target == "fraud"
    finally:
        code.unlink()


@pytest.mark.parametrize(
    "broken",
    [
        "raise ImportError('libgomp.so.1: cannot open shared object file')",
        "raise ValueError('numpy.dtype size changed, may indicate binary incompatibility')",
        "raise OSError('dlopen failed')",
    ],
)
def test_a_package_of_a_trainer_that_cannot_be_imported_is_refused(with_fault, monkeypatch, tmp_path, broken):
    (tmp_path / "catboost").mkdir()
    (tmp_path / "catboost" / "__init__.py").write_text(broken)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "catboost"]:
        monkeypatch.delitem(sys.modules, name)
    folder = with_fault("  trainers: [catboost]\n")
    with without_data(folder), pytest.raises(MissingPartError, match="is installed and cannot be imported") as caught:
        planned(folder)
    assert caught.value.message.endswith(broken.split("'")[1])
    assert caught.value.hint == 'pip install --force-reinstall "cumulant[catboost]"'


def test_a_registry_that_does_not_answer_is_refused_before_data_are_read(with_fault):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    folder = with_fault(f"environments: {{local: {{tracking_uri: 'http://127.0.0.1:{port}'}}}}\n")
    with without_data(folder), pytest.raises(EngineUnavailableError, match=f"127.0.0.1:{port}") as caught:
        planned(folder)
    assert caught.value.hint
    assert caught.value.retryable
