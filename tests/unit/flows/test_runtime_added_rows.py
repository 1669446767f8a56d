"""A project that gets rows day by day: what they change is computed, and the table is bit for bit the full one."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from added_rows_kill import FEATURES_TABLES

from cumulant.cli.app import run as command
from cumulant.flows.data.validate import load_snapshot
from cumulant.flows.features.feature_table import FeatureSet, featurize, scans, store_features
from cumulant.flows.features.task import resolve_task
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load
from cumulant.project.project import Project

pytestmark = pytest.mark.slow

ME = Principal("tester")
PROJECT = """version: 1
model: {name: days}
data:
  tx:
    path: tx/*.csv
    key: id
    event_time: {column: at, zone: Europe/Paris}
    known_time: {done: [result], 2h: [label]}
  rates: {path: rates/*.csv, key: [card, since], event_time: {column: since, zone: UTC}}
training: {target: label, predict_at: at, trainers: [naive]}
"""
FEATURES = """from cumulant.features import col, source
tx, rates = source("tx"), source("rates")
own = tx.columns("amount")
hour = col("at").dt.hour("Asia/Kathmandu")
card = tx.by("card")
n, total = card.count(window=["1h", "2d"]), card.sum("amount", window=["3h", "2d"])
top, last = card.max("amount", window="2d"), card.last("shop", window="2d")
shops = tx.by("card", "shop").distinct("amount", window="1d")
late = tx.by("shop").mean("result", window=["1d", "4d"])
rate = rates.as_of("card").columns("rate")
near = rates.as_of("card", within="12h").columns("since")
share = col("amount") / total["3h"]
"""
WITHOUT_CARD = FEATURES.replace('own = tx.columns("amount")', 'own = tx.columns("amount", "shop")')
TX, RATES = "id,card,shop,at,amount,label,done,result\n", "card,since,rate\n"
START = datetime(2024, 3, 25)  # clocks change on day 6
DAYS, ROWS = 20, 40


def day(number: int, *, cards: int = 6, of: int | None = None) -> str:
    """Rows of a day, some of which ended days later; `of`: they are of another day."""
    rng, lines = random.Random(number), []
    for place in range(ROWS):
        at = START + timedelta(days=number if of is None else of, minutes=10 * rng.randrange(144))
        done = at + timedelta(minutes=rng.choice([0, 10, 600, 3000]))
        card = rng.choice(["", "new" if number > 15 else "c0", *(f"c{one}" for one in range(cards))])
        amount = rng.choice(["", "0.1", "-0.0", "1e16", "-3.7", f"{rng.random():.4f}"])
        result = rng.choice(["", f"{rng.gauss(0, 1):.3f}"])
        shop = rng.choice(["", "a", "b"])
        known = "" if rng.random() < 0.1 else f"{done:%Y-%m-%dT%H:%M}"
        lines.append(
            f"{number * ROWS + place},{card},{shop},{at:%Y-%m-%dT%H:%M},{amount},{place % 2},{known},{result}\n"
        )
    return TX + "".join(lines)


def rate(number: int) -> str:
    rng = random.Random(-number)
    hours = rng.sample(range(24), 3)
    lines = (f"c{rng.randrange(4)},{START + timedelta(days=number, hours=hour)},{rng.random():.3f}\n" for hour in hours)
    return RATES + "".join(lines)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "tx").mkdir()
    (tmp_path / "rates").mkdir()
    (tmp_path / "cumulant.yaml").write_text(PROJECT, encoding="utf-8")
    (tmp_path / "features.py").write_text(FEATURES, encoding="utf-8")
    for number in range(DAYS):
        deliver(tmp_path, number)
    return load(tmp_path)


def deliver(root: Path, number: int) -> None:
    (root / f"tx/day-{number:03}.csv").write_text(day(number), encoding="utf-8")
    (root / f"rates/day-{number:03}.csv").write_text(rate(number), encoding="utf-8")


def bits(frame: pl.DataFrame) -> list[tuple[object, ...]]:
    return frame.select(pl.col(pl.Float64).map_elements(float.hex, pl.String), pl.exclude(pl.Float64)).rows()


def checked(project: Project, as_of: datetime | None = None) -> FeatureSet:
    """The feature table, which is that of a full computation."""
    found, tables = featurize(project, principal=ME, as_of=as_of), project.tables()
    snapshots = {name: load_snapshot(project, identity) for name, identity in found.sources.items()}
    plan = resolve_task(project, snapshots).plan
    whole = store_features(project, f"check/{found.run}", plan, scans(project, snapshots, found.sources, as_of=as_of))
    mine, right = tables.scan(found.table).collect(), tables.scan(whole).collect()
    assert mine.schema == right.schema
    assert bits(mine) == bits(right)
    return found


def test_a_day_added_is_computed_with_what_it_changes_and_day_by_day(project: Project) -> None:
    first = checked(project)
    assert (first.computed, first.computed_of) == (first.rows, None)
    for number in range(DAYS, DAYS + 14):  # parts of 16 days and more are packed on the way
        deliver(project.root, number)
        # what is wrong once stays in the tables of later days
        found = (checked if number % 4 == 1 else partial(featurize, principal=ME))(project)
        assert found.rows > first.rows + (number - DAYS) * ROWS
        # Rows of the day, and those before that a rate or a result of the day came late for: all of the last days.
        assert ROWS <= found.computed < 5 * ROWS
        assert found.computed_of == f"{found.computed:,} of {found.rows:,} rows computed, the others stored"
    again = checked(project)
    assert (again.reused, again.rows_computed, again.computed_of) == (True, 0, None)


def test_late_rows_change_earlier_ones_wherever_their_file_stands(project: Project) -> None:
    checked(project)
    (project.root / "tx/a-late.csv").write_text(day(50, of=3, cards=1), encoding="utf-8")
    found = checked(project)
    assert ROWS < found.computed < found.rows
    (project.root / "tx/day-007-more.csv").write_text(day(51, of=19, cards=1), encoding="utf-8")
    found = checked(project)
    assert ROWS <= found.computed < found.rows
    with (project.root / "tx/day-019.csv").open("a") as file:  # rows appended to a file
        file.write(day(52).removeprefix(TX))
    found = checked(project)
    assert ROWS <= found.computed < found.rows


def correct(root: Path) -> None:
    path = root / "tx/day-004.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:5], lines[5].replace(",", ",c1,", 1).replace(",c1,c", ",c1,", 1), *lines[6:]]))
    path.write_text(path.read_text().replace("e16", "e15"))


def remove_day(root: Path) -> None:
    (root / "tx/day-002.csv").unlink()


def define_otherwise(root: Path) -> None:
    (root / "features.py").write_text(WITHOUT_CARD)


def read_otherwise(root: Path) -> None:
    (root / "cumulant.yaml").write_text(PROJECT.replace("Europe/Paris", "America/New_York"))


@pytest.mark.parametrize("change", [correct, remove_day, define_otherwise, read_otherwise])
def test_what_is_not_only_added_is_computed_as_a_whole(project: Project, change: Callable[[Path], None]) -> None:
    featurize(project, principal=ME)
    deliver(project.root, DAYS)
    change(project.root)
    found = checked(load(project.root))
    assert found.computed == found.rows


def test_corrected_rows_are_computed_as_a_whole(project: Project) -> None:
    text = PROJECT.replace("key: id\n", "key: id\n    on_repeat: latest\n")
    (project.root / "cumulant.yaml").write_text(text)
    loaded = load(project.root)
    featurize(loaded, principal=ME)
    (project.root / "tx/day-021.csv").write_text(day(3).replace("e16", "e15"))
    found = checked(loaded)
    assert found.computed == found.rows


def test_tables_of_another_moment_are_of_no_use_and_of_the_same_they_are(project: Project) -> None:
    checked(project)
    then = (START + timedelta(days=18)).replace(tzinfo=UTC)
    found = checked(project, then)
    assert found.computed == found.rows
    (project.root / "tx/late.csv").write_text(day(50, of=3, cards=1))
    found = checked(project, then)
    assert ROWS < found.computed < found.rows


def flipped(content: bytes) -> bytes:
    place = len(content) // 3
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("damaged", [lambda _: b"", flipped])
def test_a_table_of_which_a_file_is_damaged_is_not_used(project: Project, damaged: Callable[[bytes], bytes]) -> None:
    """Also where its values can still be read: they would be in every later table."""
    found = featurize(project, principal=ME)
    for path in (project.state / "tables" / project.scope.folder / f"{found.table.key}.parquet").glob("part*"):
        path.write_bytes(damaged(path.read_bytes()))
    deliver(project.root, DAYS)
    found = checked(project)
    assert found.computed == found.rows


def test_little_memory_gives_the_same_table(project: Project) -> None:
    (project.root / "cumulant.yaml").write_text(f"{PROJECT}resources: {{memory: 1MiB}}\n")
    loaded = load(project.root)
    checked(loaded)
    deliver(project.root, DAYS)
    found = checked(loaded)
    assert found.computed < found.rows


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_before_or_after_the_table_is_written_the_next_run_makes_it(project: Project, moment: str) -> None:
    first = checked(project)
    deliver(project.root, DAYS)
    worker = Path(__file__).with_name("added_rows_kill.py")
    done = subprocess.run([sys.executable, worker, project.root, moment], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    keys = project.tables().keys(FEATURES_TABLES)
    assert len(keys) == (1 if moment == "before" else 2)
    found = checked(project)
    assert not found.reused
    assert found.table != first.table
    assert found.computed < found.rows
    shutil.rmtree(project.state / "tables" / project.scope.folder / "check.parquet", ignore_errors=True)


def test_the_commands_say_how_many_rows_were_computed(
    project: Project, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    call = ["features", "get", "--project", str(project.root)]
    assert command(call) == 0
    assert "799 rows, " in capfd.readouterr().out
    deliver(project.root, DAYS)
    assert command(call) == 0
    said = capfd.readouterr().out
    assert " of 839 rows computed, the others stored" in said
    assert command([*call, "--json"]) == 0
    assert '"rows_computed": 0' in capfd.readouterr().out
    deliver(project.root, DAYS + 1)
    command(["train", "--trials", "1", "--project", str(project.root)])
    assert " of 879 rows computed, the others stored" in capfd.readouterr().out
