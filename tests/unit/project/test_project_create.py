"""A project from a user's table: which columns are used, why others are not, and that it reads back."""

from __future__ import annotations

import gzip
import random
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulant.core.errors import CumulantError, DataError, UsageError
from cumulant.core.expr import Column
from cumulant.data.spec import EventTime, RuleSpec, SourceSpec
from cumulant.features.definition.loading import load as load_features
from cumulant.features.definition.parsing import parse
from cumulant.project.file.document import parse_document
from cumulant.project.file.loading import load
from cumulant.project.new.create import create_from, create_from_frame, features_text, project_text, yaml_text
from cumulant.project.new.inspection import inspect_table

ROWS = 200
TABULAR = Path(__file__).resolve().parents[4] / "shared" / "data" / "tabular"


@pytest.fixture
def table() -> pl.DataFrame:
    draw = random.Random(5)
    start = datetime(2024, 1, 1)
    score = [draw.random() for _ in range(ROWS)]
    bought = [value + draw.random() > 1.2 for value in score]
    return pl.DataFrame(
        {
            "order_id": [f"o{number:05d}" for number in range(ROWS)],
            "ordered_at": [start + timedelta(hours=number) for number in range(ROWS)],
            "score": score,
            "country": [draw.choice(["FR", "DE", "IT"]) for _ in range(ROWS)],
            "vip": [draw.random() > 0.5 for _ in range(ROWS)],
            "remark": [f"words {draw.random()}" for _ in range(ROWS)],
            "empty": pl.Series([None] * ROWS, dtype=pl.Float64),
            "constant": ["same"] * ROWS,
            "rarely": [None if draw.random() < 0.9 else "flag" for _ in range(ROWS)],
            "row_number": list(range(7, ROWS + 7)),
            "shipped_at": [start + timedelta(hours=number, minutes=draw.randrange(9000)) for number in range(ROWS)],
            "outcome": ["yes" if value else "no" for value in bought],
            "email": [f"{number}@example.com" for number in range(ROWS)],
            "bought": bought,
        }
    )


def made(frame: pl.DataFrame, folder: Path, target: str = "bought", **options):
    frame.write_parquet(folder / "orders.parquet")
    created = create_from(folder / "orders.parquet", target, name="shop", directory=folder, **options)
    project = load(created.path)
    names = [definition.name for definition in load_features(project.policies.features).features]
    return project, names, "\n".join(created.assumptions)


def test_only_columns_that_a_model_can_use_become_features(table, tmp_path):
    project, names, notes = made(table, tmp_path, time="ordered_at", key="order_id")
    assert names == ["score", "country", "vip", "rarely", "ordered_at_hour"]
    for line in (
        "order_id (identifies the row)",
        "ordered_at (the time of the event)",
        "empty (empty in every row)",
        "constant (the same in every row)",
        "outcome (alone determines the target,",
        "email (personal)",
        "shipped_at (a time;",
        "remark (text that is different in most rows)",
        "row_number (numbers the rows)",
    ):
        assert line in notes, notes
    source = project.spec.data["rows"]
    assert (source.keys, source.time.column, source.personal) == (("order_id",), "ordered_at", ["email"])
    assert (project.spec.training.target, project.spec.training.final_fit) == ("bought", "all")
    extras = [name for name in ("xgboost", "catboost") if find_spec(name) is not None]
    assert project.spec.training.trainers == ["naive", "linear", "lightgbm", *extras, "mlp"]
    assert project.name == "shop"


def test_key_and_time_are_found_where_they_are_not_named(table, tmp_path):
    project, _, notes = made(table, tmp_path)
    assert project.spec.data["rows"].keys == ("order_id",)
    assert project.spec.data["rows"].time.column == "ordered_at"
    assert "order_id identifies a row" in notes
    assert "the event's time is ordered_at" in notes


def test_a_later_time_is_proposed_as_the_known_time_of_the_target(table, tmp_path):
    decided = table.with_columns(decided_at=pl.col("ordered_at") + pl.duration(days=3))
    project, _, notes = made(decided, tmp_path)
    assert project.spec.data["rows"].time.column == "ordered_at"
    assert "if it is known at decided_at, say so: known_time: {decided_at: [bought]}" in notes


