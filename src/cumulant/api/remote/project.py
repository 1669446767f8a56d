"""`RemoteProject`: a project on a server, with the methods that a local `Project` has."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from cumulant.api import views
from cumulant.api.display import Listing, ResultView
from cumulant.api.errors import RowWarning, short_methods
from cumulant.api.progress import notebook_progress
from cumulant.api.remote.groups import (
    RemoteFeatureStore,
    RemoteMonitoring,
    RemoteOutcomes,
    RemoteReleases,
    RemoteReviews,
    RemoteStack,
    RemoteSubjects,
)
from cumulant.api.remote.local_only import missing_method
from cumulant.core.errors import UsageError
from cumulant.core.units import moment
from cumulant.server.client.caller import report_content
from cumulant.server.client.http_api import HttpApi
from cumulant.server.model_uri import split_uri

if TYPE_CHECKING:
    import polars as pl

    from cumulant.api.views import TrainingView
    from cumulant.core.events import Event
    from cumulant.core.progress import Progress
    from cumulant.flows.ledger.ledger_records import RunRecord
    from cumulant.flows.maintenance.unneeded_files import Removed
    from cumulant.flows.reports.content import ReportData
    from cumulant.ports.registry import ModelVersion
    from cumulant.server.operations.training import TrainedVersion

#: `warnings.warn` counts the method, the wrapper of `short_methods`, then the user's line
_CALLER = 3
#: rows of a table that one request returns at most
_MOST_ROWS = 1_000


@short_methods
class RemoteProject:
    """A project on a server.

    Methods have the names, parameters and results of a local `Project`. Long ones run as jobs of the server and are
    followed; an interrupt cancels them. `stack`, `releases`, `outcomes`, `monitoring`, `reviews` and `subjects` hold
    further methods; what works on files and processes of the project's machine is not there.
    """

    def __init__(
        self, http: HttpApi, *, follow: Callable[[str], AbstractContextManager[Progress]] | None = None
    ) -> None:
        self.http = http
        self._follow = follow or notebook_progress
        self.stack = RemoteStack(http, self._follow)
        self.releases = RemoteReleases(http, self._follow)
        self.outcomes = RemoteOutcomes(http, self._follow)
        self.monitoring = RemoteMonitoring(http, self._follow)
        self.reviews = RemoteReviews(http, self._follow)
        self.subjects = RemoteSubjects(http, self._follow)
        self.feature_store = RemoteFeatureStore(http, self._follow)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "http" not in vars(self):
            raise AttributeError(name)
        raise missing_method("", name, url=self.http.url)

    def __repr__(self) -> str:
        return f"Project {self.name} at {self.http.url}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    @property
    def name(self) -> str:
        """The name of the project and of its model."""
        return self.http.project

    @property
    def env(self) -> str:
        """The name of the environment that the server runs the project in."""
        return self.http.environment()

    def plan(self) -> ResultView[Any]:
        """What would run, checked."""
        return views.plan(self.http.call("project.plan"))

    def validate(self, *sources: str, force: bool = False) -> ResultView[Any]:
        """Read, check and store what is new of the named sources (default: all)."""
        from cumulant.flows.data.validate import Validation

        validated = self._followed("validate", "data.validate", sources=list(sources), force=force)
        return views.validation(Validation(run=validated.run, snapshots=validated.snapshots, reused=validated.reused))

    def quarantine(self, source: str, *, limit: int | None = None) -> pl.DataFrame:
        """Refused rows with the rule that refused each, at most 1,000; personal columns as keyed hashes."""
        return self._frame(
            self.http.call("data.quarantine", source=source, limit=_MOST_ROWS if limit is None else limit)
        )

    def preview(self, source: str, *, rows: int = 10) -> pl.DataFrame:
        """The first accepted rows of a source; personal columns as keyed hashes."""
        return self._frame(self.http.call("data.rows", source=source, limit=rows))

    def clean(self, *, dry_run: bool = True) -> Listing[Removed]:
        """What no kept snapshot, model or recent run needs; removed with `dry_run=False`."""
        removed = self._followed("clean", "maintenance.clean", dry_run=dry_run)
        return Listing(removed, ("what", "kind", "bytes"), lambda item: (item.key, item.kind, item.bytes))

    def features(self, *, as_of: datetime | str | None = None, limit: int | None = None) -> pl.DataFrame:
        """The first rows of the feature table, at most 1,000; features that show a personal value as keyed hashes."""
        import polars as pl

        rows = _MOST_ROWS if limit is None else limit
        computed = self._followed("features", "features.values", rows=rows, as_of=_moment(as_of))
        frame = pl.DataFrame(computed.values, schema=computed.columns, infer_schema_length=None)
        return frame.drop("__row", strict=False)

    def train(
        self,
        *,
        quick: bool = False,
        as_of: datetime | str | None = None,
        trials: int | None = None,
        time: str | None = None,
        promote: bool = True,
    ) -> TrainingView[TrainedVersion]:
        """From the sources to a registered version. `.page` of the result is the content of its report.

        A gate that refuses raises nothing: see `.verdict`.
        """
        trained: TrainedVersion = self._followed(
            "train",
            "training.train",
            quick=quick,
            as_of=_moment(as_of),
            trials=trials,
            time=time,
            promote=promote,
        )
        return views.training(trained, self.http.call("runs.report", run=trained.run))

    def evaluate(self, model: str | None = None, **options: Any) -> TrainingView[Any]:
        """Score a registered version on later rows and apply the gate; default: the newest version."""
        name, version = self._split(model)
        result = self._followed("evaluate", "training.evaluate", model=name, version=version, **options)
        return views.training(result, self.http.call("runs.report", run=result.run))

    def predict(
        self,
        rows: object,
        *,
        model: str | None = None,
        url: str | None = None,
        as_of: datetime | str | None = None,
        features: bool = False,
    ) -> Any:
        """Answers for the rows of a table (Polars, pandas, PyArrow) or of a list of dicts, in their order.

        Returns a pandas frame for a pandas frame, else a Polars frame; the rows are sent as one request, of at most
        1 MiB. Each check that rows fail raises a `RowWarning` that counts them.

        Raises:
            UsageError: `url` is given: a server of models is called from here, not by the API's; or `features`, which
                answers of the API are without.
        """
        from cumulant.api.project import is_pandas, row_frame

        if url is not None:
            raise UsageError(
                "the server of a project calls no other", subject="url", hint="`cumulant predict --url URL`"
            )
        if features:
            raise UsageError(
                "answers of the API are without features",
                subject="features",
                hint="`cumulant.open(DIR)` on its machine",
            )
        name, version = self._split(model)
        sent = msgspec.to_builtins(row_frame(rows).to_dicts())
        answered = self._followed(
            "predict", "training.predict", model=name, version=version, rows=sent, as_of=_moment(as_of)
        )
        for text in answered.warnings:
            warnings.warn(text, RowWarning, stacklevel=_CALLER)
        frame = self._frame(answered)
        return frame.to_pandas() if is_pandas(rows) else frame

    def models(self, name: str | None = None) -> Listing[ModelVersion]:
        """Every registered version, newest first."""
        versions = list(self.http.pages("models.list", name=name or ""))
        columns = ("model", "version", "aliases", "registered", "uri")
        return Listing(versions, columns, lambda item: (item.name, item.version, item.aliases, item.created, item.uri))

    def model(self, uri: str | None = None) -> ResultView[Any]:
        """One version with its figures and the request that it expects: NAME, NAME/3 or NAME@champion."""
        from cumulant.server.client.model_detail import detail_of

        name, version = self._split(uri)
        return views.model(detail_of(self.http.call("models.show", model=name, version=version)))

    def alias(self, model: str, alias: str, *, reason: str | None = None) -> ModelVersion:
        """Point an alias at a version."""
        name, version = self._split(model)
        pointed: ModelVersion = self.http.call("models.alias", model=name, version=version, alias=alias, reason=reason)
        return pointed

    def tag(self, model: str, **tags: str | None) -> ModelVersion:
        """Set tags of a version; None removes one."""
        name, version = self._split(model)
        tagged: ModelVersion = self.http.call("models.tag", model=name, version=version, tags=tags)
        return tagged

    def reproduce(self, model: str | None = None) -> ResultView[Any]:
        """Train a version again from its recorded snapshots; `.identical`, or `.differences`."""
        name, version = self._split(model)
        return views.reproduction(self._followed("reproduce", "training.reproduce", model=name, version=version))

    def report(self, target: str = "latest", *, out: Path | str | None = None) -> ResultView[ReportData]:
        """The report of a run or model, shown here; with `out`, also written (.html, .md, .json)."""
        from cumulant.flows.reports.report import check_format, write_report

        if out is not None:
            check_format(Path(out))
        page = report_content(self.http, target)
        if out is not None:
            write_report(page, Path(out))
        return views.report(page)

    def lineage(self, model: str | None = None) -> ResultView[Any]:
        """Where a version comes from: snapshots, source files, features, code, settings, environment."""
        name, version = self._split(model)
        return views.lineage(self.http.call("models.lineage", model=name, version=version))

    def runs(self, flow: str | None = None) -> Listing[RunRecord]:
        """Runs, newest first."""
        return views.runs(list(self.http.pages("runs.list", flow=flow or "", limit=_MOST_ROWS)))

    def events(self, *, run: str | None = None, kinds: Sequence[str] = ()) -> Listing[Event]:
        """The project's events, oldest first."""
        newest = list(self.http.pages("events.list", run=run or "", kind=tuple(kinds), limit=_MOST_ROWS))
        return views.events(newest[::-1])

    def follow_events(self, *, after: int | None = None, kinds: tuple[str, ...] = ()) -> Iterator[Event]:
        """Events as they happen, for ever, each once."""
        return self.http.events(after=after, kinds=kinds)

    def _followed(self, title: str, operation: str, **arguments: Any) -> Any:
        with self._follow(title) as progress:
            return self.http.call(operation, progress=progress, **arguments)

    def _split(self, uri: str | None) -> tuple[str, str]:
        return split_uri(uri or self.name)

    def _frame(self, answered: Any) -> pl.DataFrame:
        import polars as pl

        return pl.DataFrame(answered.rows, schema=answered.columns, infer_schema_length=None)


def _moment(value: datetime | str | None) -> datetime | None:
    return moment(value) if isinstance(value, str) else value
