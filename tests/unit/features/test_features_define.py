"""What users write: definitions, their names, and the words in which mistakes are refused."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cumulant.core.errors import DefinitionError, NotFoundError, UserCodeError
from cumulant.core.expr import Call, Column, Feature, Literal
from cumulant.features.definition.definitions import source
from cumulant.features.definition.functions import coalesce, col, concat, greatest, least, lit, when
from cumulant.features.definition.loading import Definitions, collect, load

DAY = 86_400_000_000
tx, weather = source("tx"), source("weather")


def names(definitions: Definitions) -> list[str]:
    return [definition.name for definition in definitions.features]


def node(value: Any) -> Any:
    (definition,) = collect({"f": value}).features
    return definition.expr


def refused(*words: str) -> Any:
    return pytest.raises(DefinitionError, match=".*".join(words))


def write(folder: Path, text: str) -> Path:
    path = folder / "features.py"
    path.write_text(text)
    return path


# expressions
def test_operators_become_the_tree() -> None:
    a, b = col("a"), col("b")
    assert node(1 - a * 2) == Call("sub", (Literal(1), Call("mul", (Column("a"), Literal(2)))))
    assert node((a > 1) & ~(b == "x") | (b != a)).op == "or"
    assert node(-abs(a) // 2 % 3**b).op == "mod"
    assert node(a.between(1, 2)) == Call(
        "and", (Call("ge", (Column("a"), Literal(1))), Call("le", (Column("a"), Literal(2))))
    )
    assert node(a.is_in(("x", "y"))) == Call("is_in", (Column("a"),), {"members": ["x", "y"]})
    assert node(a.clip(max=3)) == Call("clip", (Column("a"),), {"max": 3})
    assert node(a.str.slice(0, 2)) == Call("slice", (Column("a"),), {"start": 0, "length": 2})
    assert node(a.dt.shift("-2h")) == Call("shift", (Column("a"),), {"micros": -7_200_000_000})
    assert node(a - timedelta(hours=2)) == Call("sub", (Column("a"), Literal("2h")))
    assert node(coalesce(a, 0)).op == "coalesce"
    assert [node(least(a, b)).op, node(greatest(a, b)).op] == ["min", "max"]
    assert node(concat(a, b, separator="-")) == Call("concat", (Column("a"), Column("b")), {"separator": "-"})
    assert node(a.is_not_null()) == Call("not", (Call("is_null", (Column("a"),)),))


def test_when_chains_from_the_first_condition_on() -> None:
    a = col("a")
    chosen = when(a > 2).then("high").when(a > 1).then("mid").otherwise("low")
    first, second = Call("gt", (Column("a"), Literal(2))), Call("gt", (Column("a"), Literal(1)))
    inner = Call("when", (second, Literal("mid"), Literal("low")))
    assert node(chosen) == Call("when", (first, Literal("high"), inner))
    assert node(when(a > 2).then(1)).args[2] == Literal(None)


def test_mistakes_in_expressions_name_the_line() -> None:
    a = col("a")
    with refused(r"test_features_define\.py:\d+", "truth value"):
        bool(a > 1)
    with refused("does not work on an expression"):
        "x" in a  # noqa: B015
    with refused("iterated"):
        list(a)
    with refused("list cannot be part"):
        a + [1]  # noqa: RUF005
    with refused("64 bits"):
        a + 2**63
    with refused("column name"):
        col(3)  # type: ignore[arg-type]
    with refused("min, max or both"):
        a.clip()
    with refused("not a duration"):
        a.dt.shift("2 hours")
    for number in ("inf", "-inf", "nan"):
        with refused(f"{number} cannot be part of an expression"):
            col("x") < float(number)  # noqa: B015


# windows and lookups
def test_windows_are_named_by_variable_and_length() -> None:
    card = tx.by("card")
    found = collect(
        {
            "n": card.count(window=["1d", "12h"]),
            "m": card.mean("x", window="7d"),
            "t": card.sum("x", window=timedelta(hours=36)),
        }
    )
    assert names(found) == ["n_1d", "n_12h", "m_7d", "t_1d12h"]
    assert [d.window.span_us for d in found.features if d.window] == [DAY, DAY // 2, 7 * DAY, DAY * 3 // 2]
    assert found.features[0].window.value is None
    assert found.features[2].window.value == Column("x")


def test_a_window_is_referred_to_by_any_way_of_writing_its_length() -> None:
    mean = tx.by("card").mean("x", window=["1d", "7d"])
    found = collect({"mean": mean, "ratio": col("x") / mean["24h"]})
    assert found.features[-1].expr == Call("div", (Column("x"), Feature("mean_1d")))
    with refused('no window "2d"'):
        mean["2d"]
    with refused("several windows"):
        collect({"bad": mean + 1})
    assert collect({"ok": tx.by("card").count(window="1d") + 1}).features[0].window is not None


def test_private_and_nameless_windows_become_parts() -> None:
    card = tx.by("card")
    private = card.count(window=["1d", "7d"])
    found = collect(
        {"_n": private, "share": private["1d"] / private["7d"], "ratio": col("x") / card.mean("x", window="1d")}
    )
    assert names(found) == ["_n_1d", "_n_7d", "_ratio_1d", "share", "ratio"]


def test_two_nameless_windows_of_one_length_do_not_meet() -> None:
    card = tx.by("card")
    found = collect({"r": card.max("x", window="1d") / card.min("x", window="1d"), "s": card.max("x", window="1d") + 1})
    assert names(found) == ["_r_1d", "_r_1d_2", "_s_1d", "r", "s"]


def test_columns_and_lookups_keep_their_names() -> None:
    at = weather.as_of("origin", within="3h").columns("temp", "wind")
    found = collect({"row": tx.columns("amount"), "at": at, "warm": at["temp"] > 20, "_x": tx.columns("hidden")})
    assert names(found) == ["amount", "temp", "wind", "warm"]
    assert (found.features[1].lookup.within_us, found.features[1].lookup.order) == (10_800_000_000, msgspec.UNSET)
    assert found.features[3].expr == Call("gt", (Feature("temp"), Literal(20)))
    with refused("not among"):
        at["tmp"]


def test_a_private_lookup_is_a_part() -> None:
    at = weather.as_of("origin").columns("temp")
    assert names(collect({"_w": at, "warm": at["temp"] > 20})) == ["_w_temp", "warm"]


def test_named_expressions_are_shared_and_private_ones_written_in() -> None:
    late, night = col("delay") > 15, col("hour") < 6
    found = collect({"night": night, "_late": late, "both": night & late, "n": tx.by("k").mean(night, window="1d")})
    assert found.features[1].expr == Call("and", (Feature("night"), Call("gt", (Column("delay"), Literal(15)))))
    assert found.features[2].window.value == Call("lt", (Column("hour"), Literal(6)))


def test_descriptions_go_along() -> None:
    mean = tx.by("card").mean("x", window=["1d", "7d"]).described("Usual amount", owner="risk", tags=["money"])
    found = collect(
        {
            "mean": mean,
            "ratio": (col("x") / mean["1d"]).described("Against usual"),
            "row": tx.columns("x").described("As paid"),
        }
    )
    assert [(d.name, d.description, d.owner, d.tags) for d in found.features] == [
        ("mean_1d", "Usual amount", "risk", ("money",)),
        ("mean_7d", "Usual amount", "risk", ("money",)),
        ("ratio", "Against usual", "", ()),
        ("x", "As paid", "", ()),
    ]


def test_a_described_copy_is_the_same_feature() -> None:
    mean = tx.by("card").mean("x", window="1d")
    found = collect({"mean": mean.described("Usual"), "ratio": col("x") / mean})
    assert names(found) == ["mean_1d", "ratio"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (tx.by, "at least one"),
        (lambda: tx.by("a", "a"), "twice"),
        (lambda: tx.by(["a"]), "column names"),
        (lambda: tx.by("a").mean("x", window=[]), "empty"),
        (lambda: tx.by("a").mean("x", window="0d"), "above zero"),
        (lambda: tx.by("a").mean("x", window="1 month"), "not a duration"),
        (lambda: tx.by("a").mean("x", window=["1d", "24h"]), "same length"),
        (lambda: tx.by("a").mean("x", window=30), "not as int"),
        (lambda: tx.by("a").mean(None, window="1d"), "needs a column"),
        (lambda: tx.by("a").mean(3, window="1d"), "column name or an expression"),
        (lambda: source(""), "name"),
        (lambda: weather.as_of("a", within="-1h"), "not a duration"),
        (lambda: weather.as_of("a", order="event_tme"), 'order is "known_time" or "event_time", not "event_tme"'),
        (lambda: tx.by("a").last("x", window="1d", order=True), 'order is "known_time" or "event_time", not bool'),
        (lambda: iter(tx.columns("a")), "iterated"),
        (lambda: collect({"n": tx.by("a").mean(tx.by("a").count(window="1d") + 1, window="1d")}), "raw columns only"),
    ],
)
def test_misuse_is_refused_at_once(make: Any, words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        make()


def test_clashing_names_are_refused_with_both_places() -> None:
    with refused('cannot be named "_id"'):
        collect({"row": tx.columns("_id")})
    with refused('named "temp" is already defined', r"define\.py:\d+"):
        collect({"row": tx.columns("temp"), "at": weather.as_of("k").columns("temp")})


# files
def test_a_file_may_hold_functions_and_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "shared_parts_of_test.py").write_text("from cumulant.features import col\nnight = col('hour') < 6\n")
    path = write(
        tmp_path,
        "import math\nfrom shared_parts_of_test import night\nfrom cumulant.features import *\n"
        "tx = source('tx')\ndef prepare(raw):\n    return raw\nlimit = 3\nbig = col('x') > limit\n",
    )
    assert names(load(path)) == ["night", "big"]
    (tmp_path / "shared_parts_of_test.py").write_text("from cumulant.features import col\nday = col('hour') > 6\n")
    path.write_text("from shared_parts_of_test import day\n")
    assert names(load(path)) == ["day"]
    assert not (tmp_path / "__pycache__" / "features.cpython-311.pyc").exists()


def test_an_edit_of_a_neighbour_counts_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same size and within the same second."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = write(tmp_path, "from nearby import LIMIT\nfrom cumulant.features import col\nbig = col('x') > LIMIT\n")
    for value in (1, 7):
        (tmp_path / "nearby.py").write_text(f"LIMIT = {value}\n")
        os.utime(tmp_path / "nearby.py", (1_700_000_000, 1_700_000_000))
        [definition] = load(path).features
        assert isinstance(definition.expr, Call)
        assert definition.expr.args[1] == Literal(value)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("x = (1\n", DefinitionError, r"features\.py:1: this is not Python"),
        (
            "from cumulant.features import col\n\nbad = col('a') and col('b')\n",
            DefinitionError,
            r"features\.py:3: .*truth",
        ),
        ("import nothing_of_this_name\n", UserCodeError, r"features\.py:1: .*ModuleNotFoundError"),
        ("def f():\n    return 1 / 0\nf()\n", UserCodeError, r"features\.py:2: .*ZeroDivisionError"),
        ("from cumulant.features import source\nx = surce('a')\n", DefinitionError, r"features\.py:2: .*surce"),
        ("raise SystemExit(3)\n", UserCodeError, r"features\.py:1: .*SystemExit"),
        ("\x00", DefinitionError, r"features\.py:1: this is not Python"),
    ],
)
def test_a_file_that_fails_is_named_with_its_line(
    tmp_path: Path, text: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        load(write(tmp_path, text))


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"features\.py"):
        load(tmp_path / "features.py")


def test_a_constant_is_a_feature_too() -> None:
    assert node(lit(1) + 0) == Call("add", (Literal(1), Literal(0)))
