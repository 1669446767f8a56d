"""The demo's folder: the template's project, with what makes a year of it pass in minutes, and the year's result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

import cumulant
from cumulant.core.errors import UsageError
from cumulant.core.system.atomic_files import replace_file
from cumulant.core.system.json_files import read_json
from cumulant.demo.folder_lock import alone_in
from cumulant.demo.report import Year
from cumulant.demo.weather_feed import deliver_again, withhold

#: from when on the weather has still to come
FEED = datetime(2013, 7, 24, tzinfo=UTC)
_STATE, _BEGUN, _YEAR = ".cumulant", "demo-begun", "demo-year.json"
_LOCAL = "local"

#: what the demo's project changes of the template
_CHANGES = {
    "path: data/weather.parquet": """\
path: data/weather-*.parquet
    missing_files: 100%                 # a demo that is run again begins before the last of them""",
    "    event_time: time_hour\nfeatures:": """\
    event_time: time_hour
    rules:
      temp: {nulls: 0}                  # rows without it go to quarantine
      wind_speed: {nulls: 0}
    quarantine: 0.2%
features:""",
    "training:\n": """\
training:
  trainers: [naive, lightgbm]           # the demo is to take minutes, and to be the same everywhere;
  trials: 2                             # left out: also logistic regression, 30 trials, a minute
  time: null
  folds: 3
""",
    "    calibration_error: {max: 0.05}\n": """\
    calibration_error: {max: 0.12}      # of three weeks: storms come and go, and no training knows of the next
    log_loss: {margin: 0.03}
    cost: {margin: 0.15}                # of three weeks: a day's storm decides over many flights at once
""",
}
_SECTIONS = """
release:                                # stages of seconds: the demo's callers do a month in two minutes
  key: tailnum                          # a plane stays on one version
  look: 500ms
  block: 500ms
  keep_warm: 1m
  evaluation: null                      # labelled past rows would refuse the bad candidate before its release
  warm_up: 1s                           # default 60s
  alpha: 15%                            # so many sound releases may be rolled back, to take minutes; default 5%
  stages:
    # Flights of one day depend on each other: a share of more days says more than all of a few. Here a day is 3.6 s.
    shadow: {mirror: 30%, at_least: 20s, at_most: 120s, samples: 500}
    ab: null
    canary: {weights: [10%, 50%], at_least: 8s, soak: 5s, at_most: 90s, samples: 150, mirror: 30%}
  metrics:
    errors: {margin: 1%, share: 3}
    timeouts: {margin: 2%, share: 0.5}
    # Servers, gateway and callers share a laptop: harm rolls back, and no promotion waits for proof of its absence.
    latency: {margin: 100%, required: false}
    # A month of new flights changes one decision in seven; the default allows one in five.
    disagreement: {margin: 25%}
    # Of the Brier score, on mirrored flights that have landed; half a day is one value. Days differ by more than 0.01.
    quality: {margin: 0.03, required: true, block: 1800ms, share: 3}

serving:
  queue: 250ms                          # a dozen callers share the cores with what they call; default 40ms
  log: {keep: 20000d}                   # the year is 2013, and old predictions are removed else

monitoring:
  drift: {ignore: [tailnum]}            # planes come and go
  # Eager: a fifth of sound years may alarm, and days count as independent, so that three weeks of July are enough.
  performance: {margin: 0%, false_alarms: 20%, refit: 14d, independent: true, reference_calibration: false}
  retrain: {when: loss_confirmed}       # released by itself; at most twice a month
  review: {budget: 5/day, second: 0%}   # flights with unknown outcome, one reviewer each
"""


def make_folder(folder: Path) -> None:
    """Create the demo's project unless it exists.

    Raises:
        UsageError: the folder holds another project, or the demo of an earlier version.
    """
    path = folder / "cumulant.yaml"
    if not path.exists():
        cumulant.new_from_template("flights", name=folder.name, directory=folder.parent)
        withhold(folder / "data", FEED)
        path.write_text(_declared(path.read_text(encoding="utf-8")), encoding="utf-8")
    elif _SECTIONS.splitlines()[1] not in path.read_text(encoding="utf-8"):
        raise UsageError(
            f"{folder} holds a project that is not this demo's",
            subject=str(path),
            hint="name another folder with --dir; a demo of an earlier version cannot be continued",
        )


def _declared(text: str) -> str:
    for old, new in _CHANGES.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text.rstrip() + "\n" + _SECTIONS


def _marker(folder: Path) -> Path:
    return folder / _STATE / _BEGUN


def mark_begun(folder: Path) -> None:
    """Record that the year begins: until `mark_ended`, the state is that of half a year."""
    _marker(folder).parent.mkdir(exist_ok=True)
    _marker(folder).touch()


def mark_ended(folder: Path) -> None:
    _marker(folder).unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, env: str) -> Iterator[None]:
    """No other demo runs in the folder within the block; the state of an interrupted one is moved aside.

    Raises:
        LeaseHeldError: another one runs.
        UsageError: an interrupted one had its state on servers.
    """
    with alone_in(folder):
        if _marker(folder).exists() and env != _LOCAL:
            hint = "begin with new stores and another folder: here they hold half a year"
            raise UsageError("an interrupted demo of this environment cannot be continued", subject=env, hint=hint)
        if _marker(folder).exists():
            with cumulant.open(folder, env=env) as project:
                project.stack.down()
            deliver_again(folder / "data", FEED)
            (folder / _STATE).rename(folder / f".cumulant-cut-off-{datetime.now(UTC):%Y%m%dT%H%M%S}")
        elif not any((folder / "data").glob("weather-*.parquet")):  # interrupted between the files
            deliver_again(folder / "data", FEED)
        yield


class StoredYear(msgspec.Struct, frozen=True, kw_only=True):
    """The year of these versions, the first champion first."""

    versions: tuple[str, ...]
    year: Year


def has_year(folder: Path) -> bool:
    """Whether a demo came to its end here."""
    return (folder / _STATE / _YEAR).exists()


def stored_year(folder: Path, versions: Sequence[str], make: Callable[[], Year]) -> Year:
    """The stored year of these versions, else that which `make` returns, stored from then on.

    Raises:
        UsageError: the year of other versions is stored.
    """
    path = folder / _STATE / _YEAR
    stored = read_json(path, StoredYear)
    if stored is None:
        stored = StoredYear(versions=tuple(versions), year=make())
        replace_file(path, msgspec.json.encode(stored), durable=False)
    elif stored.versions != tuple(versions):
        raise UsageError(
            f"the demo's year is that of {', '.join(stored.versions)}, and now there are {', '.join(versions)}",
            subject=str(path),
            hint="name another folder with --dir, or remove this one",
        )
    return stored.year