def test_the_data_are_referred_to_and_not_copied(table, tmp_path, monkeypatch):
    (tmp_path / "in" / "data").mkdir(parents=True)
    table.write_parquet(tmp_path / "in" / "data" / "orders.parquet")
    monkeypatch.chdir(tmp_path / "in")
    created = create_from("data/orders.parquet", "bought", name="shop")
    assert load(created.path).spec.data["rows"].path == "../data/orders.parquet"
    assert (
        load(create_from("./data/*.parquet", "bought", name="glob").path).spec.data["rows"].path == "../data/*.parquet"
    )
    absolute = create_from(tmp_path / "in/data/orders.parquet", "bought", name="abs")
    assert load(absolute.path).spec.data["rows"].path == str(tmp_path / "in/data/orders.parquet")
    for folder in (created.path, absolute.path):
        assert sorted(path.name for path in folder.iterdir()) == [
            ".gitignore",
            "cumulant.schema.json",
            "cumulant.yaml",
            "features.py",
        ]
        project = load(folder)
        assert len(project.files().list(str(project.root / project.spec.data["rows"].path))) == 1


@pytest.mark.parametrize("form", ["csv", "csv.gz", "jsonl", "semicolon.csv", "latin.csv", "tsv"])
def test_every_format(table, tmp_path, form):
    frame = table.select(
        "order_id",
        pl.col("ordered_at").dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "score",
        pl.col("country").replace("IT", "Ñ"),
        "bought",
    )
    path = tmp_path / f"orders.{form}"
    separator = {"semicolon.csv": ";", "tsv": "\t"}.get(form, ",")
    text = frame.write_csv(separator=separator)
    if form == "jsonl":
        frame.write_ndjson(path)
    elif form == "csv.gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_bytes(text.encode("latin-1" if form.startswith("latin") else "utf-8"))
    created = create_from(path, "bought", name="shop", directory=tmp_path)
    project = load(created.path)
    source = project.spec.data["rows"]
    assert [one.name for one in load_features(project.policies.features).features] == [
        "score",
        "country",
        "ordered_at_hour",
    ]
    assert source.separator == (";" if form == "semicolon.csv" else ",")
    assert source.encoding == ("latin-1" if form == "latin.csv" else "utf-8")
    assert source.time.column == "ordered_at"


def test_missing_marks_and_numbers_among_blanks(tmp_path):
    rows = ["a,b,c,y"] + [
        f"{'?' if n % 9 == 0 else 'x' if n % 2 else 'z'},{' ' if n % 10 == 0 else n * 1.5},{n % 7},{n % 2}"
        for n in range(100)
    ]
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    created = create_from(tmp_path / "t.csv", "y", name="m", directory=tmp_path)
    source = load(created.path).spec.data["rows"]
    assert source.missing == ["?"]
    assert source.rules["b"].type == "float"


