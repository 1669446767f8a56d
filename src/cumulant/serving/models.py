"""The models that a server answers for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.core.errors import UsageError, not_found
from cumulant.core.servable import Answer, Servable
from cumulant.features import OnlineFeatures
from cumulant.packaging import Scorer
from cumulant.serving.schema import RequestSchema

if TYPE_CHECKING:
    from cumulant.ports.online import OnlineStore

#: what a servable that was never registered is called
UNREGISTERED = "1"


class ServedModel:
    """One servable: request rows in, answers out.

    `table` names its online state; by default the servable's lineage says it under `state`.

    Raises:
        NotFoundError, IntegrityError: as `packaging.Scorer`; also for state of another plan.
        UsageError: the plan needs stored features and no store is given.
        EngineUnavailableError: the store holds no such state yet.
    """

    def __init__(self, folder: Path | str, *, store: OnlineStore | None = None, table: str | None = None) -> None:
        self.scorer = Scorer(folder)
        self.servable: Servable = self.scorer.servable
        self.name = self.servable.name
        self.version = self.servable.version or UNREGISTERED
        self.schema = RequestSchema(self.servable.plan, self.servable.unread)
        self.table = table or self.servable.lineage.get("state") or self.name
        self._features = self._with_state(store)

    def _with_state(self, store: OnlineStore | None) -> OnlineFeatures:
        plan = self.servable.plan
        if store is None and plan.needs_state:
            hint = "name the store with --online URL"
            raise UsageError(f"model {self.name} needs stored features", subject=self.name, hint=hint)
        features = OnlineFeatures(plan, store, self.table)
        # Met now rather than by the first request: no state under that name, or one made for another plan.
        features.state()
        return features

    def answer(self, raw: Sequence[object]) -> list[Answer]:
        """Check rows as a caller sent them, add features, score.

        Raises:
            RequestError: a row does not fit the request schema.
            EngineUnavailableError: the online store does not answer.
        """
        if not raw:
            return []
        vectors = self._features.vectors(self.schema.rows(raw))
        return self.scorer.answers(vectors.columns, age=vectors.age)

    def warnings(self, raw: Sequence[object]) -> tuple[str, ...]:
        """What to tell the caller of rows that were answered."""
        if not self.schema.unread:
            return ()
        return self.schema.warnings(set[str]().union(*(row for row in raw if isinstance(row, dict))))


class ModelSet:
    """Served models by name and version; the version named last is a name's default."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self._models: dict[str, dict[str, ServedModel]] = {}
        for model in models:
            versions = self._models.setdefault(model.name, {})
            if model.version in versions:
                raise UsageError(f"model {model.name} version {model.version} is given twice", subject=model.name)
            versions[model.version] = model

    def __iter__(self) -> Iterator[ServedModel]:
        for versions in self._models.values():
            yield from versions.values()

    def get(self, name: str, version: str | None = None) -> ServedModel:
        """Raises NotFoundError, naming the nearest that exists."""
        versions = self.versions(name)
        if version is None:
            return versions[-1]
        for model in versions:
            if model.version == version:
                return model
        raise not_found(f"version of {name}", version[:100], [model.version for model in versions])

    def versions(self, name: str) -> list[ServedModel]:
        """Every served version of `name`, the default last. Raises NotFoundError."""
        if name not in self._models:
            raise not_found("model", name[:100], self._models)
        return list(self._models[name].values())
