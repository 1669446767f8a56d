"""What can be done, as declared actions: each verb of the runtime asks for one of these before it starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from cumulant.core.errors import TerminalError, did_you_mean
from cumulant.ports.access import Access, Principal

Verb = TypeVar("Verb", bound=Callable[..., object])


class Action(msgspec.Struct, frozen=True):
    """Something that a principal may be allowed to do. `writes`: it changes what others see."""

    name: str
    text: str
    writes: bool = True


_DECLARED = (
    Action("project.plan", "show the resolved project and what would be done", writes=False),
    Action("project.clean", "remove stored snapshots, tables and objects that nothing needs"),
    Action("project.report", "write the report of a run or a model", writes=False),
    Action("project.backup", "read all that a project is made of into one file, personal data too", writes=False),
    Action("data.validate", "read sources, check them and store snapshots"),
    Action("data.infer", "propose a contract from a source", writes=False),
    Action("data.show", "look at a snapshot", writes=False),
    Action("data.quarantine", "look at refused rows", writes=False),
    Action("features.compute", "compute and store features"),
    Action("features.materialize", "fill the online state"),
    Action("features.forget", "delete what was posted of a key, and make its stored state again"),
    Action("features.show", "look at feature definitions and values", writes=False),
    Action("model.train", "train, evaluate and register a model"),
    Action("model.evaluate", "evaluate a registered model"),
    Action("model.package", "make a servable from a model that was made elsewhere", writes=False),
    Action("model.register", "register a model that was made elsewhere"),
    Action("model.predict", "answer rows with a registered model", writes=False),
    Action("model.serve", "serve a registered model"),
    Action("stack.up", "start the processes that serve a project, and what is due by itself"),
    Action("stack.down", "end the processes that serve a project"),
    Action("stack.show", "look at the processes that serve a project", writes=False),
    Action("project.tick", "do once whatever is due"),
    Action("model.show", "list, show and compare models", writes=False),
    Action("model.tag", "change the tags of a model version"),
    Action("model.alias", "point an alias at a model version"),
    Action("model.reproduce", "train a model version again and compare", writes=False),
    Action("runs.show", "list and show runs", writes=False),
    Action("events.show", "list and follow events", writes=False),
    Action("events.verify", "verify the chain of events", writes=False),
    Action("events.export", "export events", writes=False),
    Action("predictions.show", "look at the prediction log", writes=False),
    Action("predictions.import", "bring predictions that were logged elsewhere into the prediction log"),
    Action("labels.ingest", "take in what became of predictions"),
    Action("labels.show", "look at labels and how much of the predictions they cover", writes=False),
    Action("monitor.run", "compare predictions with a reference, and report it"),
    Action("monitor.backtest", "replay labelled history under rules of retraining"),
    Action("review.fill", "choose predictions for people to look at"),
    Action("review.show", "look at the review queue and its cases", writes=False),
    Action("review.answer", "take, decide, skip, escalate and note cases"),
    Action("review.serve", "let people answer the review queue over HTTP"),
    Action("review.assign", "give a case to a reviewer"),
    Action("review.import", "take in decisions that were made elsewhere"),
    Action("release.start", "begin to release a model version"),
    Action("release.steer", "pause, resume and promote a release"),
    Action("release.approve", "agree to a release that waits for it"),
    Action("release.rollback", "send all requests to a version that was served before"),
    Action("release.show", "look at releases", writes=False),
    Action("release.plan", "estimate what a release can decide, and when", writes=False),
    Action("release.simulate", "simulate releases of the project's policy", writes=False),
    Action("alerts.observe", "take in what a look at a model found"),
    Action("alerts.show", "look at alerts and their receivers", writes=False),
    Action("alerts.steer", "acknowledge alerts, silence them, send or drop their messages"),
    Action("alerts.test", "send a test message to receivers"),
    Action("replay.run", "send the rows of a past period as requests, with their labels"),
    Action("lineage.show", "show where a model version comes from", writes=False),
)
ACTIONS = {action.name: action for action in _DECLARED}


def declared(name: str) -> Action:
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


def verb(action: str) -> Callable[[Verb], Verb]:
    """Say which action a flow asks for. Importing a flow whose action is not declared fails.

    Raises:
        TerminalError: no such action is declared.
    """
    found = declared(action)

    def mark(function: Verb) -> Verb:
        function.__dict__["action"] = found
        return function

    return mark


def check(access: Access, principal: Principal, action: str, subject: str) -> None:
    """Ask whether `principal` may do `action` to `subject`.

    Raises:
        RefusedError: the principal may not.
        TerminalError: the action is not declared.
    """
    access.check(principal, declared(action).name, subject)
