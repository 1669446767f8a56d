"""`Project`: the commands as methods."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cumulant.api import views
from cumulant.api.display import Listing, ResultPage, ResultView, drop_empty
from cumulant.api.errors import RowWarning, short_methods
from cumulant.api.feature_store import ProjectFeatureStore
from cumulant.api.group import MethodGroup
from cumulant.api.monitoring import ProjectMonitoring, ProjectReviews
from cumulant.api.outcomes import ProjectOutcomes
from cumulant.api.progress import notebook_progress
from cumulant.api.server import Server
from cumulant.api.stack import ProjectReleases, ProjectStack
from cumulant.api.streams import ProjectStreams
from cumulant.api.subjects import ProjectSubjects
from cumulant.core.errors import MissingPartError
from cumulant.core.units import moment
from cumulant.flows.ledger.actions import check

if TYPE_CHECKING:
    import polars as pl

    from cumulant.api.views import TrainingView
    from cumulant.core.events import Event
    from cumulant.core.progress import Progress
    from cumulant.data.snapshot import Snapshot
    from cumulant.flows.ledger.ledger_records import RunRecord
    from cumulant.flows.maintenance.unneeded_files import Removed
    from cumulant.flows.reports.content import ReportData
    from cumulant.flows.training.train import TrainResult
    from cumulant.ports.registry import ModelVersion
    from cumulant.project.project import Project as Loaded

#: `warnings.warn` counts the method, the wrapper of `short_methods`, then the user's line
_CALLER = 3


@short_methods
class Project(MethodGroup):
    """A project in one environment.

    Every method first brings up to date what it needs, checks permission, and is recorded as a run, exactly as the
    command of the same name. `stack`, `releases`, `outcomes`, `monitoring` and `reviews` hold the methods of a project
    in production, `streams` those of topics, `subjects` those of personal data. `.loaded` is the project as flows take
    it.
    """

    def __init__(self, loaded: Loaded, *, assumptions: Sequence[str] = (), progress: Progress | None = None) -> None:
        super().__init__(loaded, notebook_progress if progress is None else lambda _: nullcontext(progress))
        self.loaded = loaded
        self.assumptions = tuple(assumptions)
        self.stack = ProjectStack(loaded, self._follow)
        self.releases = ProjectReleases(loaded, self._follow)
        self.outcomes = ProjectOutcomes(loaded, self._follow)
        self.monitoring = ProjectMonitoring(loaded, self._follow)
        self.reviews = ProjectReviews(loaded, self._follow)
        self.subjects = ProjectSubjects(loaded, self._follow)
        self.streams = ProjectStreams(loaded, self._follow)
        self.feature_store = ProjectFeatureStore(loaded, self._follow)

    def __repr__(self) -> str:
        name, where = self.loaded.name, self.loaded.root
        lines = [f"Project {name} in {where}, environment {self.loaded.environment}"]
        return "\n".join([*lines, *[f"  {line}" for line in self.assumptions]])

    def _repr_html_(self) -> str:
        rows: list[tuple[str, object]] = [
            ("folder", str(self.loaded.root)),
            ("environment", self.loaded.environment),
            ("owner", self.loaded.policies.model.owner),
            ("purpose", self.loaded.policies.model.purpose),
            *[("assumed" if index == 0 else "", line) for index, line in enumerate(self.assumptions)],
        ]
        return ResultPage(title=f"Project {self.loaded.name}", facts=drop_empty(rows)).render()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the clients; the next use opens them again."""
        self.loaded.close()

    @property
    def name(self) -> str:
        """The name of the project and of its model."""
        return self.loaded.name

    @property
    def env(self) -> str:
        """The name of the environment."""
        return self.loaded.environment

    @property
    def root(self) -> Path:
        """The folder of the project file."""
        return self.loaded.root

    @property
    def tracking_uri(self) -> str:
        """Where the registry keeps runs and versions, as MLflow takes it."""
        return self.loaded.registry().tracking_uri

    def plan(self) -> ResultView[Any]:
        """What would run, checked. Raises NotKnownYetError and the other errors of `cumulant plan`."""
        from cumulant.flows.project.planning import plan

        with self._follow("plan") as progress:
            return views.plan(plan(self.loaded, principal=self._principal, progress=progress))

    def validate(self, *sources: str, force: bool = False) -> ResultView[Any]:
        """Read, check and store what is new of the named sources (default: all).

        With `force` the content of every file is compared, where else one of the same size and time counts as
        unchanged.

        Raises:
            ContractBreachError: too many rows were refused; `quarantine(source)` shows them.
        """
        from cumulant.flows.data.validate import validate

        with self._follow("validate") as progress:
            validation = validate(
                self.loaded, principal=self._principal, sources=sources, force=force, progress=progress
            )
        return views.validation(validation)

    def quarantine(self, source: str, *, limit: int | None = None) -> pl.DataFrame:
        """Refused rows with the rule that refused each; personal columns as keyed hashes."""
        from cumulant.data.views import read_quarantine

        snapshot = self._snapshot(source, refused=True)
        return read_quarantine(snapshot, self.loaded.tables(), self.loaded.salt(), limit=limit)

    def preview(self, source: str, *, rows: int = 10) -> pl.DataFrame:
        """The first accepted rows of a source; personal columns as keyed hashes."""
        from cumulant.data.views import preview_rows

        return preview_rows(self._snapshot(source), self.loaded.tables(), self.loaded.salt(), rows=rows)

    def rows(self, source: str) -> pl.LazyFrame:
        """All accepted rows of a source, read when the frame is collected; personal columns as they are.

        Raises:
            NotFoundError: the source was not read yet.
        """
        from cumulant.data.snapshot import scan

        return scan(self._snapshot(source), self.loaded.tables())

    def _snapshot(self, source: str, *, refused: bool = False) -> Snapshot:
        """The newest accepted snapshot; where `refused`, one that was refused since then comes first."""
        from cumulant.flows.data.validate import required_snapshot

        action = "data.quarantine" if refused else "data.show"
        check(self.loaded, self._principal, action, personal=True)
        return required_snapshot(self.loaded, source, hint="call `.validate()`", refused=refused)

    def clean(self, *, dry_run: bool = True) -> Listing[Removed]:
        """What no kept snapshot, model or recent run needs; removed with `dry_run=False`."""
        from cumulant.flows.maintenance.cleanup import clean

        removed = clean(self.loaded, principal=self._principal, dry_run=dry_run)
        return Listing(removed, ("what", "kind", "bytes"), lambda item: (item.key, item.kind, item.bytes))

    def features(self, *, as_of: datetime | str | None = None, limit: int | None = None) -> pl.DataFrame:
        """The feature table, one row an entity row, in order; with `as_of`, as it would have been then.

        Values are as a model takes them, personal ones too: `cumulant features get` shows those as keyed hashes.
        """
        from cumulant.flows.features.feature_table import featurize

        with self._follow("features") as progress:
            built = featurize(self.loaded, principal=self._principal, as_of=_moment(as_of), progress=progress)
        rows = self.loaded.tables().scan(built.table)
        return (rows if limit is None else rows.head(limit)).drop("__row", strict=False).collect()

    def train(
        self,
        *,
        quick: bool = False,
        as_of: datetime | str | None = None,
        trials: int | None = None,
        time: str | None = None,
        promote: bool = True,
    ) -> TrainingView[TrainResult]:
        """From the sources to a registered version. `.page` of the result is the content of its report.

        A gate that refuses raises nothing: see `.verdict`. Without `promote` a version that passes becomes the
        candidate only; one that is refused gets no alias.
        """
        from cumulant.flows.reports.report import content
        from cumulant.flows.training.train import train

        with self._follow("train") as progress:
            result = train(
                self.loaded,
                principal=self._principal,
                quick=quick,
                as_of=_moment(as_of),
                trials=trials,
                time=time,
                promote=promote,
                progress=progress,
            )
        return views.training(result, content(self.loaded, result.run, principal=self._principal))

    def evaluate(self, model: str | None = None, **options: Any) -> TrainingView[Any]:
        """Score a registered version on later rows and apply the gate; default: the newest version."""
        from cumulant.flows.reports.report import content
        from cumulant.flows.training.evaluate import evaluate

        with self._follow("evaluate") as progress:
            result = evaluate(self.loaded, model or self.name, principal=self._principal, progress=progress, **options)
        return views.training(result, content(self.loaded, result.run, principal=self._principal))

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

        Returns a pandas frame for a pandas frame, else a Polars frame. Each check that rows fail, such as a rule of
        the data contract, raises a `RowWarning` that counts them; none with `url`, where the server answers. With
        `features` the column `features` holds what each answer was computed from, which a server does not send.
        """
        from cumulant.flows.serving.predict import predict

        failed: list[str] = []
        with self._follow("predict") as progress:
            answers = predict(
                self.loaded,
                model or self.name,
                row_frame(rows),
                principal=self._principal,
                url=url,
                as_of=_moment(as_of),
                features=features,
                warnings=failed,
                progress=progress,
            )
        for text in failed:
            warnings.warn(text, RowWarning, stacklevel=_CALLER)
        return answers.to_pandas() if is_pandas(rows) else answers

    def models(self, name: str | None = None) -> Listing[ModelVersion]:
        """Every registered version, newest first."""
        from cumulant.flows.registry.models import list_models

        versions = list_models(self.loaded, principal=self._principal, name=name)
        columns = ("model", "version", "aliases", "registered", "uri")
        return Listing(versions, columns, lambda item: (item.name, item.version, item.aliases, item.created, item.uri))

    def model(self, uri: str | None = None) -> ResultView[Any]:
        """One version with its figures and the request that it expects."""
        from cumulant.flows.registry.models import show_model

        return views.model(show_model(self.loaded, uri or self.name, principal=self._principal))

    def alias(self, model: str, alias: str, *, reason: str | None = None) -> ModelVersion:
        """Point an alias at a version."""
        from cumulant.flows.registry.models import set_alias

        return set_alias(self.loaded, model, alias, principal=self._principal, reason=reason)

    def tag(self, model: str, **tags: str | None) -> ModelVersion:
        """Set tags of a version; None removes one."""
        from cumulant.flows.registry.models import tag_model

        return tag_model(self.loaded, model, tags, principal=self._principal)

    def reproduce(self, model: str | None = None) -> ResultView[Any]:
        """Train a version again from its recorded snapshots; `.identical`, or `.differences`."""
        from cumulant.flows.registry.lineage import reproduce

        with self._follow("reproduce") as progress:
            result = reproduce(self.loaded, model or self.name, principal=self._principal, progress=progress)
        return views.reproduction(result)

    def serve(
        self, model: str | None = None, *, port: int = 0, as_of: datetime | str | None = None, keep: bool = False
    ) -> Server:
        """Start a local server for a model and return when it answers; end it with `.stop()` or `with`.

        With `keep` its process runs on after that; `.pid` is its id.
        """
        from cumulant.flows.serving.serve import prepare_service

        with self._follow("serve") as progress:
            service = prepare_service(
                self.loaded, model or self.name, principal=self._principal, as_of=_moment(as_of), progress=progress
            )
        return Server(service, port=port, keep=keep)

    def report(self, target: str = "latest", *, out: Path | str | None = None) -> ResultView[ReportData]:
        """The report of a run or model, shown here; with `out`, also written (.html, .md, .json)."""
        from cumulant.flows.reports import report

        if out is not None:
            report.report(self.loaded, target, out=Path(out), principal=self._principal)
        return views.report(report.content(self.loaded, target, principal=self._principal))

    def lineage(self, model: str | None = None) -> ResultView[Any]:
        """Where a version comes from: snapshots, source files, features, code, settings, environment."""
        from cumulant.flows.registry.lineage import lineage

        return views.lineage(lineage(self.loaded, model or self.name, principal=self._principal))

    def runs(self, flow: str | None = None) -> Listing[RunRecord]:
        """Runs, newest first."""
        from cumulant.flows.ledger.ledger_records import runs

        check(self.loaded, self._principal, "runs.show")
        selected = [run for run in runs(self.loaded.journal()) if flow is None or run.flow == flow]
        return views.runs(selected)

    def events(self, *, run: str | None = None, kinds: Sequence[str] = ()) -> Listing[Event]:
        """The project's events, oldest first."""
        from cumulant.flows.ledger.refusals import ingest_if_possible

        check(self.loaded, self._principal, "events.show")
        ingest_if_possible(self.loaded)
        return views.events(list(self.loaded.journal().events(run=run, kinds=kinds)))


def _moment(value: datetime | str | None) -> datetime | None:
    return None if value is None else moment(value)


def is_pandas(rows: object) -> bool:
    """Whether the rows are a pandas frame."""
    return type(rows).__module__.partition(".")[0] == "pandas"


def row_frame(rows: object) -> pl.DataFrame:
    """Rows of a user as a Polars frame. Raises MissingPartError, and DataError where they are no table."""
    try:
        from cumulant.data.files.user_frames import frame_of_rows, to_polars
    except ModuleNotFoundError as error:
        raise MissingPartError(
            "predictions on tables need Polars", subject="polars", hint='pip install "cumulant[local]"'
        ) from error
    return frame_of_rows(rows) if isinstance(rows, list) else to_polars(rows, source="the rows")
