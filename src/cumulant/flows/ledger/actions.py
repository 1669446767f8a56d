"""What can be done, as declared actions: each flow requests one of these before it starts."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

import msgspec

from cumulant.core.causes import caused_by
from cumulant.core.errors import ForbiddenError, TerminalError, did_you_mean
from cumulant.flows.ledger.decisions import record_allowed, record_refused
from cumulant.ports.access import SCOPE_POLICY, Decision, Principal, Resource, outside_scope
from cumulant.ports.registry import model_name

if TYPE_CHECKING:
    from cumulant.project.project import Project

#: as `of` of a verb: the project's own model
OWN_MODEL = ""
#: beside the hint of a refusal on the project's machine, whose principal comes from the environment
_WHO = "; CUMULANT_USER and CUMULANT_GROUPS say who you are"

Verb = TypeVar("Verb", bound=Callable[..., object])


class FlowAction(msgspec.Struct, frozen=True):
    """Something that a principal may be allowed to do. `writes`: it changes what others see.

    `routine`: events tell what it did, not that it began: a scheduler does it again and again, it is a part of another
    action, or it must be possible while the journal does not answer.
    """

    name: str
    text: str
    writes: bool = True
    routine: bool = False


_DECLARED = (
    FlowAction("project.plan", "show the resolved project and what would be done", writes=False),
    FlowAction("project.overview", "look at how a project's model does", writes=False),
    FlowAction("project.clean", "remove stored snapshots, tables and objects that nothing needs"),
    FlowAction("project.serve", "serve the API and the console of a project"),
    FlowAction("project.report", "write the report of a run or a model", writes=False),
    FlowAction("project.backup", "read all that a project is made of into one file, personal data too", writes=False),
    FlowAction("data.validate", "read sources, check them and store snapshots"),
    FlowAction("data.ingest", "ingest the messages of the streams that sources name"),
    FlowAction("data.infer", "propose a contract from a source", writes=False),
    FlowAction("data.show", "look at a snapshot", writes=False),
    FlowAction("data.cost", "look at what the stores hold and cost, and at rules of storage classes", writes=False),
    FlowAction("data.quarantine", "look at refused rows", writes=False),
    FlowAction("features.compute", "compute and store features"),
    FlowAction("features.materialize", "fill the online state"),
    FlowAction("features.show_key", "look at the stored state of one key", writes=False),
    FlowAction("features.status", "see which stored features there are, and how fresh they are", writes=False),
    FlowAction("features.read", "read stored features of entities", writes=False),
    FlowAction("features.verify", "compare served features with the history", routine=True),
    FlowAction("features.run_job", "start and stop the job of another engine that computes features of streams"),
    FlowAction("features.forget", "delete what was posted of a key, and make its stored state again"),
    FlowAction("features.show", "look at feature definitions and values", writes=False),
    FlowAction("model.train", "train, evaluate and register a model"),
    FlowAction("model.evaluate", "evaluate a registered model"),
    FlowAction("model.package", "make a servable from a model that was made elsewhere", writes=False),
    FlowAction("model.register", "register a model that was made elsewhere"),
    FlowAction("model.predict", "answer rows with a registered model", writes=False),
    FlowAction("model.serve", "serve a registered model"),
    FlowAction("stack.up", "start the processes that serve a project, and what is due by itself"),
    FlowAction("stack.down", "end the processes that serve a project", routine=True),
    FlowAction("stack.show", "look at the processes that serve a project", writes=False),
    FlowAction("steps.run", "run the steps that commands of others have queued"),
    FlowAction("project.tick", "do once whatever is due", routine=True),
    FlowAction("model.show", "list, show and compare models", writes=False),
    FlowAction("model.tag", "change the tags of a model version"),
    FlowAction("model.alias", "point an alias at a model version"),
    FlowAction("model.reproduce", "train a model version again and compare", writes=False),
    FlowAction("runs.show", "list and show runs", writes=False),
    FlowAction("runs.cancel", "end a command that a server runs"),
    FlowAction("events.show", "list and follow events", writes=False),
    FlowAction("events.verify", "verify the chain of events", writes=False),
    FlowAction("events.checkpoint", "sign the chain of events", routine=True),
    FlowAction("events.export", "export events", writes=False),
    FlowAction("predictions.show", "look at the prediction log", writes=False),
    FlowAction("predictions.import", "bring predictions that were logged elsewhere into the prediction log"),
    FlowAction("labels.ingest", "take in what became of predictions"),
    FlowAction("labels.show", "look at labels and how much of the predictions they cover", writes=False),
    FlowAction("monitor.run", "compare predictions with a reference, and report it"),
    FlowAction("monitor.show", "look at quality, drift and retraining over time", writes=False),
    FlowAction("monitor.backtest", "replay labelled history under rules of retraining"),
    FlowAction("review.fill", "choose predictions for review"),
    FlowAction("review.show", "look at the review queue and its cases", writes=False),
    FlowAction("review.answer", "take, decide, skip, escalate and note cases"),
    FlowAction("review.assign", "give a case to a reviewer"),
    FlowAction("review.import", "take in decisions that were made elsewhere"),
    FlowAction("release.start", "begin to release a model version"),
    FlowAction("release.steer", "pause, resume and promote a release"),
    FlowAction("release.approve", "agree to a release that waits for it"),
    FlowAction("release.rollback", "send all requests to a version that was served before", routine=True),
    FlowAction("release.show", "look at releases", writes=False),
    FlowAction("release.plan", "estimate what a release can decide, and when", writes=False),
    FlowAction("release.simulate", "simulate releases of the project's policy", writes=False),
    FlowAction("alerts.observe", "take in what a look at a model found", routine=True),
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
    FlowAction("access.show", "show who may do what, and by which policy", writes=False),
    FlowAction("identities.token_create", "create API tokens of one's own"),
    FlowAction("identities.token_list", "list API tokens", writes=False),
    FlowAction("identities.token_revoke", "revoke API tokens"),
    FlowAction("identities.session_link", "create a one-time link that signs its creator in"),
    FlowAction("identities.session_list", "list sessions", writes=False),
    FlowAction("identities.session_revoke", "end sessions"),
    FlowAction("identities.manage", "create tokens of service accounts, and see and end tokens and sessions of others"),
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


class _RecordedCall(NamedTuple):
    """A call of a verb that is an event."""

    principal: str
    action: str
    resource: str
    personal: bool


#: the recorded calls that are under way, around this one
_RECORDED: ContextVar[frozenset[_RecordedCall]] = ContextVar("recorded", default=frozenset())


def verb(action: str, *, of: str | None = None, personal: bool = False) -> Callable[[Verb], Verb]:
    """A flow `(project, ..., *, principal)` that runs only where the principal may do `action`.

    The resource is the project, or the model that the parameter `of` names, whatever version or alias of it is named
    (`model_name`); where that is empty, and with `OWN_MODEL`, it is the project's own model. `personal`: the flow
    returns rows that may be personal. The function's attribute `action` is the declared action.

    A call is an event before the flow starts where it is personal, or where the action writes and the principal is
    not a process of Cumulant itself; a call within an equal one is part of it. Events of the flow have it as cause.

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
            resource = resource_of(project, model)
            decision = _decide(project, principal, declared_action, resource)
            call = _RecordedCall(principal.id, action, resource.name, personal)
            enclosing = _RECORDED.get()
            if call in enclosing or not (personal or _is_recorded(principal, declared_action)):
                return function(project, *arguments, principal=principal, **options)
            event = record_allowed(project, principal, action, resource, decision, personal=personal)
            token = _RECORDED.set(enclosing | {call})
            try:
                with caused_by(event):
                    return function(project, *arguments, principal=principal, **options)
            finally:
                _RECORDED.reset(token)

        checked.__dict__["action"] = declared_action
        return cast("Verb", checked)

    return decorate


