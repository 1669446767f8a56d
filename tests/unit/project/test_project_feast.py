"""`features import-feast`: what a repository of Feast becomes, by definitions that a real Feast described.

`feast_repository/definitions.json` is what `describe.py` writes for the repository beside it; a live test describes it
again.
"""

from __future__ import annotations

import ast
import json
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import polars as pl
import pytest

from cumulant.cli.app import run
from cumulant.core.errors import DataError, DefinitionError, NotFoundError, UsageError
from cumulant.project.feast.describe import FAULTY
from cumulant.project.feast.imported import FeastOptions
from cumulant.project.feast.importing import read_repository
from cumulant.project.feast.mapping import map_repository, parse_paths
from cumulant.project.feast.project_files import EntityRows, features_text, project_files, project_text
from cumulant.project.feast.repository import (
    FeastField,
    FeastProjection,
    FeastRepository,
    FeastService,
    parse_repository,
)
from cumulant.project.file.document import parse_document
from cumulant.project.file.layers import FILE

REPOSITORY = Path(__file__).parent / "feast_repository"
RECORDED = REPOSITORY / "definitions.json"
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def described() -> FeastRepository:
    return parse_repository(RECORDED.read_bytes())


def outcomes(options: FeastOptions | None = None) -> dict[str, tuple[str, str, str]]:
    imported = map_repository(described(), options or FeastOptions())
    assert len({(each.kind, each.name) for each in imported.objects}) == len(imported.objects)
    return {f"{each.kind} {each.name}": (each.outcome, each.text, each.next) for each in imported.objects}


def test_every_definition_is_mapped_or_named_with_the_reason_and_what_to_do():
    objects = outcomes()
    assert {name: outcome for name, (outcome, _, _) in objects.items()} == {
        "FeatureView driver_stats": "partly",
        "FeatureView place_stats": "mapped",
        "FeatureView pair-stats": "mapped",
        "BatchFeatureView grade_all": "mapped",
        "FeatureView account_stats": "not mapped",
        "FeatureView weather": "not mapped",
        "StreamFeatureView click_windows": "not mapped",
        "OnDemandFeatureView ratio": "not mapped",
        "Entity driver": "mapped",
        "Entity place": "mapped",
        "Entity account": "not mapped",
        "FileSource driver_stats_source": "mapped",
        "FileSource place_source": "mapped",
        "FileSource grade_source": "mapped",
        "BigQuerySource accounts": "not mapped",
        "PushSource driver_push": "partly",
        "KafkaSource clicks": "partly",
        "RequestSource ride": "not mapped",
        "FeatureService eta": "not mapped",
        "FeatureService price": "not mapped",
    }
    assert "without embedding (Array(Float32))" in objects["FeatureView driver_stats"][1]
    assert "acme.accounts" in objects["FeatureView account_stats"][1]
    assert objects["FeatureView account_stats"][2] == "export it as Parquet and add --source accounts=PATH"
    assert 'by("driver_id").sum("clicks", window="1h")' in objects["StreamFeatureView click_windows"][2]
    assert "trips_per_km" in objects["OnDemandFeatureView ratio"][2]
    assert all(
        text and (advice or "no imported view" in text)
        for kind, text, advice in objects.values()
        if kind == "not mapped"
    )


def test_a_service_and_given_files_decide_what_is_imported():
    objects = outcomes(FeastOptions(service="eta", paths={"accounts": "accounts.parquet"}))
    assert objects["FeatureService eta"][0] == "mapped"
    assert objects["FeatureView account_stats"][1] == "not in the feature service eta"
    imported = map_repository(described(), FeastOptions(service="eta"))
    assert [(view.name, [feature.name for feature in view.features]) for view in imported.views] == [
        ("driver_stats", ["conv_rate"]),
        ("place_stats", ["rides_hour", "trips"]),  # one of the two "trips" is left, so that it has its own name
    ]
    exported = map_repository(described(), FeastOptions(paths={"accounts": "accounts.parquet"}))
    assert [source.path for source in exported.sources if source.name == "accounts"] == ["accounts.parquet"]
    for options in (FeastOptions(service="etta"), FeastOptions(paths={"acounts": "a"})):
        with pytest.raises(NotFoundError):
            map_repository(described(), options)
    assert parse_paths(["a=b=c"]) == {"a": "b=c"}
    with pytest.raises(UsageError, match="NAME=PATH"):
        parse_paths(["accounts"])
    with pytest.raises(DataError, match="cannot be read"):
        parse_repository(b'{"views": 1}')


