"""`cumulant monitor run` on tables that are not as they should be: clear words, bounded memory, nothing lost."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import polars as pl
import pytest

pytestmark = pytest.mark.slow

START = datetime(2026, 1, 1)


def table(days=10, start=0, size=100):
    generator = np.random.default_rng(start)
    n = days * size
    return pl.DataFrame(
        {
            "at": [START + timedelta(days=start + row // size, minutes=row % size) for row in range(n)],
            "amount": generator.normal(0, 1, n),
            "place": generator.choice(["x", "y"], n),
            "fixed": 7,
            "score": generator.random(n),
        }
    )


@pytest.fixture
def look(cumulant, tmp_path):
    """Compares two tables; the document, and how it ended."""

    def call(now, before=None, *words):
        names = []
        for name, frame in (("now", now), ("before", table() if before is None else before)):
            path = tmp_path / f"{name}.parquet"
            frame.write_parquet(path)
            names.append(str(path))
        ended = cumulant("monitor", "run", "--predictions", names[0], "--reference", names[1], "--json", *words)
        assert "Traceback" not in ended.out + ended.err
        return ended

    return call


def found(ended):
    return {(one["feature"], one["what"]) for one in ended.document["findings"]}


def test_windows_that_are_empty_or_small_are_no_finding(look):
    now = pl.concat([table(2, 10), table(1, 20).head(3), table(2, 30)])
    ended = look(now)
    assert (ended.code, found(ended)) == (0, set()), ended.err
    assert [one["rows"] for one in ended.document["windows"]] == [100, 100, 3, 100, 100]


def test_no_row_and_no_time_are_said(look):
    for now, says in (
        (table().head(0), "has no rows"),
        (table(2, 10).with_columns(at=pl.lit(None, pl.Datetime("us"))), "holds no times"),
        (table(2, 10).with_columns(at=pl.lit("soon")), "holds no times"),
    ):
        ended = look(now, None, *(("--time", "at") if now["at"].dtype == pl.String else ()))
        assert ended.code == 2, ended.out
        assert says in ended.document["error"]["error"]
        assert ended.document["error"]["hint"]
    ended = look(table(2, 10), table().head(0))
    assert (ended.code, "no row" in ended.document["error"]["error"]) == (2, True)


def test_constant_columns_and_one_class(look):
    assert look(table(3, 10)).document["findings"] == []
    ended = look(table(3, 10).with_columns(place=pl.lit("x"), fixed=8))
    assert ended.code == 1
    assert ("place", "constant") in found(ended)
    assert "fixed" in {feature for feature, _ in found(ended)}
    # All labels of one class, here and there.
    one = table(3, 10).with_columns(score=1.0)
    assert look(one, table().with_columns(score=1.0)).document["findings"] == []
    assert ("score", "constant") in found(look(one))


def test_columns_without_a_value_are_not_watched(look):
    nothing = pl.lit(None, pl.Float64)
    ended = look(table(3, 10), table().with_columns(amount=nothing))
    assert (ended.code, [one["name"] for one in ended.document["skipped"]]) == (0, ["amount"])
    assert ("amount", "missing") in found(look(table(3, 10).with_columns(amount=nothing)))


def test_a_reference_of_another_schema(look):
    ended = look(table(3, 10), table().rename({"amount": "sum", "place": "where"}))
    assert (ended.code, found(ended)) == (1, {("sum", "absent"), ("where", "absent")})
    assert ended.document["only_here"] == ["amount", "place"]
    assert ended.document["only_in_reference"] == ["sum", "where"]
    ended = look(table(3, 10), pl.DataFrame({"other": [1, 2]}))
    assert (ended.code, "no column in common" in ended.document["error"]["error"]) == (2, True)
    # Numbers that have become texts: what is a number still counts.
    texts = table(3, 10).with_columns(amount=pl.col("amount").cast(pl.String))
    assert look(texts).document["findings"] == []
    ended = look(texts.with_columns(amount=pl.lit("n/a")))
    assert ("amount", "unreadable") in found(ended)
    nested = table(3, 10).with_columns(amount=pl.concat_list("amount"), place=pl.struct("place"))
    assert ("amount", "unreadable") in found(look(nested))
    assert look(table(3, 10), table().with_columns(place=pl.struct("place"))).code == 0


def test_a_column_that_is_lost_is_a_data_fault_and_labels_are_not_expected(look):
    now = table(3, 10)
    ended = look(now.drop("score"))
    assert (ended.code, found(ended)) == (1, {("score", "absent")})
    (one,) = ended.document["findings"]
    assert (one["kind"], one["role"], one["active"]) == ("data_fault", "prediction", True)
    assert look(now.drop("amount"), None, "--ignore", "amount").code == 0
    assert look(now.drop("amount"), None, "--columns", "place,score").code == 0
    labelled = table().with_columns(target=pl.col("score") > 0.5, paid=pl.col("score") > 0.5)
    assert found(look(now, labelled)) == {("paid", "absent")}
    assert look(now, labelled, "--label", "paid").code == 0


def test_values_of_another_type_are_a_data_fault(look):
    now = table(3, 10)
    for other in (pl.col("at"), pl.col("amount") > 0, pl.col("at").dt.date()):
        assert found(look(now.with_columns(amount=other), None, "--time", "at")) == {("amount", "unreadable")}
    assert (
        look(now.with_columns(flag=pl.col("amount") > 0), table().with_columns(flag=(pl.col("amount") > 0) * 1)).code
        == 0
    )
    codes = pl.Series([f"v{place % 51_000}" for place in range(110_000)])
    many = table(1100).with_columns(code=codes)
    ended = look(table(3, 10).with_columns(code=pl.lit(7)), many)
    assert ("code", "unreadable") in found(ended)


def test_a_probability_beyond_1_is_impossible(look):
    now = table(3, 10)
    late = pl.when(pl.int_range(pl.len()) % 20 == 0)
    ended = look(now.with_columns(score=late.then(1.2).otherwise("score")))
    assert found(ended) == {("score", "impossible")}
    assert look(now.with_columns(score=late.then(1.0).otherwise("score"))).code == 0


def test_a_column_of_one_value_is_named_by_it(look):
    before = table().with_columns(
        place=pl.when(pl.int_range(pl.len()) % 5 > 1).then(pl.lit("x")).otherwise(pl.lit("y"))
    )
    (one,) = look(table(3, 10).with_columns(place=pl.lit("y")), before).document["findings"]
    assert (one["what"], one["says"].split(": ")[1]) == ("constant", "y")


def test_nothing_to_compare_is_no_answer(look):
    """Both have but a key and a time, which are not watched."""
    keyed = [
        frame.select("at", key=pl.int_range(pl.len()) + start) for frame, start in ((table(3, 10), 5000), (table(), 0))
    ]
    ended = look(*keyed)
    assert ended.code == 2, ended.out
    assert "can be compared" in ended.document["error"]["error"]
    ended = look(keyed[0], keyed[1].with_columns(score=0.5))
    assert ended.code == 2


def test_clocks_that_jump_make_a_window_each_and_none_between(look):
    ahead = [datetime(9999, 12, 31, 23), datetime(2262, 4, 12), datetime(1970, 1, 1), datetime(1, 1, 1)]
    wrong = table(1, 10).head(len(ahead)).with_columns(at=pl.Series(ahead))
    ended = look(pl.concat([table(5, 10), wrong]))
    assert (ended.code, found(ended)) == (0, set()), ended.err
    assert len(ended.document["windows"]) == 5 + len(ahead)
    assert ended.document["windows"][0]["from"].endswith("01-01")
    # Many clocks of their own: that is said, instead of a look at each.
    many = table(60, 10).with_columns(at=pl.Series([START + timedelta(days=row) for row in range(6000)]))
    ended = look(many)
    assert ended.code == 2
    assert "6,000 windows" in ended.document["error"]["error"]
    assert "longer window" in ended.document["error"]["hint"]
    # A reference with such rows is one, too.
    assert look(table(5, 10), pl.concat([table(), wrong])).document["findings"] == []


def test_times_of_other_zones_are_the_same_moments(look):
    plain = table(4, 10)
    days = [one["from"] for one in look(plain).document["windows"]]
    utc = pl.col("at").dt.replace_time_zone("UTC")
    berlin = plain.with_columns(at=utc.dt.convert_time_zone("Europe/Berlin"))
    texts = plain.with_columns(
        at=pl.Series(
            [
                when.replace(tzinfo=UTC).astimezone(timezone(timedelta(hours=5, minutes=45))).isoformat()
                for when in plain["at"]
            ]
        )
    )
    for now in (berlin, texts, plain.with_columns(pl.col("at").dt.cast_time_unit("ns"))):
        ended = look(now, None, "--time", "at")
        assert ended.code == 0, ended.out
        assert [one["from"] for one in ended.document["windows"]] == days


def test_columns_of_one_name(cumulant, tmp_path):
    table(5).write_csv(tmp_path / "before.csv")
    text = table(2, 10).write_csv().splitlines()
    text[0] = text[0].replace("fixed", "amount")
    (tmp_path / "now.csv").write_text("\n".join(text))
    words = ("monitor", "run", "--predictions", str(tmp_path / "now.csv"), "--reference", str(tmp_path / "before.csv"))
    ended = cumulant(*words)
    assert "Traceback" not in ended.out + ended.err
    assert (ended.code, "amount_duplicated_0" in ended.out, "fixed" in ended.out) == (1, True, True), ended.err


PEAK = """\
import json, resource, sys
from cumulant.cli.app import run
code = run(sys.argv[1:])
print(json.dumps({"code": code, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}), file=sys.stderr)
"""


def test_a_million_new_categories_cost_little(tmp_path):
    """Beside a million of two values: the texts themselves, and no more than some hundred bytes for each."""
    rows = 1_000_000
    at = pl.Series([START]).extend_constant(START, rows - 1)
    before = pl.DataFrame({"at": at, "kind": pl.Series(["x", "y"] * (rows // 2))})
    before.write_parquet(tmp_path / "before.parquet")
    before.write_parquet(tmp_path / "few.parquet")
    many = before.with_columns(kind=pl.format("made-up-{}", pl.int_range(rows)))
    many.write_parquet(tmp_path / "many.parquet")

    def peak(name):
        words = [
            "monitor",
            "run",
            "--predictions",
            str(tmp_path / name),
            "--reference",
            str(tmp_path / "before.parquet"),
        ]
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *words, "--json", "--out", str(tmp_path / "page.html")],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
            env={**os.environ, "MALLOC_ARENA_MAX": "2"},
        )
        told = json.loads(done.stderr.splitlines()[-1])
        return told["code"], told["mb"], json.loads(done.stdout)

    calm, alarm = peak("few.parquet"), peak("many.parquet")
    assert (calm[0], alarm[0]) == (0, 1)
    (one,) = alarm[2]["findings"]
    assert (one["what"], len(one["examples"])) == ("unseen", 3)
    assert alarm[1] - calm[1] < 400, (calm[1], alarm[1])
    assert (tmp_path / "page.html").stat().st_size < 100_000


def test_a_day_without_half_of_its_rows_and_one_without_any_are_findings(look):
    before, now = table(40), table(20, 40)
    now = now.filter(~pl.col("at").is_between(START + timedelta(days=47), START + timedelta(days=48)))
    now = now.filter(~pl.col("at").is_between(START + timedelta(days=52), START + timedelta(days=52, minutes=55)))
    assert look(table(20, 40), before).code == 0
    ended = look(now, before)
    assert ended.code == 1
    assert {(one["feature"], one["kind"], one["what"]) for one in ended.document["findings"]} == {
        ("rows", "volume", "gap"),
        ("rows", "volume", "few"),
    }
    assert [one["from"] for one in ended.document["windows"] if one["alarming"]] == ["2026-02-22"]
    assert look(now, before, "--windows", "5").document["findings"] == []
