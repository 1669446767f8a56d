"""Labels as evidence of a release: ingested, joined with mirrored requests, each counted once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cumulant.core.errors import LeaseHeldError, NotFoundError
from cumulant.flows.deployment.deployment import deployment_of
from cumulant.flows.outcomes.label_schema import schema_of
from cumulant.flows.outcomes.labels import join_labels, outcomes_of
from cumulant.flows.stack.served_versions import servable_of
from cumulant.release.evidence.look import LossPair

if TYPE_CHECKING:
    from cumulant.core.servable import GraphServable, Servable
    from cumulant.outcomes.labels.label_rows import LabelSchema
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project
    from cumulant.release.state import Release

#: seconds between two joins: each goes through what is new
_PAUSE = 4.0
#: mirrored rows of one look
_MOST = 50_000


class LabelEvidence:
    """Both arms' losses in mirrored rows of the project's own model whose labels have come."""

    def __init__(self, project: Project, *, steady: Callable[[], float] = time.monotonic) -> None:
        self._project, self._steady = project, steady
        self._schema: LabelSchema | None = None
        self._joined: float | None = None

    def read_losses(self, release: Release, after: str) -> tuple[Sequence[LossPair], str]:
        """Those since the cursor; of an earlier release's pairs none.

        Raises:
            CumulantError: labels or predictions cannot be read; nothing is lost.
        """
        if release.model != self._project.name or "://" in release.candidate.version:
            return (), after
        schema = self._schema = self._schema or schema_of(self._project, self._served(release))
        self._join(schema)
        outcomes = outcomes_of(self._project, schema)
        if after.isdecimal():  # of an earlier version, which has counted all that was there
            after = outcomes.end_of_graded
        pairs, cursor = outcomes.graded(after, limit=_MOST)
        mine = [
            LossPair(
                champion=pair.champion,
                candidate=pair.candidate,
                score=pair.score,
                hour=int(pair.time.timestamp() // 3600),
            )
            for pair in pairs
            if pair.candidate_version == release.candidate.version
            and pair.champion_version == release.champion.version
            and pair.time >= release.begun
        ]
        return mine, cursor

    def _served(self, release: Release) -> Servable | GraphServable | None:
        """The champion's servable as it is served. The registry may be slow to open, and harm is watched for."""
        from cumulant.servable.folder import load_description

        served = deployment_of(self._project).read(release.model).versions.get(release.champion.version)
        folder = None if served is None else servable_of(self._project, served)
        try:
            return None if folder is None else load_description(folder)
        except NotFoundError:  # its files are gone: the registry has them
            return None

    def _join(self, schema: LabelSchema) -> None:
        now = self._steady()
        if self._joined is not None and now - self._joined < _PAUSE:
            return
        try:
            join_labels(self._project, principal=self._principal(), schema=schema)
        except LeaseHeldError:
            return  # another process does just that
        self._joined = self._steady()

    def _principal(self) -> Principal:
        return self._project.principal()
