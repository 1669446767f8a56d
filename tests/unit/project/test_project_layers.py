"""Extends, environments, overrides: what wins, and that each value tells where it came from."""

from __future__ import annotations

from typing import Any

import pytest

from cumulant.core.errors import ProjectFileError, UsageError
from cumulant.project.file.loading import load
from cumulant.project.file.spec import SECTIONS

#: what changes the results: all sections but those of the machine
DECIDING = tuple(section for section in SECTIONS if section != "resources")


def write(folder, **files: str) -> None:
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def origins(project) -> dict[str, tuple[object, str]]:
    return {row.path: (row.value, str(row.origin)) for row in project.file.resolved(project.endpoints)}


@pytest.fixture
def platform(tmp_path):
    write(
        tmp_path,
        platform__base="""\
extends: deeper/root.yaml
model: {owner: platform@example.com}
training:
  target: y
  trials: 10
evaluation:
  gate:
    average_precision: {margin: 0.01}
""",
        platform__deeper__root="""\
model: {purpose: from the root, owner: root@example.com}
training: {folds: 5, trials: 3}
""",
        platform__prod="""\
extends: common.yaml
journal: postgresql://db/journal
store: s3://acme/shared
""",
        platform__common="""\
tracking_uri: https://mlflow.example.com
journal: postgresql://common/journal
training: {time: 10min}
""",
        model__cumulant="""\
version: 1
extends: ../platform/base.yaml
training:
  trials: 20
evaluation:
  gate:
    calibration_error: {max: 0.05}
environments:
  prod:
    extends: ../platform/prod.yaml
    store: s3://acme/model
    training:
      trials: 40
  local: {training: {folds: 2}}
""",
    )
    return tmp_path / "model"


def test_origins_are_exact(platform):
    found = origins(load(platform))
    assert found["version"] == (1, "cumulant.yaml:1")
    assert found["model.name"] == ("model", "default (the folder's name)")
    assert found["model.owner"] == ("platform@example.com", "extends ../platform/base.yaml:2")
    assert found["model.purpose"] == ("from the root", "extends ../platform/deeper/root.yaml:1")
    assert found["model.risk"] == ("low", "default")
    assert found["training.target"] == ("y", "extends ../platform/base.yaml:4")
    assert found["training.trials"] == (20, "cumulant.yaml:4")
    assert found["training.folds"] == (2, "environment local (cumulant.yaml:14)")
    assert found["training.seed"] == (0, "default")
    assert found["evaluation.gate.average_precision.margin"] == (0.01, "extends ../platform/base.yaml:8")
    assert found["evaluation.gate.calibration_error.max"] == (0.05, "cumulant.yaml:7")
    assert found["environment.journal"] == (f"sqlite://{platform}/.cumulant/journal.db", "default")


def test_origins_in_another_environment(platform):
    found = origins(load(platform, environment="prod"))
    assert found["training.trials"] == (40, "environment prod (cumulant.yaml:13)")
    assert found["training.folds"] == (5, "extends ../platform/deeper/root.yaml:2")
    assert found["training.time"] == ("10min", "environment prod (../platform/common.yaml:3)")
    assert found["environment.journal"] == (
        "postgresql://db/journal",
        "environment prod (../platform/prod.yaml:2)",
    )
    assert found["environment.tables"] == ("s3://acme/model/tables", "environment prod (cumulant.yaml:11)")
    assert found["environment.objects"] == ("s3://acme/model/objects", "environment prod (cumulant.yaml:11)")
    assert found["environment.registry"] == (
        "https://mlflow.example.com",
        "environment prod (../platform/common.yaml:1)",
    )
    # What this machine keeps for prod is not what it keeps for local.
    assert found["environment.online"] == (f"sqlite://{platform}/.cumulant/environments/prod/online.db", "default")


def test_overrides_win_over_everything(platform):
    project = load(
        platform,
        environment="prod",
        overrides=["training.trials=5", "evaluation.slices=[a, b]", "environment.store=file://here"],
    )
    found = origins(project)
    assert found["training.trials"] == (5, "command line")
    assert found["evaluation.slices"] == (["a", "b"], "command line")
    assert found["environment.tables"] == (f"file://{platform}/here/tables", "command line")
    assert (
        load(
            platform, overrides={"training.trials": 6, "training.cost": {"false_negative": "amount"}}
        ).spec.training.cost.false_negative
        == "amount"
    )


