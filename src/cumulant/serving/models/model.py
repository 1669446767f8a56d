"""The model interface and the set of served models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cumulant.core.errors import UsageError, not_found
from cumulant.core.servable import GraphServable, Servable
from cumulant.servable.engine import Array
from cumulant.servable.folder import load_description
from cumulant.serving.histogram import Histogram
from cumulant.serving.models.graph_model import GraphModel
from cumulant.serving.models.request_work import FallbackAnswers, RequestWork
from cumulant.serving.models.row_model import RowModel
from cumulant.serving.protocol.tensors import InputTensor, OutputTensor
from cumulant.serving.reasons.reasoning import Reasoning
from cumulant.serving.scheduling.runner import Runner, Scheduling
from cumulant.serving.sequences.sequence_store import SequenceStore

if TYPE_CHECKING:
    from cumulant.ports.online import OnlineStore
    from cumulant.serving.protocol.request_rules import RequestRules


class Model(Protocol):
    """Loaded version of a model, of either kind of servable."""

    name: str
    version: str
    runner: Runner
    #: requests must be of a sequence, whose state is stored between them
    stateful: bool
    #: what is answered where the runner refuses
    fallback: FallbackAnswers | None
    #: ages of the stored features that requests used; None: the model uses none
    state_ages: Histogram | None
    #: rows answered with stored features that may lack events
    incomplete_rows: int
    #: of a data contract; None: there is none
    rules: RequestRules | None
    #: metadata of the protocol: datatype and shape by name
    inputs: Mapping[str, dict[str, Any]]
    outputs: Mapping[str, tuple[str, list[int]]]
    #: None where the servable explains nothing
    reasons: Reasoning | None

    @property
    def servable(self) -> Servable | GraphServable: ...

    def from_tensors(self, inputs: Sequence[InputTensor]) -> RequestWork:
        """Raises RequestError where the inputs do not fit."""
        ...

    def from_rows(self, rows: Sequence[object]) -> RequestWork:
        """Raises RequestError where a row does not fit; EngineUnavailableError where stored features do not come."""
        ...

    def tensors(self, work: RequestWork, raw: Sequence[Array], wanted: Sequence[str]) -> list[OutputTensor]:
        """Requested outputs from the engine's; all where none is named."""
        ...

    def answers(self, work: RequestWork, raw: Sequence[Array]) -> list[Any]:
        """One answer per row from the engine's outputs."""
        ...

    def try_run(self) -> None:
        """Answer made-up rows, or the servable's example.

        Raises:
            IntegrityError: it cannot answer them.
            DefinitionError: as `Engine` with an untried graph.
        """
        ...

    def card(self) -> dict[str, object]:
        """Model card: request fields, an example row."""
        ...

    def close(self) -> None: ...


def open_model(
    folder: Path | str,
    *,
    store: OnlineStore | None = None,
    table: str | None = None,
    scheduling: Scheduling | None = None,
    sequences: SequenceStore | None = None,
    refuse_invalid: bool = False,
    untried: bool = False,
    salt: bytes = b"",
) -> Model:
    """Load and warm the servable in `folder`; `refuse_invalid` and `salt` as in `RowModel`, `untried` as in `Engine`.

    Raises:
        NotFoundError, IntegrityError: as `load_description`.
        UsageError: its features need a store, or its state tensors a place, and none is given.
        EngineUnavailableError: the store holds no such state yet.
    """
    folder = Path(folder)
    described = load_description(folder)
    if isinstance(described, GraphServable):
        return GraphModel(folder, described, scheduling=scheduling, sequences=sequences, untried=untried)
    return RowModel(
        folder,
        store=store,
        table=table,
        scheduling=scheduling,
        refuse_invalid=refuse_invalid,
        untried=untried,
        salt=salt,
    )


class ModelSet:
    """Immutable set of served models by name and version; the version named last is a name's default."""

    def __init__(self, models: Iterable[Model]) -> None:
        self._models: dict[str, dict[str, Model]] = {}
        for model in models:
            versions = self._models.setdefault(model.name, {})
            if model.version in versions:
                raise UsageError(f"model {model.name} version {model.version} is given twice", subject=model.name)
            versions[model.version] = model

    def __iter__(self) -> Iterator[Model]:
        for versions in self._models.values():
            yield from versions.values()

    def names(self) -> list[str]:
        return list(self._models)

    def get(self, name: str, version: str | None = None) -> Model:
        """Raises NotFoundError, naming the nearest that exists."""
        versions = self.versions(name)
        if version is None:
            return versions[-1]
        for model in versions:
            if model.version == version:
                return model
        raise not_found(f"version of {name}", version[:100], [model.version for model in versions])

    def versions(self, name: str) -> list[Model]:
        """Every served version of `name`, the default last. Raises NotFoundError."""
        if name not in self._models:
            raise not_found("model", name[:100], self._models)
        return list(self._models[name].values())

    def where(self, keep: Callable[[Model], bool]) -> ModelSet:
        """Subset of the models for which `keep` is true."""
        return ModelSet(filter(keep, self))
