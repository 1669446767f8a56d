"""`RemoteProject`: a project on a server, with the methods that a local `Project` has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from cumulant.api.display import Listing
from cumulant.api.errors import short_methods
from cumulant.api.progress import notebook_progress
from cumulant.core.units import moment
from cumulant.server.client.http_api import HttpApi

if TYPE_CHECKING:
    import polars as pl

    from cumulant.core.events import Event
    from cumulant.core.progress import Progress
    from cumulant.flows.alerting.views import AlertView
    from cumulant.flows.release.rollback import RollbackResult
    from cumulant.flows.release.views import ReleaseView
    from cumulant.flows.review.service import AnsweredCase
    from cumulant.flows.review.views import CaseLine, CaseView
    from cumulant.flows.stack.status import Status
    from cumulant.ports.registry import ModelVersion
    from cumulant.server.operations.data import ValidatedSources
    from cumulant.server.operations.models import VersionView
    from cumulant.server.operations.monitoring import MonitorSummary
    from cumulant.server.operations.releases import StartedRelease
    from cumulant.server.operations.training import TrainedVersion

#: in place of a version: the one that the registry resolves a name to
LATEST = "latest"


class RemoteGroup:
    """Methods of one subject."""

    def __init__(self, http: HttpApi, follow: Callable[[str], AbstractContextManager[Progress]]) -> None:
        self._http, self._follow = http, follow


@short_methods
class RemoteReleases(RemoteGroup):
    """Releases of the project."""

    def start(self, model: str = "", *, approval: bool = False) -> StartedRelease:
        """Begin the release of a version."""
        with self._follow("release") as progress:
            return self._http.call("releases.start", model=model, approval=approval, progress=progress)  # type: ignore[no-any-return]

    def current(self) -> ReleaseView:
        """The release under way, else the newest one."""
        return self._http.call("releases.show", release=LATEST)  # type: ignore[no-any-return]

    def history(self) -> list[ReleaseView]:
        """All releases, newest first."""
        return list(self._http.pages("releases.list"))

    def pause(self, *, reason: str) -> ReleaseView:
        return self._http.call("releases.pause", reason=reason)  # type: ignore[no-any-return]

    def resume(self, *, reason: str = "") -> ReleaseView:
        return self._http.call("releases.resume", reason=reason)  # type: ignore[no-any-return]

    def promote(self, *, reason: str) -> ReleaseView:
        return self._http.call("releases.promote", reason=reason)  # type: ignore[no-any-return]

    def abort(self, *, reason: str) -> ReleaseView:
        return self._http.call("releases.abort", reason=reason)  # type: ignore[no-any-return]

    def approve(self, *, reason: str = "") -> ReleaseView:
        return self._http.call("releases.approve", reason=reason)  # type: ignore[no-any-return]

    def roll_back(self, *, reason: str, to: str = "") -> RollbackResult:
        """Send all requests to a version that was served before; default: the one before."""
        return self._http.call("releases.roll_back", reason=reason, to=to)  # type: ignore[no-any-return]


@short_methods
class RemoteMonitoring(RemoteGroup):
    """Monitoring of what the project serves."""

    def run(self) -> MonitorSummary:
        """Evaluate the served model now."""
        with self._follow("monitor") as progress:
            return self._http.call("monitoring.run", progress=progress)  # type: ignore[no-any-return]

    def alerts(self, *, ended: bool = False) -> Sequence[AlertView]:
        """Alerts that fire or are pending, the most urgent first; with `ended` then those that are over."""
        return self._http.call("alerts.list", ended=ended).alerts  # type: ignore[no-any-return]


@short_methods
class RemoteReviews(RemoteGroup):
    """The review queue of the project."""

    def cases(self, *, status: str = "waiting") -> Iterator[CaseLine]:
        """Cases, page by page: waiting ones in their order, or closed ones, newest first."""
        return self._http.pages("review.list", status=status)

    def next(self) -> CaseView | None:
        """Take the next case; None where none is left."""
        return self._http.call("review.next")  # type: ignore[no-any-return]

    def decide(self, case: str, label: object, *, note: str = "", seen: str | None = None) -> AnsweredCase:
        """Decide what is true of a case."""
        return self._http.call("review.decide", case=case, label=label, note=note, seen=seen)  # type: ignore[no-any-return]


@short_methods
class RemoteProject:
    """A project on a server.

    Methods have the names and parameters of a local `Project`. Long ones run as jobs of the server and are followed;
    an interrupt cancels them.
    """

    def __init__(
        self, http: HttpApi, *, follow: Callable[[str], AbstractContextManager[Progress]] | None = None
    ) -> None:
        self.http = http
        self._follow = follow or notebook_progress
        self.releases = RemoteReleases(http, self._follow)
        self.monitoring = RemoteMonitoring(http, self._follow)
        self.reviews = RemoteReviews(http, self._follow)

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
        return self.http.project

    def status(self) -> Status | None:
        """The processes, as `cumulant ps`; None where none serve."""
        return self.http.call("stack.show")  # type: ignore[no-any-return]

    def validate(self, *sources: str, force: bool = False) -> ValidatedSources:
        """Read, check and store what is new of the named sources (default: all)."""
        with self._follow("validate") as progress:
            return self.http.call("data.validate", sources=list(sources), force=force, progress=progress)  # type: ignore[no-any-return]

    def quarantine(self, source: str, *, limit: int = 1_000) -> pl.DataFrame:
        """Refused rows with the rule that refused each; personal columns as keyed hashes."""
        return self._frame("data.quarantine", source, limit)

    def preview(self, source: str, *, rows: int = 10) -> pl.DataFrame:
        """The first accepted rows of a source; personal columns as keyed hashes."""
        return self._frame("data.rows", source, rows)

    def train(
        self,
        *,
        quick: bool = False,
        as_of: datetime | str | None = None,
        trials: int | None = None,
        time: str | None = None,
        promote: bool = True,
    ) -> TrainedVersion:
        """From the sources to a registered version; a gate that refuses raises nothing: see `.verdict`."""
        as_of = moment(as_of) if isinstance(as_of, str) else as_of
        with self._follow("train") as progress:
            return self.http.call(  # type: ignore[no-any-return]
                "training.train",
                quick=quick,
                as_of=as_of,
                trials=trials,
                time=time,
                promote=promote,
                progress=progress,
            )

    def models(self, name: str | None = None) -> Listing[ModelVersion]:
        """Every registered version, newest first."""
        versions = list(self.http.pages("models.list", name=name or ""))
        columns = ("model", "version", "aliases", "registered", "uri")
        return Listing(versions, columns, lambda item: (item.name, item.version, item.aliases, item.created, item.uri))

    def model(self, uri: str | None = None) -> VersionView:
        """One version with its figures: NAME, NAME/3 or NAME@champion."""
        model, version = self._split(uri)
        return self.http.call("models.show", model=model, version=version)  # type: ignore[no-any-return]

    def alias(self, model: str, alias: str, *, reason: str | None = None) -> ModelVersion:
        """Point an alias at a version."""
        name, version = self._split(model)
        return self.http.call("models.alias", model=name, version=version, alias=alias, reason=reason)  # type: ignore[no-any-return]

    def tag(self, model: str, **tags: str | None) -> ModelVersion:
        """Set tags of a version; None removes one."""
        name, version = self._split(model)
        return self.http.call("models.tag", model=name, version=version, tags=tags)  # type: ignore[no-any-return]

    def lineage(self, model: str | None = None) -> Any:
        """Where a version comes from: snapshots, source files, features, code, settings, environment."""
        name, version = self._split(model)
        return self.http.call("models.lineage", model=name, version=version)

    def events(self, *, kind: str = "", actor: str = "") -> Iterator[Event]:
        """Events, newest first, page by page."""
        return self.http.pages("events.list", actor=actor, **({"kind": kind} if kind else {}))

    def follow_events(self, *, after: int | None = None, kinds: tuple[str, ...] = ()) -> Iterator[Event]:
        """Events as they happen, for ever, each once."""
        return self.http.events(after=after, kinds=kinds)

    def _split(self, uri: str | None) -> tuple[str, str]:
        text = (uri or self.name).removeprefix("models:/")
        name, at, alias = text.partition("@")
        if at:
            return name, f"@{alias}"
        name, _, version = text.partition("/")
        return name, version or LATEST

    def _frame(self, operation: str, source: str, limit: int) -> pl.DataFrame:
        import polars as pl

        answered = self.http.call(operation, source=source, limit=limit)
        return pl.DataFrame(answered.rows, schema=answered.columns, infer_schema_length=None)