def test_a_frame_is_written_into_the_project(table, tmp_path):
    created = create_from_frame(table, "bought", name="shop", directory=tmp_path)
    project = load(created.path)
    assert project.spec.data["rows"].path == "data/shop.parquet"
    assert pl.read_parquet(created.path / "data/shop.parquet").equals(table)
    pandas = create_from_frame(table.drop("empty").to_pandas(), "bought", name="pandas", directory=tmp_path)
    arrow = create_from_frame(table.to_arrow(), "bought", name="arrow", directory=tmp_path)
    columns = [load_features(load(one.path).policies.features).features for one in (created, pandas, arrow)]
    assert [[one.name for one in found] for found in columns] == [
        ["score", "country", "vip", "rarely", "ordered_at_hour"]
    ] * 3
    with pytest.raises(DataError):
        create_from_frame({"a": 1}, "a", name="dict", directory=tmp_path)
    assert not (tmp_path / "dict").exists()


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"target": "bougth"}, DataError, "--target names"),
        ({"target": "Bought"}, DataError, 'no column "Bought"'),
        ({"time": "when"}, DataError, "--time names"),
        ({"key": ("order_id", "nr")}, DataError, "--key names"),
        ({"key": ("country",)}, UsageError, "does not identify a row"),
        ({"key": ("order_id", "order_id")}, UsageError, "names a column twice"),
        ({"target": "order_id", "key": ("order_id",)}, UsageError, "cannot be the key too"),
        ({"target": "empty"}, DataError, "is empty in all 200 rows"),
        ({"target": "constant"}, DataError, "the same value in every row"),
        ({"target": "rarely"}, DataError, "the same value in every row"),
        ({"time": "country"}, DataError, "is not a time"),
    ],
)
def test_what_cannot_be_asked_for(table, tmp_path, options, error, said):
    with pytest.raises(error, match=said):
        made(table, tmp_path, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["orders.parquet"]


def test_a_feature_that_names_what_rows_belong_to_is_a_warning(table, tmp_path):
    frame = table.with_columns(hostId=pl.Series(range(ROWS)) % 90, channel_id=pl.Series(range(ROWS)) % 3)
    _, names, notes = made(frame, tmp_path)
    assert {"hostId", "channel_id"} <= set(names)
    assert "warning: features named like an identifier: hostId;" in notes
    assert "or let intervals keep them whole: evaluation: {clusters: hostId}" in notes
    (tmp_path / "untimed").mkdir()
    _, _, notes = made(frame.drop("ordered_at", "shipped_at"), tmp_path / "untimed")
    assert "or let intervals and splits keep them whole: evaluation: {clusters: hostId}" in notes
    (tmp_path / "plain").mkdir()
    _, _, notes = made(table, tmp_path / "plain")
    assert "named like an identifier" not in notes


def test_a_target_may_be_an_expression(table, tmp_path):
    project, names, notes = made(table, tmp_path, target="score > 0.8")
    assert project.spec.training.target == "score > 0.8"
    assert names == ["country", "vip", "rarely", "outcome", "bought", "ordered_at_hour"]
    assert "score (the target is made from it)" in notes
    assert "the target score > 0.8 has two values" in notes


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("score > 5", "the same value in every row"),
        ("scor > 0.5", "neither a column nor an expression"),
        ("1 > 2", "reads no column"),
        ("score >", "neither"),
        ("country > 3", "cannot be computed"),
    ],
)
def test_expressions_that_are_no_target(table, tmp_path, target, said):
    with pytest.raises(UsageError, match=said):
        made(table, tmp_path, target=target)
    assert not (tmp_path / "shop").exists()


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("Rented Bike Count > 500", 'write: col("Rented Bike Count") > 500'),
        (
            "wind-speed > 2 and note == 'Rented Bike Count'",
            "write: col(\"wind-speed\") > 2 and note == 'Rented Bike Count'",
        ),
        ("Rented Bike Count > Bike Count", 'write: col("Rented Bike Count") > col("Bike Count")'),
        ("class > 20", 'write: col("class") > 20'),
        ("Rented Bike Cuont", 'did you mean "Rented Bike Count"?'),
        ("Rented Bike Count >", 'did you mean "Rented Bike Count"?'),
    ],
)
def test_hints_write_columns_that_are_no_python_names_as_expressions_do(tmp_path, target, hint):
    names = ("Rented Bike Count", "Bike Count", "wind-speed", "class", "")
    frame = pl.DataFrame({name: range(60) for name in names} | {"note": ["a", "b"] * 30})
    with pytest.raises(DataError) as caught:
        made(frame, tmp_path, target=target)
    assert caught.value.hint == hint


def test_a_column_with_spaces_is_a_target_as_the_hint_writes_it(tmp_path):
    frame = pl.DataFrame({"Rented Bike Count": range(60), "note": ["a", "b"] * 30})
    written = 'col("Rented Bike Count") > 30'
    project, names, _ = made(frame, tmp_path, target=written)
    assert (project.spec.training.target, names) == (written, ["note"])


