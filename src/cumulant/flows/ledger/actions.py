"""What can be done, as declared actions: each flow requests one of these before it starts."""

from __future__ import annotations

import functools
import inspect
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

import msgspec

from cumulant.core.errors import CumulantError, RefusedError, TerminalError, did_you_mean
from cumulant.core.events import Actor, Fact
from cumulant.core.occurrences import Occurrences
from cumulant.ports.access import Principal, Resource
from cumulant.ports.journal import Freezing
from cumulant.ports.registry import model_name

if TYPE_CHECKING:
    from cumulant.project.project import Project

#: as `of` of a verb: the project's own model
OWN_MODEL = ""

Verb = TypeVar("Verb", bound=Callable[..., object])


class FlowAction(msgspec.Struct, frozen=True):
    """Something that a principal may be allowed to do. `writes`: it changes what others see."""

    name: str
    text: str
    writes: bool = True


_DECLARED = (
    FlowAction("project.plan", "show the resolved project and what would be done", writes=False),
    FlowAction("project.clean", "remove stored snapshots, tables and objects that nothing needs"),
    FlowAction("project.report", "write the report of a run or a model", writes=False),
    FlowAction("project.backup", "read all that a project is made of into one file, personal data too", writes=False),
    FlowAction("data.validate", "read sources, check them and store snapshots"),
    FlowAction("data.infer", "propose a contract from a source", writes=False),
    FlowAction("data.show", "look at a snapshot", writes=False),
    FlowAction("data.quarantine", "look at refused rows", writes=False),
    FlowAction("features.compute", "compute and store features"),
    FlowAction("features.materialize", "fill the online state"),
    FlowAction("features.show_key", "look at the stored state of one key", writes=False),
    FlowAction("features.forget", "delete what was posted of a key, and make its stored state again"),
    FlowAction("features.show", "look at feature definitions and values", writes=False),
    FlowAction("model.train", "train, evaluate and register a model"),
    FlowAction("model.evaluate", "evaluate a registered model"),
    FlowAction("model.package", "make a servable from a model that was made elsewhere", writes=False),
    FlowAction("model.register", "register a model that was made elsewhere"),
    FlowAction("model.predict", "answer rows with a registered model", writes=False),
    FlowAction("model.serve", "serve a registered model"),
    FlowAction("stack.up", "start the processes that serve a project, and what is due by itself"),
    FlowAction("stack.down", "end the processes that serve a project"),
    FlowAction("stack.show", "look at the processes that serve a project", writes=False),
    FlowAction("steps.run", "run the steps that commands of others have queued"),
    FlowAction("project.tick", "do once whatever is due"),
    FlowAction("model.show", "list, show and compare models", writes=False),
    FlowAction("model.tag", "change the tags of a model version"),
    FlowAction("model.alias", "point an alias at a model version"),
    FlowAction("model.reproduce", "train a model version again and compare", writes=False),
    FlowAction("runs.show", "list and show runs", writes=False),
    FlowAction("events.show", "list and follow events", writes=False),
    FlowAction("events.verify", "verify the chain of events", writes=False),
    FlowAction("events.export", "export events", writes=False),
    FlowAction("predictions.show", "look at the prediction log", writes=False),
    FlowAction("predictions.import", "bring predictions that were logged elsewhere into the prediction log"),
    FlowAction("labels.ingest", "take in what became of predictions"),
    FlowAction("labels.show", "look at labels and how much of the predictions they cover", writes=False),
    FlowAction("monitor.run", "compare predictions with a reference, and report it"),
    FlowAction("monitor.backtest", "replay labelled history under rules of retraining"),
    FlowAction("review.fill", "choose predictions for review"),
    FlowAction("review.show", "look at the review queue and its cases", writes=False),
    FlowAction("review.answer", "take, decide, skip, escalate and note cases"),
    FlowAction("review.serve", "serve the review queue over HTTP"),
    FlowAction("review.assign", "give a case to a reviewer"),
    FlowAction("review.import", "take in decisions that were made elsewhere"),
    FlowAction("release.start", "begin to release a model version"),
    FlowAction("release.steer", "pause, resume and promote a release"),
    FlowAction("release.approve", "agree to a release that waits for it"),
    FlowAction("release.rollback", "send all requests to a version that was served before"),
    FlowAction("release.show", "look at releases", writes=False),
    FlowAction("release.plan", "estimate what a release can decide, and when", writes=False),
    FlowAction("release.simulate", "simulate releases of the project's policy", writes=False),
    FlowAction("alerts.observe", "take in what a look at a model found"),
    FlowAction("alerts.show", "look at alerts and their receivers", writes=False),
    FlowAction("alerts.steer", "acknowledge alerts, silence them, send or drop their messages"),
    FlowAction("alerts.test", "send a test message to receivers"),
    FlowAction("replay.run", "send the rows of a past period as requests, with their labels"),
    FlowAction("server.show", "look at a server: its health, its metrics and the models that it serves", writes=False),
    FlowAction("events.post", "post rows of a source to a server, which update the online state"),
    FlowAction("labels.post", "post labels to a server, which wait there until they are ingested"),
    FlowAction("model.load", "load and unload models of a server by request"),
    FlowAction("subjects.find", "find what is stored of one subject", writes=False),
    FlowAction("subjects.erase", "erase what is stored of one subject"),
    FlowAction("subjects.admit", "read new rows of an erased subject again"),
    FlowAction("lineage.show", "show where a model version comes from", writes=False),
)
ACTIONS = {action.name: action for action in _DECLARED}


