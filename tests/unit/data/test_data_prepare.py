"""The user's own cleaning: run where the project is, checked to be row-wise, known by its code."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import polars as pl
import pytest

from cumulant.core.errors import DefinitionError, UserCodeError
from cumulant.data.code_hash import code_digest, prepare_digest

TRIPS = "id,km\n" + "".join(f"{n},{(n * 37) % 101}\n" for n in range(300))
HEAD = "import polars as pl\nimport pandas as pd\n"


def prepared(place, body: str, **more):
    place.write("trips.csv", TRIPS)
    place.write("features.py", HEAD + body)
    return place.ingest(prepare="features.py:prepare", key="id", **more)


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        "def prepare(raw: pl.LazyFrame) -> pl.LazyFrame:\n    return raw.with_columns(m=pl.col('km') * 1000)\n",
        "def prepare(raw: pl.DataFrame):\n    return raw.with_columns(m=raw['km'] * 1000)\n",
        "def prepare(raw: pd.DataFrame) -> pd.DataFrame:\n    return raw.assign(m=raw.km * 1000)\n",
        "def prepare(raw: 'pd.DataFrame'):\n    raw['m'] = raw['km'] * 1000\n    return raw\n",
        "def prepare(raw):\n    return raw.with_columns(m=pl.col('km') * 1000)\n",
    ],
    ids=["lazy", "polars", "pandas", "pandas in place", "no annotation"],
)
def test_polars_and_pandas_functions(place, body):
    found = prepared(place, body)
    assert place.rows(found, "id", "m")[:3] == [(0, 0), (1, 37000), (2, 74000)]
    assert (found.rows_in, found.rows_passed, found.rows_dropped) == (300, 300, 0)


def test_a_file_that_imports_pandas_only_gets_pandas(place):
    place.write("trips.csv", TRIPS)
    place.write("clean.py", "import pandas\ndef prepare(raw):\n    return raw[raw['km'] > 50]\n")
    assert place.ingest(prepare="clean.py:prepare").rows_dropped > 100


def test_dropped_rows_are_counted_apart_from_refused_ones(place):
    body = "def prepare(raw: pl.LazyFrame):\n    return raw.filter(pl.col('km') != 5)\n"
    found = prepared(place, body, rules={"km": {"min": 1}}, quarantine="5%")
    dropped = sum((n * 37) % 101 == 5 for n in range(300))
    none = sum((n * 37) % 101 == 0 for n in range(300))
    assert (found.rows_dropped, found.rows_quarantined, found.rows_passed) == (dropped, none, 300 - dropped - none)


def test_it_runs_in_the_project_with_its_modules_and_files(place):
    place.write("helper.py", "FACTOR = 3\n")
    place.write("names.txt", "seven")
    body = (
        "from pathlib import Path\nfrom helper import FACTOR\nWORD = Path('names.txt').read_text()\n"
        "def prepare(raw: pl.LazyFrame):\n    return raw.with_columns(x=pl.col('km') * FACTOR, w=pl.lit(WORD))\n"
    )
    here = Path.cwd()
    assert place.rows(prepared(place, body), "x", "w")[1] == (111, "seven")
    assert Path.cwd() == here


@pytest.mark.slow
@pytest.mark.parametrize(
    "expression",
    [
        "raw.with_columns(d=pl.col('km') - pl.col('km').mean())",
        "raw.with_columns(d=pl.col('km').rank())",
        "raw.with_columns(d=pl.col('km').shift(1))",
        "raw.with_columns(d=pl.col('km').cum_sum())",
        "raw.sort('km')",
        "raw.unique('km', keep='first', maintain_order=True)",
        "raw.with_row_index('d')",
        "raw.filter(pl.col('km') > pl.col('km').median())",
        "raw.head(200)",
        "pl.concat([raw, raw])",
        "raw.with_columns(d=pl.int_range(pl.len()).shuffle())",
        "raw.select(pl.col('km').sum())",
        "raw.with_columns(d=pl.col('km') / pl.col('km').max())",
    ],
)
def test_what_looks_at_other_rows_is_refused(place, expression):
    with pytest.raises(DefinitionError, match=r"not row-wise|makes rows"):
        prepared(place, f"def prepare(raw: pl.LazyFrame):\n    return {expression}\n")


def test_deduplication_far_apart_is_refused_too(place):
    rows = [*range(3000), 1]
    place.write("trips.csv", "id,km\n" + "".join(f"{n},1\n" for n in rows))
    place.write("features.py", HEAD + "def prepare(raw: pl.DataFrame):\n    return raw.unique(maintain_order=True)\n")
    with pytest.raises(DefinitionError, match="each row comes twice"):
        place.ingest(prepare="features.py:prepare")


@pytest.mark.parametrize(
    ("body", "told", "line"),
    [
        ("def prepare(raw: pd.DataFrame):\n    x = 1\n    return raw['nothing']\n", "KeyError: 'nothing'", 5),
        ("def prepare(raw: pl.LazyFrame):\n    return raw.with_columns(pl.col('nothing'))\n", "ColumnNotFoundError", 3),
        ("def prepare(raw: pl.LazyFrame):\n    raise ValueError('bad day')\n", "ValueError: bad day", 4),
        ("def helper(x):\n    return 1 / 0\ndef prepare(raw):\n    return helper(raw)\n", "ZeroDivisionError", 4),
        ("raise RuntimeError('at import')\ndef prepare(raw):\n    return raw\n", "RuntimeError: at import", 3),
        ("import no_such_module\ndef prepare(raw):\n    return raw\n", "ModuleNotFoundError", 3),
        ("def prepare(raw:\n", "not valid Python", 3),
    ],
)
def test_what_the_users_code_raises_names_its_file_and_line(place, body, told, line):
    with pytest.raises(UserCodeError) as caught:
        prepared(place, body)
    assert told in str(caught.value)
    assert f"features.py, line {line}" in str(caught.value)


def test_personal_values_stay_out_of_what_the_users_code_raises(place):
    with pytest.raises(UserCodeError) as caught:
        prepared(place, "def prepare(raw):\n    raise ValueError('Ada Lovelace')\n", personal=["km"])
    assert "Ada" not in str(caught.value)
    assert "line 4" in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("features.py:prepar", "did you mean"),
        ("feature.py:prepare", "no file"),
        ("prepare", "no file"),
        ("features.py:nothing_at_all", "no function"),
    ],
)
def test_functions_that_are_not_there(place, reference, told):
    place.write("trips.csv", TRIPS)
    place.write("features.py", "def prepare(raw):\n    return raw\n")
    with pytest.raises(DefinitionError) as caught:
        place.ingest(prepare=reference)
    assert told in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("answer", ["None", "17", "'text'"])
def test_functions_that_return_no_table(place, answer):
    from cumulant.core.errors import UsageError

    with pytest.raises(UsageError):
        prepared(place, f"def prepare(raw):\n    return {answer}\n")


CODE = """
import polars as pl
from helper import FACTOR
LIMIT = 5
OTHER = 6
def inner(x):
    return x * LIMIT