@pytest.mark.parametrize(
    ("projections", "features", "services", "renamed"),
    [
        ([("trips", {}), ("rides_hour", {})], ["rides_hour", "trips"], "mapped", []),
        ([("trips", {}), ("", {})], ["rides_hour", "trips"], "mapped", []),
        ([("trips", {"place_id": "from"}), ("trips", {})], ["trips"], "partly", ["place_stats (place_id as from)"]),
        (
            [("trips", {"place_id": "from"}), ("trips", {"place_id": "to"})],
            [],
            "partly",
            ["place_stats", "place_stats (place_id as to)"],
        ),
    ],
)
def test_a_service_may_take_a_view_more_than_once(projections, features, services, renamed):
    parts = [FeastProjection("place_stats", (name,) if name else (), keys) for name, keys in projections]
    repository = msgspec.structs.replace(described(), services=(FeastService("s", tuple(parts)),))
    imported = map_repository(repository, FeastOptions(service="s"))
    assert [feature.column.lower() for view in imported.views for feature in view.features] == [
        name.replace("_", "-") for name in features
    ]
    assert [each.outcome for each in imported.objects if each.kind == "FeatureService"] == [services]
    refused = [each.name for each in imported.objects if "the service looks it up by" in each.text]
    assert sorted(refused) == renamed


def test_names_that_python_and_the_project_file_do_not_take_are_told_apart():
    view = next(view for view in described().views if view.name == "driver_stats")
    fields = tuple(FeastField(name, "Int64") for name in ("class", "a-b", "a b", "1h", "col"))
    view = msgspec.structs.replace(view, name="a_b", features=fields, ttl_seconds=2_592_001.0)
    odd = msgspec.structs.replace(described(), project="9 rides!", views=(view,))
    imported = map_repository(odd, FeastOptions())
    names = [feature.name for feature in imported.views[0].features]
    assert names == ["class_", "a_b__a_b", "a_b__a_b_2", "f_1h", "col_"]
    assert imported.project == "rides-"
    text = features_text(imported)
    compile(text, "features.py", "exec")
    assert 'within="30d1s"' in text
    assert 'order="event_time"' in text
    assert "a b: {type: int}" in project_text(imported, EntityRows())


@pytest.mark.parametrize(
    ("ttl", "outcome", "text"),
    [
        (timedelta(seconds=-5), "not mapped", "its ttl is negative: -5 s"),
        (timedelta.max, "mapped", "2 features looked up by place_id"),
        (timedelta(days=36_500), "mapped", "2 features looked up by place_id, at most 36500d old"),
    ],
)
def test_the_limit_of_ages_is_any_ttl(ttl, outcome, text):
    views = [msgspec.structs.replace(view, ttl_seconds=ttl.total_seconds()) for view in described().views]
    imported = map_repository(msgspec.structs.replace(described(), views=tuple(views)), FeastOptions())
    (shown,) = (each for each in imported.objects if each.name == "place_stats")
    assert (shown.outcome, shown.text) == (outcome, text)
    code = features_text(imported)
    assert ("within=" in code) == ("at most" in text)