def resource_of(project: Project, model: str | None = None, labels: Mapping[str, str] | None = None) -> Resource:
    """The project as a resource of policies, or one of its models: any URI of it; empty: the project's own."""
    scope = project.scope
    return Resource(
        kind="project" if model is None else "model",
        name=project.name if not model else model_name(model),
        tenant=scope.tenant,
        region=scope.region,
        labels={"project": scope.project, "environment": scope.environment, **(labels or {})},
    )


def check(
    project: Project,
    principal: Principal,
    action: str,
    *,
    model: str | None = None,
    personal: bool = False,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Return if `principal` may do `action` to the project, or to a model: any URI of it; empty: the project's own.
    `labels`: what else policies may look at.

    A refusal is an event, and so is an allowed action that shows personal data; neither where the journal cannot be
    written, such as on a read-only disk. In a process that serves requests, equal refusals are one event at once and
    then one a window (`record_refusals`). An allowed action that writes is an event of the verb that does it.

    Raises:
        ForbiddenError: the principal may not.
        TerminalError: the action is not declared.
    """
    declared = find_action(action)
    resource = resource_of(project, model, labels)
    decision = _decide(project, principal, declared, resource)
    if personal:
        record_allowed(project, principal, declared.name, resource, decision, personal=True)


def _decide(project: Project, principal: Principal, action: FlowAction, resource: Resource) -> Decision:
    decision = decide(project, principal, action.name, resource)
    if not decision.allowed:
        record_refused(project, principal, action.name, resource, decision)
        raise ForbiddenError(
            f"{principal.id} may not do {action.name} to {resource.name}{_by_scope(decision)}",
            subject=resource.name,
            hint=f"{decision.hint}{_WHO}" if decision.hint and principal.via in ("cli", "python") else decision.hint,
        )
    return decision


def _by_scope(decision: Decision) -> str:
    return " with this token: its scope does not include it" if decision.policies == (SCOPE_POLICY,) else ""


def decide(project: Project, principal: Principal, action: str, resource: Resource | None = None) -> Decision:
    """As `check` decides, by default about the project, without a record: for what depends on the answer.

    Raises:
        TerminalError: the action is not declared.
    """
    declared = find_action(action)
    refusal = outside_scope(principal, declared.name)
    return refusal or project.access().check(principal, declared.name, resource or resource_of(project))


def permits(project: Project, principal: Principal, action: str, *, model: str | None = None) -> bool:
    """Whether `check` would return, without an event: for what a page offers, never in place of the check."""
    return decide(project, principal, action, resource_of(project, model)).allowed


def _is_recorded(principal: Principal, action: FlowAction) -> bool:
    """Whether an event says that the action was allowed. What a process of Cumulant does by its own schedule is
    recorded by its runs and events alone.
    """
    return action.writes and not action.routine and principal.via != "service"