def find_action(name: str) -> FlowAction:
    """The action of that name. A verb without one is a fault of the program and stops it at start-up.

    Raises:
        TerminalError: no such action is declared.
    """
    if name not in ACTIONS:
        raise TerminalError(
            f'the action "{name}" is not declared',
            subject=name,
            hint=did_you_mean(name, ACTIONS) or "declare it in cumulant.flows.ledger.actions",
        )
    return ACTIONS[name]


class AccessRefused(Fact, frozen=True, kw_only=True):
    """A principal, the event's actor, may not do an action.

    `reason`: `policy` (`policies` decided), `token` (a server needs one) or `origin` (a page or a host name of another
    place). `count` equal refusals between `first` and `last`; `server`: of that prediction server.
    """

    kind = "access.refused"
    action: str
    resource: str
    policies: tuple[str, ...] = ()
    reason: str = "policy"
    server: str = ""
    count: int = 1
    first: datetime | None = None
    last: datetime | None = None


class PersonalDataRead(Fact, frozen=True, kw_only=True):
    """The event's actor was shown rows that may be personal."""

    kind = "access.personal_data_read"
    action: str
    resource: str


class RefusalKey(NamedTuple):
    """What equal refusals have in common."""

    principal: str
    action: str
    resource: str
    policies: tuple[str, ...]


def verb(action: str, *, of: str | None = None, personal: bool = False) -> Callable[[Verb], Verb]:
    """A flow `(project, ..., *, principal)` that runs only where the principal may do `action`.

    The resource is the project, or the model that the parameter `of` names, whatever version or alias of it is named
    (`model_name`); where that is empty, and with `OWN_MODEL`, it is the project's own model. `personal`: the flow
    returns rows that may be personal, so that each call is an event. The function's attribute `action` is the declared
    action.

    Raises:
        TerminalError: no such action is declared; when the module is imported.
    """
    declared_action = find_action(action)

    def decorate(function: Verb) -> Verb:
        signature = inspect.signature(function) if of else None

        @functools.wraps(function)
        def checked(project: Project, *arguments: object, principal: Principal, **options: object) -> object:
            model = None if of is None else ""
            if signature is not None and of:
                bound = signature.bind(project, *arguments, principal=principal, **options)
                bound.apply_defaults()
                model = str(bound.arguments[of])
            check(project, principal, action, model=model, personal=personal)
            return function(project, *arguments, principal=principal, **options)

        checked.__dict__["action"] = declared_action
        return cast("Verb", checked)

    return decorate


def check(
    project: Project, principal: Principal, action: str, *, model: str | None = None, personal: bool = False
) -> None:
    """Return if `principal` may do `action` to the project, or to a model: any URI of it; empty: the project's own.

    A refusal is an event, and so is an allowed action that shows personal data; neither where the journal cannot be
    written, such as on a read-only disk. In a process that serves requests, equal refusals are one event at once and
    then one a window (`record_refusals`).

    Raises:
        RefusedError: the principal may not.
        TerminalError: the action is not declared.
    """
    declared, scope = find_action(action), project.scope
    resource = Resource(
        kind="project" if model is None else "model",
        name=project.name if not model else model_name(model),
        tenant=scope.tenant,
        region=scope.region,
        labels={"project": scope.project, "environment": scope.environment},
    )
    decision = project.access().check(principal, declared.name, resource)
    if not decision.allowed:
        _count_refusal(project, RefusalKey(principal.id, action, resource.name, decision.policies))
        raise RefusedError(
            f"{principal.id} may not do {action} to {resource.name}", subject=resource.name, hint=decision.hint
        )
    if personal:
        _record(project, principal.id, PersonalDataRead(action=action, resource=resource.name))


def _count_refusal(project: Project, key: RefusalKey) -> None:
    """An event of a refusal; of equal ones in a server, of the first one and later of their number."""
    now, counter = datetime.now(UTC), project.refusals  # once: the end of `record_refusals` takes it away
    if counter is None:
        emit_refusal(project, key, Occurrences(1, now, now))
    elif (due := counter.add(key, now)) is not None:
        try:
            emit_refusal(project, *due)
        except (CumulantError, OSError, sqlite3.Error):  # reported with the next window; refused all the same
            counter.put_back(*due)


def emit_refusal(project: Project, key: RefusalKey, occurrences: Occurrences) -> None:
    """An event of equal refusals. Raises CumulantError: the journal does not take it."""
    fact = AccessRefused(
        action=key.action,
        resource=key.resource,
        policies=key.policies,
        count=occurrences.count,
        first=occurrences.first if occurrences.count > 1 else None,
        last=occurrences.last if occurrences.count > 1 else None,
    )
    _record(project, key.principal, fact)


def _record(project: Project, actor: str, fact: Fact) -> None:
    journal = project.journal()
    if isinstance(journal, Freezing) and journal.frozen:
        return  # not a copy: what the flow writes next must fail, and not vanish with it
    with journal.transaction(actor=Actor(actor)) as transaction:
        transaction.emit(fact)