def test_views_with_other_join_keys_read_sources_of_their_own():
    views = [
        msgspec.structs.replace(view, join_keys=view.join_keys[:1]) if view.name == "grade_all" else view
        for view in described().views
    ]
    imported = map_repository(msgspec.structs.replace(described(), views=tuple(views)), FeastOptions())
    keys = {source.name: (source.key, source.path) for source in imported.sources if "grade" in source.name}
    assert keys == {
        "grade_source": (("driver_id", "event_timestamp"), "data/grade.parquet"),
        "grade_source_2": (("driver_id", "place_id", "event_timestamp"), "data/grade.parquet"),
    }
    read = {view.name: (view.source, view.by) for view in imported.views if view.source in keys}
    assert {name: (*by, "event_timestamp") for name, (_, by) in read.items()} == {
        name: keys[source][0] for name, (source, _) in read.items()
    }
    text = next(each.text for each in imported.objects if each.name == "grade_source")
    assert text.startswith("the sources grade_source and grade_source_2, each with its join keys")
    files, scope = project_files(imported, EntityRows()), {}
    exec(files["prepare.py"], scope)
    left = pl.LazyFrame({"driver_id": [1, 2, None], "place_id": ["a", None, "b"], "x": [[1], [2], [3]]})
    for name, rows in {"grade_source": [1, 2], "grade_source_2": [1]}.items():
        assert f"  {name}:\n    path: data/grade.parquet\n    prepare: prepare.py:with_keys_of_{name}\n" in files[FILE]
        assert scope[f"with_keys_of_{name}"](left).collect()["driver_id"].to_list() == rows


@pytest.mark.parametrize(
    ("view_name", "fields", "names"),
    [
        ("地点", ["気温"], ["feature"]),
        ("地点", ["気温", "湿度"], ["feature_2", "feature_3"]),
        ("place", ["気温", "湿度", "wind"], ["place__feature", "place__feature_2", "wind"]),
    ],
)
def test_a_name_without_ascii_letters_is_that_of_a_public_feature(view_name, fields, names):
    view = next(view for view in described().views if view.name == "place_stats")
    view = msgspec.structs.replace(view, name=view_name, features=tuple(FeastField(name, "Int64") for name in fields))
    imported = map_repository(msgspec.structs.replace(described(), views=(view,)), FeastOptions())
    features = imported.views[0].features
    assert [feature.name for feature in features] == names
    assert [feature.description or feature.name for feature in features] == fields
    text = features_text(imported)
    assert all(f"\n{name} = " in text for name in names)


@pytest.mark.parametrize("end", ["\n", "\r", "\x85", "\u2028", "\x00"])
def test_no_name_of_a_repository_ends_a_comment(end):
    name = f"v{end}import os; os.abort()"
    view = next(view for view in described().views if view.name == "place_stats")
    view = msgspec.structs.replace(view, name=name, join_keys=(f"place{end}version: 2",))
    imported = map_repository(msgspec.structs.replace(described(), views=(view,)), FeastOptions())
    rows = EntityRows(time=f"at{end}", target=f"late{end}training: 1")
    code = ast.parse(features_text(imported))
    assert not [node for node in ast.walk(code) if isinstance(node, ast.Import)]
    document = parse_document(project_text(imported, rows), FILE).plain()
    assert document["version"] == 1
    assert document["training"] == {"source": "rows", "target": rows.target}
    with pytest.raises(DataError, match="cannot be read"):
        parse_repository(b'{"feast": "0", "project": "\\ud800"}')


def minutes(number: float) -> datetime:
    return NOON + timedelta(minutes=number)


def write_data(folder: Path) -> None:
    """Sources as the repository names them; conv_rate numbers the rows of drivers."""
    (folder / "data").mkdir(parents=True)
    rows = [(1, 0, 5, 1), (1, 0, 120, 2), (1, 60, 180, 3), (1, 0, 200, 9), (2, 0, 0, 4)]
    pl.DataFrame(
        [(driver, minutes(at), minutes(created), rate, rate, [0.5]) for driver, at, created, rate in rows],
        schema={
            "driver_id": pl.Int64,
            "event_timestamp": pl.Datetime("us", "UTC"),
            "created": pl.Datetime("us", "UTC"),
            "conv_rate": pl.Float32,
            "trips": pl.Int64,
            "embedding": pl.List(pl.Float32),
        },
        orient="row",
    ).write_parquet(folder / "data/driver_stats.parquet")
    # Times without a zone are UTC; a number of a column with missing values is a float in files of pandas.
    places = {
        "place_id": ["a", "a", "b"],
        "at": [minutes(0), minutes(30), minutes(0)],
        "Rides-Hour": [7.0, None, 8.0],
        "trips": [1, 2, 3],
    }
    pl.DataFrame(places).with_columns(pl.col("at").dt.replace_time_zone(None)).write_parquet(
        folder / "data/place.parquet"
    )
    grades = {
        "driver_id": [1, 1],
        "place_id": ["a", "a"],
        "event_timestamp": [minutes(0), minutes(0)],
        "grade": ["x", "y"],
    }
    pl.DataFrame(grades).write_parquet(folder / "data/grade.parquet")