def prepare(raw):
    # a comment
    return raw.with_columns(y=inner(pl.col("km")) * FACTOR)
def feature(x):
    return x + OTHER
"""


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("# a comment", "# another comment\n", True),
        ("x + OTHER", "x - OTHER", True),
        ("OTHER = 6", "OTHER = 7", True),
        ("def prepare(raw):", 'def prepare(raw):\n    """Text."""', True),
        ("LIMIT = 5", "LIMIT = 6", False),
        ("x * LIMIT", "x / LIMIT", False),
        ('"km"', '"kms"', False),
    ],
)
def test_only_reachable_code_counts(tmp_path, before, after, same):
    (tmp_path / "helper.py").write_text("FACTOR = 2\n")
    (tmp_path / "features.py").write_text(CODE)
    first = code_digest(tmp_path / "features.py", "prepare", tmp_path)
    (tmp_path / "features.py").write_text(CODE.replace(before, after))
    assert (code_digest(tmp_path / "features.py", "prepare", tmp_path) == first) is same


def test_imported_project_modules_count(tmp_path):
    (tmp_path / "features.py").write_text(CODE)
    (tmp_path / "helper.py").write_text("from deeper import FACTOR\n")
    (tmp_path / "deeper.py").write_text("FACTOR = 2\n")
    first = code_digest(tmp_path / "features.py", "prepare", tmp_path)
    (tmp_path / "deeper.py").write_text("FACTOR = 3\n")
    assert code_digest(tmp_path / "features.py", "prepare", tmp_path) != first


def test_editing_a_feature_reads_nothing_again_and_editing_prepare_does(place):
    body = "def prepare(raw: pl.LazyFrame):\n    return raw.with_columns(m=pl.col('km') * 2)\nfeature = 1\n"
    first = prepared(place, body)
    place.files.opened.clear()
    again = prepared(place, body.replace("feature = 1", "feature = 2"), previous=first)
    assert again.id == first.id
    other = prepared(place, body.replace("* 2", "* 3"), previous=first)
    assert other.id != first.id
    assert place.rows(other, "m")[1] == (111,)


def test_a_prepared_frame(place):
    place.write("features.py", HEAD + "def prepare(raw: pl.DataFrame):\n    return raw.drop('x')\n")
    found = place.ingest(path="", frame=pl.DataFrame({"x": [1], "y": [2]}), prepare="features.py:prepare")
    assert place.rows(found) == [(2,)]


def test_the_digest_is_told_without_running_anything(tmp_path):
    (tmp_path / "features.py").write_text("raise RuntimeError\ndef prepare(raw):\n    return raw\n")
    assert prepare_digest("features.py:prepare", tmp_path) == code_digest(tmp_path / "features.py", "prepare", tmp_path)
    assert prepare_digest(None, tmp_path) is None
    with pytest.raises(DefinitionError, match="no file"):
        prepare_digest("nowhere.py:prepare", tmp_path)


@pytest.mark.parametrize("line", ["from .deep import FACTOR", "from . import deep", "from pkg.deep import FACTOR"])
def test_relative_imports_and_packages_on_the_way_count(tmp_path, line):
    (tmp_path / "pkg").mkdir()
    (tmp_path / "features.py").write_text("from pkg.mod import K\ndef prepare(raw):\n    return raw * K\n")
    files = {"__init__.py": "", "mod.py": f"{line}\nK = 1\n", "deep.py": "FACTOR = 1\n"}
    for name, text in files.items():
        (tmp_path / "pkg" / name).write_text(text)
    digests = {code_digest(tmp_path / "features.py", "prepare", tmp_path)}
    for name, text in files.items():
        (tmp_path / "pkg" / name).write_text(f"{text}OTHER = 2\n")
        digests.add(code_digest(tmp_path / "features.py", "prepare", tmp_path))
    assert len(digests) == 4


def test_relative_imports_of_the_package_above_count(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "features.py").write_text("import a.b.mod\ndef prepare(raw):\n    return a.b.mod.K\n")
    (tmp_path / "a" / "b" / "mod.py").write_text("from ..deep import K\n")
    (tmp_path / "a" / "deep.py").write_text("K = 1\n")
    first = code_digest(tmp_path / "features.py", "prepare", tmp_path)
    (tmp_path / "a" / "deep.py").write_text("K = 2\n")
    assert code_digest(tmp_path / "features.py", "prepare", tmp_path) != first


HELPED = {
    "neighbour": ("helper.py", "from helper import FACTOR\ndef prepare(raw: pl.LazyFrame):\n"),
    "package": ("pkg/deep.py", "from pkg.mod import FACTOR\ndef prepare(raw: pl.LazyFrame):\n"),
    "while it runs": ("helper.py", "def prepare(raw: pl.LazyFrame):\n    from helper import FACTOR\n"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("helper", "head"), HELPED.values(), ids=HELPED)
def test_an_edit_of_a_helper_counts_at_once(place, monkeypatch, helper, head):
    """Of the same size and within the same second, in one process and with what an earlier one compiled."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    place.write("pkg/__init__.py", "")
    place.write("pkg/mod.py", "from .deep import FACTOR\n")
    body = f"{head}    return raw.with_columns(x=pl.col('km') * FACTOR)\n"
    for value in (1, 7):
        file = place.write(helper, f"FACTOR = {value}\n")
        os.utime(file, (1_700_000_000, 1_700_000_000))
        assert place.rows(prepared(place, body), "x")[1] == (37 * value,)
    assert not {"helper", "pkg", "pkg.mod", "pkg.deep"} & sys.modules.keys()
    assert not list(file.parent.rglob("*.pyc"))


def test_a_helper_that_the_process_imported_before_is_left_as_it_was(place, monkeypatch):
    file = place.write("helper.py", "FACTOR = 1\n")
    monkeypatch.syspath_prepend(str(file.parent))
    monkeypatch.setitem(sys.modules, "helper", None)  # restored after the test
    del sys.modules["helper"]
    helper = importlib.import_module("helper")
    place.write("helper.py", "FACTOR = 7\n")
    body = f"{HELPED['neighbour'][1]}    return raw.with_columns(x=pl.col('km') * FACTOR)\n"
    assert place.rows(prepared(place, body), "x")[1] == (37 * 7,)
    assert sys.modules["helper"] is helper
    assert helper.FACTOR == 1


def test_a_module_stays_one_module_from_loading_to_running(place):
    place.write("helper.py", "class Mark:\n    pass\n")
    body = (
        "from helper import Mark\nMARK = Mark()\n"
        "def prepare(raw: pl.LazyFrame):\n    from helper import Mark\n"
        "    return raw.with_columns(x=pl.lit(isinstance(MARK, Mark)))\n"
    )
    assert place.rows(prepared(place, body), "x")[0] == (True,)