def test_every_default_says_so_and_every_row_is_there(platform):
    project = load(platform)
    rows = project.file.resolved(project.endpoints)
    assert len({row.path for row in rows}) == len(rows)
    tops = [row.path.partition(".")[0] for row in rows]
    assert list(dict.fromkeys(tops)) == [
        "version",
        "model",
        "data",
        "features",
        "training",
        "evaluation",
        "serving",
        "release",
        "monitoring",
        "resources",
        "lifecycle",
        "access",
        "environment",
    ]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.trials", "is not an override"),
        ("=5", "does not name a key"),
        ("training..trials=5", "does not name a key"),
        ("environments.prod.store=x", "does not name a key"),
        ("environment=x", "does not name a key"),
        ("training.trials=[1, 2", "cannot be read"),
    ],
)
def test_overrides_that_cannot_be_read(platform, override, said):
    with pytest.raises(UsageError, match=said):
        load(platform, overrides=[override])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.trails=5", 'did you mean "trials"?'),
        ("training.trials=many", "must be a whole number"),
        ("environment.stor=x", 'did you mean "store"?'),
    ],
)
def test_overrides_are_checked_like_the_file(platform, override, said):
    with pytest.raises(ProjectFileError) as caught:
        load(platform, overrides=[override])
    [(file, line, text)] = caught.value.problems
    assert (file, line) == ("command line", None)
    assert said in text


def test_a_mistake_in_an_extended_file_is_found_there_even_if_it_is_overridden(platform):
    base = platform.parent / "platform" / "base.yaml"
    base.write_text(base.read_text().replace("trials: 10", "trials: ten").replace("owner: platform", "ownr: platform"))
    with pytest.raises(ProjectFileError) as caught:
        load(platform)
    assert [(file, line) for file, line, _ in caught.value.problems] == [
        ("../platform/base.yaml", 2),
        ("../platform/base.yaml", 5),
    ]


def test_a_mistake_in_an_environment_that_is_not_chosen_is_found(platform):
    file = platform / "cumulant.yaml"
    file.write_text(file.read_text().replace("trials: 40", "trials: -4"))
    with pytest.raises(ProjectFileError) as caught:
        load(platform)
    assert caught.value.problems == (
        ("cumulant.yaml", 13, "environments.prod.training.trials: must be at least 1, not -4"),
    )


def test_a_mistake_in_the_chosen_environment_is_told_once(platform):
    file = platform / "cumulant.yaml"
    file.write_text(file.read_text().replace("trials: 40", "trials: -4").replace("store: s3", "stor: s3"))
    with pytest.raises(ProjectFileError) as caught:
        load(platform, environment="prod")
    assert [line for _, line, _ in caught.value.problems] == [11, 13]


def test_an_environments_file_holds_an_environments_keys(platform):
    (platform.parent / "platform" / "common.yaml").write_text("version: 1\njournal: x://y\n")
    with pytest.raises(ProjectFileError) as caught:
        load(platform, environment="prod")
    [(file, line, text)] = caught.value.problems
    assert (file, line) == ("../platform/common.yaml", 1)
    assert 'unknown key "version"' in text


def test_extends_in_a_circle(tmp_path):
    write(tmp_path, cumulant="version: 1\nextends: a.yaml\n", a="\nextends: b.yaml\n", b="extends: ./a.yaml\n")
    with pytest.raises(ProjectFileError) as caught:
        load(tmp_path)
    [(file, line, text)] = caught.value.problems
    assert (file, line) == ("b.yaml", 1)
    assert "a circle" in text
    write(tmp_path, cumulant="version: 1\nextends: cumulant.yaml\n")
    with pytest.raises(ProjectFileError, match="a circle"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("extends", "said"),
    [
        ("missing.yaml", "the file does not exist"),
        (".", "a folder"),
        ("https://example.com/x.yaml", "files can be az://"),
        ("file:///x.yaml", "a path of this machine without a scheme"),
    ],
)
def test_extends_that_leads_nowhere(tmp_path, extends, said):
    write(tmp_path, cumulant=f"version: 1\nextends: {extends}\n")
    with pytest.raises(ProjectFileError) as caught:
        load(tmp_path)
    [(file, line, text)] = caught.value.problems
    assert (file, line) == ("cumulant.yaml", 2)
    assert said in text


