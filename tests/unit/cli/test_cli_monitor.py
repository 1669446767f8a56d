"""`cumulant monitor run`: what a person and a program see, on tables and on a log."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest


def table(days, *, start, shift=0.0, missing=0.0, size=200, seed=0):
    generator = np.random.default_rng(seed + start)
    n = days * size
    place = generator.choice(["north", "south"], n, p=[0.75, 0.25])
    amount = generator.normal(0, 1, n) + shift * (place == "south")
    at = [datetime(2026, 1, 1) + timedelta(days=start + row // size, seconds=row % size) for row in range(n)]
    late = pl.Series(generator.random(n) < missing)
    frame = pl.DataFrame(
        {"key": np.arange(n) + start * size, "at": at, "amount": amount, "place": place, "score": generator.random(n)}
    )
    return frame.with_columns(amount=pl.when(late).then(None).otherwise("amount"))


@pytest.fixture
def files(tmp_path):
    table(20, start=0).write_parquet(tmp_path / "before.parquet")
    now = pl.concat([table(4, start=20), table(3, start=24, shift=4.0)])
    now.write_parquet(tmp_path / "now.parquet")
    now.write_csv(tmp_path / "now.csv")
    table(5, start=20).write_parquet(tmp_path / "calm.parquet")
    return tmp_path


def run(cumulant, folder, now, *words, before="before.parquet"):
    return cumulant("monitor", "run", "--predictions", str(folder / now), "--reference", str(folder / before), *words)


def test_a_shift_is_told_with_its_day_kind_and_segment(cumulant, files):
    ended = run(cumulant, files, "now.parquet", "--json")
    assert ended.code == 1, ended.err
    (one,) = ended.document["findings"]
    assert (one["feature"], one["kind"], one["what"], one["since"], one["active"]) == (
        "amount",
        "covariate",
        "shift",
        "2026-01-25",
        True,
    )
    assert [window["alarming"] for window in ended.document["windows"]] == [False] * 4 + [True] * 3
    assert [(part["column"], part["value"]) for part in one["segments"]] == [("place", "south")]
    assert ended.document["answers"] == ["score"]
    assert {skipped["name"] for skipped in ended.document["skipped"]} == {"key"}
    text = run(cumulant, files, "now.csv", "--time", "at", "--all").out
    for words in (
        "amount",
        "covariate",
        "2026-01-25",
        "2 of 7",
        "of the change is where place is south",
        "alarming: 3 of 7 windows",
        "next: add --out drift.html for charts",
    ):
        assert words in text
    assert "independent" not in text


def test_values_do_not_steer_the_terminal(cumulant, files):
    for name in ("before", "now"):
        rows = pl.read_parquet(files / f"{name}.parquet").rename({"place": "pla\x1bce"})
        rows.with_columns(pl.col("pla\x1bce").str.replace("south", "\x1b[2Jsouth")).write_parquet(
            files / f"{name}2.parquet"
        )
    ended = run(cumulant, files, "now2.parquet", before="before2.parquet")
    assert "[2Jsouth" in ended.out
    assert "\x1b" not in ended.out


def test_a_window_ahead_of_time_is_not_what_all_columns_are_asked_about(cumulant, files):
    now = pl.read_parquet(files / "now.parquet")
    ahead = now.tail(1).with_columns(at=pl.lit(datetime(2031, 1, 1)))
    pl.concat([now, ahead]).write_parquet(files / "jumped.parquet")
    words = ("--joint", "--json", "--columns", "amount,place")
    plain, jumped = (run(cumulant, files, name, *words).document["joint"] for name in ("now.parquet", "jumped.parquet"))
    assert jumped == plain


def test_nothing_moved_is_exit_0(cumulant, files):
    ended = run(cumulant, files, "calm.parquet")
    assert (ended.code, "nothing is alarming" in ended.out) == (0, True), ended.err
    assert (
        "1,000 rows in 5 windows by at (2026-01-21 to 2026-01-25) against 4,000 rows of the reference, 3 columns"
        in ended.out
    )
    typo = run(cumulant, files, "calm.parquet", "--ignore", "amuont,score", "--joint")
    assert "no such column, though the settings name it: amuont" in typo.out
    assert "separable by all features together: AUC 0." in typo.out
    whole = run(cumulant, files, "calm.parquet", "--windows", "1", "--columns", "amount", "--json").document
    assert ([one["rows"] for one in whole["windows"]], len(whole["columns"]), whole["looks"]) == ([1000], 2, 1)


def test_labels_are_joined_by_what_they_have_in_common(cumulant, files):
    now = pl.read_parquet(files / "now.parquet")
    before = pl.read_parquet(files / "before.parquet")
    before.with_columns(paid=pl.col("score") > 0.5).write_parquet(files / "labelled.parquet")
    labels = now.select(
        "key", paid=pl.col("score") > pl.when(pl.col("at") < datetime(2026, 1, 25)).then(0.5).otherwise(0.1)
    )
    pl.concat([labels.head(1200), labels.head(5)]).write_csv(files / "labels.csv")
    ended = run(
        cumulant, files, "now.parquet", "--labels", str(files / "labels.csv"), "--json", before="labelled.parquet"
    )
    found = {one["feature"]: one for one in ended.document["findings"]}
    assert (ended.document["labelled"], ended.document["label"]) == (1200, "paid")
    assert (found["paid"]["kind"], found["paid"]["role"], found["paid"]["since"]) == ("prior", "label", "2026-01-25")
    assert "missing" not in {one["what"] for one in found.values()}
    pl.DataFrame({"a": [1], "b": [2]}).write_csv(files / "other.csv")
    nothing = run(cumulant, files, "now.parquet", "--labels", str(files / "other.csv"))
    assert (nothing.code, "does not show which column is the label" in nothing.err) == (2, True)
    nothing = run(cumulant, files, "now.parquet", "--labels", str(files / "other.csv"), "--label", "b")
    assert (nothing.code, "no column in common" in nothing.err) == (2, True)


def test_labels_find_their_row_by_the_key_alone(cumulant, files):
    """The file repeats a feature, which somebody has rounded."""
    now = pl.read_parquet(files / "now.parquet")
    said = now.select("key", pl.col("amount").round(1), "place", paid=pl.col("score") > 0.5)
    said.write_csv(files / "labels.csv")
    words = ("now.parquet", "--labels", str(files / "labels.csv"))
    ended = run(cumulant, files, *words)
    assert "1,400 rows have a label (paid), found by key" in ended.out
    document = run(cumulant, files, *words, "--json").document
    assert (document["labelled"], document["label_key"]) == (1400, ["key"])
    both = run(cumulant, files, *words, "--key", "key,place", "--json").document
    assert (both["labelled"], both["label_key"]) == (1400, ["key", "place"])
    none = run(cumulant, files, *words, "--key", "key,amount")
    assert (none.code, "none of the 1,400 labels" in none.err, "--key" in none.err) == (2, True, True)
    slip = run(cumulant, files, *words, "--key", "kee")
    assert (slip.code, "no column kee" in slip.err, 'did you mean "key"?' in slip.err) == (2, True, True)


def test_times_as_text_make_windows_and_a_key_is_not_missed_in_the_reference(cumulant, files):
    for name in ("before", "calm"):
        frame = pl.read_parquet(files / f"{name}.parquet").rename({"at": "when"})
        frame = frame.with_columns(key="k" + pl.col("key").cast(pl.String))
        frame.with_columns(when=pl.col("when").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).write_csv(files / f"{name}.csv")
        frame.with_columns(when=pl.col("when").dt.strftime("%d.%m.%Y %H:%M")).write_csv(files / f"{name}_odd.csv")
    pl.read_csv(files / "before.csv").drop("key").write_csv(files / "before.csv")
    ended = run(cumulant, files, "calm.csv", before="before.csv")
    assert "in 5 windows by when (2026-01-21 to 2026-01-25) against 4,000 rows" in ended.out
    assert "not in the reference" not in ended.out
    assert run(cumulant, files, "calm.csv", "--json", before="before.csv").document["only_here"] == []
    odd = run(cumulant, files, "calm_odd.csv", "--time", "when", before="before_odd.csv")
    assert (odd.code, "column when holds no times" in odd.err, "ISO 8601" in odd.err) == (2, True, True)


def test_the_log_of_a_project_is_watched_by_its_settings_and_reported(cumulant, project, tmp_path):
    def logged(name, days, start, missing):
        frame = table(days, start=start, missing=missing, size=80).with_columns(key="k" + pl.col("key").cast(pl.String))
        frame.with_columns(at=pl.col("at").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).write_csv(tmp_path / name)
        words = ("labels", "import-predictions", str(tmp_path / name), "--map", "id=key,time=at,score=score")
        ended = cumulant(*words, "--project", str(project))
        assert ended.code == 0, ended.err

    logged("a.csv", 4, 20, 0.0)
    logged("b.csv", 2, 24, 0.3)
    table(20, start=0, size=80).write_parquet(tmp_path / "before.parquet")
    words = ("monitor", "run", "--reference", str(tmp_path / "before.parquet"), "--project", str(project))
    ended = cumulant(*words, "--json")
    assert ended.code == 1, ended.err
    (one,) = ended.document["findings"]
    assert (one["feature"], one["what"], one["kind"], one["since"]) == ("amount", "missing", "data_fault", "2026-01-25")
    assert one["says"].endswith("% missing")
    assert ended.document["answers"] == ["answer.score"]
    events = cumulant("events", "list", "--project", str(project), "--json").document
    (fact,) = [event["data"] for event in events if event["kind"] == "monitoring.drift_evaluated"]
    assert (fact["windows"], fact["alarming"], fact["alarms"][0]["feature"]) == (6, 2, "amount")
    (alert,) = cumulant("alerts", "list", "--project", str(project), "--json").document["alerts"]
    assert (alert["rule"], alert["subject"], alert["status"]) == ("data_fault", "amount", "firing")
    assert alert["since"].startswith("2026-01-25")
    # A look at less sees less, and alters no alert.
    for less in ("--columns place", "--ignore amount", "--until 2026-01-23", "--windows 1 --columns place"):
        assert cumulant(*words, *less.split()).code == 0
        assert cumulant("alerts", "list", "--project", str(project), "--json").document["alerts"] == [alert]
    assert f"next: cumulant alerts list --project {project}; add --out" in cumulant(*words).out
    (project / "cumulant.yaml").write_text(
        (project / "cumulant.yaml").read_text() + "\nmonitoring: {drift: {ignore: [amount]}}\n"
    )
    assert cumulant(*words).code == 0


def test_a_few_requests_that_carry_the_target_are_no_fault(cumulant, project, tmp_path):
    for name, start in (("before", 0), ("now", 20)):
        frame = table(20 if name == "before" else 4, start=start, size=80).with_columns(bought=pl.lit("yes"))
        if name == "before":
            frame.write_parquet(tmp_path / "before.parquet")
            continue
        few = pl.when(pl.int_range(pl.len()) % 20 == 0).then("bought")
        texts = frame.with_columns(few, at=pl.col("at").dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
        texts.with_columns(key="k" + pl.col("key").cast(pl.String)).write_csv(tmp_path / "now.csv")
    words = ("labels", "import-predictions", str(tmp_path / "now.csv"), "--map", "id=key,time=at,score=score")
    assert cumulant(*words, "--project", str(project)).code == 0
    words = ("monitor", "run", "--reference", str(tmp_path / "before.parquet"), "--project", str(project))
    ended = cumulant(*words, "--json")
    assert (ended.code, ended.document["findings"]) == (0, []), ended.out
    assert "bought (it is of the target" in cumulant(*words).out
    assert cumulant(*words, "--columns", "bought").code == 1


WRONG = {
    "nothing is at": "nowhere.parquet",
    "column amount holds no times": "now.parquet --time amount",
    "no column ta": "now.parquet --time ta",
    "no column amonut": "now.parquet --columns amonut",
    "is not a duration": "now.parquet --window soon",
    "at once": "now.parquet --window 1d --windows 3",
    "cannot be read": "broken.parquet",
    "has no rows": "empty.csv",
    "no column in common": "other.csv",
    "its name does not show its format": "rows.xml",
}


@pytest.mark.parametrize("says", WRONG)
def test_what_is_wrong_is_said(cumulant, files, says):
    (files / "broken.parquet").write_bytes(b"PAR1 and no more")
    (files / "empty.csv").write_text("amount,place\n")
    (files / "other.csv").write_text("x,y\n1,2\n")
    (files / "rows.xml").write_text("<rows/>")
    ended = run(cumulant, files, *WRONG[says].split())
    assert ended.code == 2, ended.out
    assert says in ended.err


def test_a_project_without_a_log_says_so(cumulant, project, files):
    ended = cumulant("monitor", "run", "--reference", str(files / "before.parquet"), "--project", str(project))
    assert (ended.code, "no prediction log yet" in ended.err) == (2, True)