def test_the_imported_project_looks_up_what_was_known(tmp_path, capsys):
    repository = shutil.copytree(REPOSITORY, tmp_path / "repository")
    write_data(repository)
    asked = [
        *((1, "a", at) for at in (4, 30, 150, 180, 24 * 60 + 60, 24 * 60 + 61, 24 * 60 + 150)),
        (2, "b", 24 * 60),
        (2, "b", 36 * 60),
        (3, "c", 10_000),
        (1, "a", 30),  # rows of one key and time are returned each
    ]
    rows = pl.DataFrame(
        [(driver, place, minutes(at), 0) for driver, place, at in asked],
        schema=["driver_id", "place_id", "event_timestamp", "label"],
        orient="row",
    )
    rows.write_parquet(tmp_path / "rows.parquet")
    # In place of an interpreter with Feast: what one described.
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncp "{RECORDED}" "$3"\n')
    python.chmod(0o755)
    project = tmp_path / "project"
    words = ["features", "import-feast", str(repository), "--python", str(python), "--project", str(project), "--json"]
    words += ["--rows", str(tmp_path / "rows.parquet")]
    assert run([*words, "--dry-run"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert not shown["written"]
    assert "cumulant.yaml" in shown["files"]
    assert not project.exists()
    assert run(words) == 0
    assert run(words) == 0  # the same files once more change nothing
    with (project / "features.py").open("a") as file:
        file.write("# mine\n")
    assert run(words) == 2
    assert run([*words, "--force"]) == 0
    assert "# mine" not in (project / "features.py").read_text()
    (project / "features.py").unlink()
    (project / "features.py").symlink_to(tmp_path / "unmounted/features.py")
    assert run(words) == 2
    assert (project / "features.py").is_symlink()
    assert run([*words, "--force"]) == 0
    values = tmp_path / "values.parquet"
    assert run(["features", "get", "--project", str(project), "--out", str(values)]) == 0
    got = pl.read_parquet(values)
    none = None
    assert got["event_timestamp"].to_list() == rows["event_timestamp"].to_list()
    names = [name for name in got.columns if not name.startswith("_") and name != "event_timestamp"]
    assert {name: got[name].to_list() for name in names} == {
        # Known from `created` on, corrected from there on, and a day old at most by the time of the event. Of driver 1
        # the earlier row is corrected after the later one is known, which stays the newest.
        "conv_rate": [none, 1, 2, 3, 3, none, none, 4, none, none, 1],
        "driver_stats__trips": [none, 1, 2, 3, 3, none, none, 4, none, none, 1],
        "rides_hour": [7, none, none, none, none, none, none, 8, 8, none, none],
        "place_stats__trips": [1, 2, 2, 2, 2, 2, 2, 3, 3, none, 2],
        "grade_all__grade": [*"yyyyyyy", none, none, none, "y"],
        "pair_stats__grade": [*"yyyyyyy", none, none, none, "y"],
    }
    capsys.readouterr()
    assert run([*words, "--force", "--created", "corrections"]) == 0
    assert run(["features", "get", "--project", str(project), "--out", str(values)]) == 0
    # A row counts from its event time, as in Feast; the correction of one from when it became known.
    assert pl.read_parquet(values)["conv_rate"].to_list() == [1, 1, 3, 3, 3, none, none, 4, none, none, 1]


def test_what_cannot_be_read_or_imported_is_said(tmp_path, capsys):
    assert run(["features", "import-feast", str(tmp_path), "--json"]) == 2
    assert "no feature_store.yaml" in capsys.readouterr().out
    (tmp_path / "feature_store.yaml").write_text("project: rides\n")
    assert run(["features", "import-feast", str(tmp_path), "--json"]) == 2  # this interpreter has no Feast
    document = json.loads(capsys.readouterr().out)["error"]
    assert document["code"] == "missing-part"
    assert "pip install feast" in document["hint"]
    assert run(["features", "import-feast", str(tmp_path), "--python", str(tmp_path / "nowhere"), "--json"]) == 2
    assert "cannot be run" in capsys.readouterr().out
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho 'ImportError: no module rides' > $3\nexit {FAULTY}\n")
    python.chmod(0o755)
    assert run(["features", "import-feast", str(tmp_path), "--python", str(python), "--json"]) == 2
    assert "ImportError: no module rides" in capsys.readouterr().out
    python.write_text('#!/bin/sh\necho \'{"feast": "0"}\' > "$3"\n')
    assert (
        run(
            ["features", "import-feast", str(tmp_path), "--python", str(python), "--project", str(tmp_path / "project")]
        )
        == 1
    )
    assert "nothing was written" in capsys.readouterr().out
    assert run(["features", "import-feast", str(tmp_path), "--python", str(python), "--rows", "~nobody-here/x"]) == 2
    assert "~nobody-here/x" in capsys.readouterr().err
    assert not (tmp_path / "project").exists()


#: in place of Feast, which is not installed: where its modules fail, and how its errors quote feature_store.yaml
STAND_IN = """
import sys
from collections import namedtuple
from types import ModuleType, SimpleNamespace
class ValidationError(ValueError):
    def errors(self):
        return [{"loc": ("offline_store", "password"), "type": "extra_forbidden", "input": "hunter2"}]
class FeastConfigError(Exception):
    pass
Contents = namedtuple(
    "Contents",
    "entities feature_views stream_feature_views data_sources on_demand_feature_views feature_services projects",
)
def load_repo_config(folder, file):
    try:
        raise ValidationError("offline_store.password input_value='hunter2'")
    except ValidationError as error:
        raise FeastConfigError(error)
def parse_repo(folder):
    exec((folder / "definitions.py").read_text())
    view = SimpleNamespace(
        name="v", features=[], batch_source=None, entities=[], ttl=None, description="", owner="", tags={}
    )
    return Contents([], [view], [], [], [], [], [SimpleNamespace(name="rides")])
for name in ("repo_operations", "repo_config", "inference"):
    module = sys.modules["feast." + name] = ModuleType(name)
    module.parse_repo, module.load_repo_config = parse_repo, load_repo_config
"""


def read_with_stand_in(folder: Path, definitions: str) -> FeastRepository:
    (folder / "feast").mkdir()
    (folder / "feast/__init__.py").write_text(STAND_IN)
    (folder / "feast-0.dist-info").mkdir()
    (folder / "feast-0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: feast\nVersion: 0\n")
    (folder / "feature_store.yaml").write_text("project: rides\n")
    (folder / "definitions.py").write_text(definitions)
    return read_repository(folder, sys.executable)


def test_no_value_of_the_settings_is_told(tmp_path):
    (view,) = read_with_stand_in(tmp_path, "").views
    assert view.problem == "feature_store.yaml: FeastConfigError: offline_store.password (extra_forbidden)"


@pytest.mark.parametrize(
    ("definitions", "reason"),
    [
        ("import rydes", "ModuleNotFoundError: No module named 'rydes'"),
        ("load_repo_config(folder, '')", r"FeastConfigError: offline_store.password \(extra_forbidden\)$"),
        ("import os; os.write(2, b'hunter2'); os._exit(0)", "exit code 0 before"),
        ("import os; os._exit(3)", "exit code 3 before"),
        ("sys.exit(0)", "SystemExit: 0$"),
        ("sys.exit(3)", "SystemExit: 3$"),
    ],
)
def test_why_definitions_cannot_be_read_is_said(tmp_path, definitions, reason):
    with pytest.raises(DefinitionError, match=reason) as caught:
        read_with_stand_in(tmp_path, definitions)
    assert "hunter2" not in str(caught.value)