def test_two_models_may_extend_one_file_that_extends_nothing(tmp_path):
    write(
        tmp_path,
        base="training: {target: y}\nenvironments: {prod: {store: 's3://a/b'}}\n",
        cumulant="version: 1\nextends: base.yaml\nenvironments: {prod: {online: 'redis://c'}}\n",
    )
    found = origins(load(tmp_path, environment="prod"))
    assert found["environment.tables"] == ("s3://a/b/tables", "environment prod (base.yaml:2)")
    assert found["environment.online"] == ("redis://c", "environment prod (cumulant.yaml:3)")


def test_an_inherited_environment_extends_relative_to_its_own_file(tmp_path):
    write(
        tmp_path,
        shared__base="environments:\n  prod: {extends: prod.yaml}\n",
        shared__prod="store: s3://acme/x\n",
        model__cumulant="version: 1\nextends: ../shared/base.yaml\n",
    )
    found = origins(load(tmp_path / "model", environment="prod"))
    assert found["environment.tables"] == ("s3://acme/x/tables", "environment prod (../shared/prod.yaml:1)")


def test_lists_are_replaced_whole_and_mappings_merge(tmp_path):
    write(
        tmp_path,
        base="data: {tx: {path: a, key: [x, y], rules: {a: {min: 0}}}}\n",
        cumulant="version: 1\nextends: base.yaml\ndata:\n  tx:\n    key: [z]\n    rules: {a: {max: 1}, b: {unique: true}}\n",
    )
    source = load(tmp_path).spec.data["tx"]
    assert (source.path, source.keys) == ("a", ("z",))
    assert (source.rules["a"].min, source.rules["a"].max, source.rules["b"].unique) == (0, 1, True)


def test_an_empty_section_takes_nothing_away_but_null_does(tmp_path):
    write(
        tmp_path,
        base="training: {target: y, threshold: {alerts: 5/day}}\nmonitoring: {review: {budget: 5/day}}\n",
        cumulant="version: 1\nextends: base.yaml\ntraining:\nmonitoring:\n  review: null\n",
    )
    spec = load(tmp_path).spec
    assert spec.training.threshold.alerts == "5/day"
    assert spec.monitoring.review is None


def test_relative_local_urls_start_at_the_project(tmp_path):
    write(
        tmp_path,
        cumulant="version: 1\nenvironments: {local: {store: 'file://kept', journal: 'sqlite://j/x.db', tracking_uri: 'sqlite:///ml.db'}}\n",
    )
    endpoints = load(tmp_path).endpoints
    assert endpoints.tables == f"file://{tmp_path}/kept/tables"
    assert endpoints.journal == f"sqlite://{tmp_path}/j/x.db"
    assert endpoints.registry == f"mlflow+sqlite://{tmp_path}/ml.db"
    absolute = load(
        tmp_path,
        overrides={"environment.tracking_uri": "sqlite:////srv/ml.db", "environment.store": "file:///srv/store/"},
    ).endpoints
    assert absolute.registry == "mlflow+sqlite:///srv/ml.db"
    assert absolute.objects == "file:///srv/store/objects"


def test_the_settings_follow_what_the_file_says_and_not_where_it_runs(platform):
    def settings(*sections: str, **more: Any) -> dict[str, Any]:
        return load(platform, **more).file.settings(*(sections or DECIDING))

    local, prod = settings(), settings(environment="prod")
    assert local == settings()
    assert local != prod  # prod tries more
    same = settings(environment="prod", overrides={"environment.store": "s3://elsewhere"})
    assert same == prod
    changed = {"training.seed": 1}
    assert settings(overrides=changed) != local
    assert settings("data", "features", overrides=changed) == settings("data", "features")
    (platform / "cumulant.yaml").write_text("# a comment\n" + (platform / "cumulant.yaml").read_text())
    assert settings() == local
