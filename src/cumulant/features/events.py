"""Events of the package `features`."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from cumulant.core.events import Fact


class FeaturesComputed(Fact, frozen=True, kw_only=True):
    """A feature table was made: one row an entity row, each at its own prediction moment."""

    kind: ClassVar[str] = "features.computed"

    entity: str
    table: str
    rows: int
    #: the others are of an earlier table; None where that was not recorded
    rows_computed: int | None = None
    features: int
    #: source to snapshot
    sources: dict[str, str]
    as_of: datetime | None = None


class StateFilled(Fact, frozen=True, kw_only=True):
    """The online state was replaced as a whole."""

    kind: ClassVar[str] = "features.state_filled"

    table: str
    generation: str
    rows: int
    entities: int
    bytes: int
    as_of: datetime | None = None


class StateLost(Fact, frozen=True, kw_only=True):
    """The online store no longer had a table that served versions read; it is filled again from the data.

    Rows that were posted since, and that the data do not contain, are lost.
    """

    kind: ClassVar[str] = "features.state_lost"

    table: str
    versions: tuple[str, ...]


class KeyForgotten(Fact, frozen=True, kw_only=True):
    """What was posted of a key was deleted, and its entities were made again from the history."""

    kind: ClassVar[str] = "features.key_forgotten"

    table: str
    #: the columns of the key, not their values
    by: tuple[str, ...]
    rows: int
    entities: int


class FeatureJobStarted(Fact, frozen=True, kw_only=True):
    """A job of another engine computes features of streams; `resumed`: the checkpoint or savepoint that it goes on
    from; None: from the beginning of the topics. `adopted`: it ran already, and was not recorded.
    """

    kind: ClassVar[str] = "features.job_started"

    job: str
    name: str
    definition: str
    fingerprint: str
    resumed: str | None
    adopted: bool


class FeatureJobFault(Fact, frozen=True, kw_only=True):
    """A job that was started is in a condition in which it writes no results, or restarts again and again; `looping`:
    it is started again by Cumulant, and fails, again and again.
    """

    kind: ClassVar[str] = "features.job_fault"

    job: str
    name: str
    condition: str


class FeatureJobRecovered(Fact, frozen=True, kw_only=True):
    """A job that had a fault runs again; `job`: its id now."""

    kind: ClassVar[str] = "features.job_recovered"

    job: str
    name: str


class FeatureJobStopped(Fact, frozen=True, kw_only=True):
    """A job was stopped, or had ended; `savepoint`: the savepoint or checkpoint from which the same definition resumes;
    None: nothing says.
    """

    kind: ClassVar[str] = "features.job_stopped"

    job: str
    name: str
    savepoint: str | None