def test_hints_name_the_nearest_column(table, tmp_path):
    for target in ("bougth", "Bought", "BOUGHT"):
        with pytest.raises(DataError) as caught:
            made(table, tmp_path, target=target)
        assert caught.value.hint == 'did you mean "bought"?'


def test_no_column_is_left(tmp_path):
    frame = pl.DataFrame({"a": [1] * 60, "b": list(range(60)), "y": [0, 1] * 30})
    with pytest.raises(UsageError, match="no column is left") as caught:
        made(frame, tmp_path, target="y")
    assert "a: the same in every row" in caught.value.hint
    with pytest.raises(UsageError, match="no column is left"):
        made(frame.select("y"), tmp_path, target="y")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"a,y\n", "no rows"),
        (b"PAR1 not really", "cannot|damaged|not a whole"),
        (b"\x1f\x8bxx", "damaged|cut off"),
    ],
)
def test_files_that_hold_no_table(tmp_path, content, said):
    name = {b"PAR1": "t.parquet", b"\x1f\x8bxx": "t.csv.gz"}.get(content[:4], "t.csv")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CumulantError, match=said):
        create_from(tmp_path / name, "y", name="m", directory=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_that_does_not_exist(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        create_from(tmp_path / "nothing.csv", "y", name="m", directory=tmp_path)
    with pytest.raises(DataError, match="no driver"):
        create_from("ftp://example.com/x.csv", "y", name="m", directory=tmp_path)


def test_a_column_of_a_key_of_several_may_be_a_feature(tmp_path):
    frame = pl.DataFrame(
        {"shop": [n % 3 for n in range(300)], "day": [n // 3 for n in range(300)], "y": [n % 2 for n in range(300)]}
    )
    project, names, _ = made(frame, tmp_path, target="y", key=("shop", "day"))
    assert names == ["shop", "day"]
    assert project.spec.data["rows"].keys == ("shop", "day")


def test_a_few_repeats_of_a_key_are_only_noted(tmp_path):
    frame = pl.DataFrame({"id": [*range(299), 0], "x": [n % 7 for n in range(300)], "y": [n % 2 for n in range(300)]})
    _, names, notes = made(frame, tmp_path, target="y", key="id")
    assert names == ["x"]
    assert "1 rows repeat id and will go to quarantine" in notes


def test_columns_that_nearly_identify_the_row_are_left_out(tmp_path):
    draw, rows = random.Random(2), 2000
    frame = pl.DataFrame(
        {
            "x": [draw.random() for _ in range(rows)],
            "order_id": [draw.randrange(10**9) for _ in range(rows - 1)] + [None],
            "user_id": [draw.randrange(300) for _ in range(rows)],
            "serial": [*draw.sample(range(10**9), rows - 1), 0],
            "ref": [f"r{min(number, rows - 2)}" for number in range(rows)],
            "price": [draw.randrange(1000) for _ in range(rows)],
            "y": [draw.randrange(2) for _ in range(rows)],
        }
    )
    project, names, notes = made(frame, tmp_path, target="y")
    assert names == ["x", "user_id", "price"]
    assert "order_id (looks like an identifier: 100.0% of its values are different)" in notes
    assert "serial (nearly identifies the row: 0 of 2,000 rows repeat a value; --key serial makes it the key" in notes
    assert "ref (nearly identifies the row: 1 of 2,000 rows repeat a value; --key ref" in notes
    assert "if it is a measure, add it in features.py" in notes
    assert not project.spec.data["rows"].keys


@pytest.mark.parametrize(
    ("file", "target", "columns", "key"),
    [
        ("adult.csv.gz", "income-per-year", 14, ()),
        ("german_credit.csv.gz", "credit", 20, ()),
        ("telco_churn.csv.gz", "Churn", 19, ("customerID",)),
        ("california_housing.parquet", "MedHouseVal", 8, ()),
    ],
)
def test_real_tables(tmp_path, file, target, columns, key):
    if not (TABULAR / file).exists():
        pytest.skip("the public tables are not on this machine")
    created = create_from(TABULAR / file, target, name="m", directory=tmp_path)
    project = load(created.path)
    assert len(load_features(project.policies.features).features) == columns
    assert project.spec.data["rows"].keys == key
    assert project.spec.data["rows"].time is None


# What is written reads back ---------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.text(st.characters(blacklist_categories=["Cs"]), min_size=1))
def test_any_text_survives_yaml(text):
    assert parse_document(f"a: {yaml_text(text)}\n", "x").plain() == {"a": text}
    assert (
        parse_document(f"a: [{yaml_text(text)}, b]\n" if yaml_text(text)[0] == '"' else "a: [x, b]\n", "x").plain()[
            "a"
        ][1]
        == "b"
    )


names = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=20)


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(names, min_size=1, unique=True, max_size=5))
def test_any_column_name_survives_python(tmp_path_factory, columns):
    folder = tmp_path_factory.mktemp("features")
    (folder / "features.py").write_text(features_text(columns), encoding="utf-8")
    found = load_features(folder / "features.py").features
    plain = [column for column in columns if not column.startswith("_")]
    assert [one.name for one in found[: len(plain)]] == plain
    assert len({one.name for one in found}) == len(columns)
    assert {str(one.expr.name) for one in found} == set(columns)


def test_a_column_with_a_leading_underscore_is_a_feature_without_it(tmp_path):
    (tmp_path / "features.py").write_text(features_text(["_id", "id", "__", "_class"]), encoding="utf-8")
    found = load_features(tmp_path / "features.py").features
    assert [(one.name, one.expr.name) for one in found] == [
        ("id", "id"),
        ("id_2", "_id"),
        ("column_2", "__"),
        ("column_3", "_class"),
    ]


@settings(deadline=None)
@given(
    names,
    names,
    names,
    st.lists(names, unique=True, min_size=2, max_size=3),
    st.sampled_from([",", ";", "\t", '"', "#"]),
)
def test_any_declaration_survives_the_file(tmp_path_factory, path, target, time, several, separator):
    spec = SourceSpec(
        path=path,
        key=several,
        event_time=EventTime(column=time, zone="Europe/Paris"),
        personal=several,
        missing=several,
        separator=separator,
        encoding="latin-1",
        rules={name: RuleSpec(type="float") for name in several},
    )
    folder = tmp_path_factory.mktemp("project")
    (folder / "cumulant.yaml").write_text(project_text(spec, target, name="shop"), encoding="utf-8")
    found = load(folder).spec
    assert msgspec.to_builtins(found.data["rows"]) == msgspec.to_builtins(spec)
    assert parse(found.training.target, columns=[target]) == Column(target)


def test_a_target_made_of_a_personal_looking_column_makes_a_project_that_trains(tmp_path):
    table = pl.DataFrame({"address_count": list(range(200)), "size": [number % 7 for number in range(200)]})
    found = inspect_table(table, path="x.csv", target="address_count > 99", time=None, key=())
    assert found.spec.personal == []
    assert any("not kept as personal" in note and "address_count" in note for note in found.notes)


def test_a_target_of_amounts_in_quotes_is_a_number(tmp_path):
    amounts = "".join(f'{n},{n % 7},"{1000 + n}"\n' for n in range(150))
    (tmp_path / "sales.csv").write_text("n,area,price\n" + amounts)
    created = create_from(tmp_path / "sales.csv", "price", name="sales", directory=tmp_path)
    assert load(created.path).spec.data["rows"].rules["price"].type == "int"


@pytest.mark.parametrize("values", [(b"no", b"yes"), (b"a", b"b", b"c")])
def test_a_target_of_bytes_is_refused_with_what_to_do(tmp_path: Path, values: tuple[bytes, ...]) -> None:
    labels = [values[number % len(values)] for number in range(ROWS)]
    pl.DataFrame({"x": range(ROWS), "label": labels}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match='the target "label" holds bytes') as caught:
        create_from(tmp_path / "t.parquet", "label", name="shop", directory=tmp_path)
    assert caught.value.hint == "write it as text or as a number, or name another column"
    assert not (tmp_path / "shop").exists()
