"""The supervisor: it runs the processes that the desired state names, and no others."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import CumulantError
from cumulant.flows.ledger.processes import this_process
from cumulant.flows.release.controller.heartbeat import MOST
from cumulant.flows.release.controller.metrics_server import read_address
from cumulant.flows.serving.services import note_use
from cumulant.flows.stack.child_process import Child, log_file
from cumulant.flows.stack.desired_state import FOLDER, read_desired_state
from cumulant.flows.stack.events import ProcessEnded, ProcessStarted, unreported
from cumulant.flows.stack.gateway_key import CALLER_KEY, GATEWAY_KEY, new_key, remove_keys, write_key
from cumulant.flows.stack.health import (
    ServerHealth,
    answer_of,
    find_gateway_url,
    is_drained,
    is_replaced,
    listens,
    server_health,
)
from cumulant.flows.stack.identity import home_of
from cumulant.flows.stack.lock import end_left_behind, hold_lock, tidy
from cumulant.flows.stack.reconcile import WantedProcess, plan_actions, stop_order
from cumulant.flows.stack.served_versions import folder_of, online_of, table_of
from cumulant.flows.stack.stack_processes import Stack, wanted_processes
from cumulant.flows.stack.status import Status, write_status
from cumulant.ports.traffic import Gateway, Traffic
from cumulant.project.file.text_values import masked

_NAME = "supervisor"
_CHECK_SECONDS = 0.2
_STATUS_SECONDS = 1.0
#: seconds after which a process without a health check counts as ready
_SETTLED = 2.0
#: seconds for which a version that is not wanted waits until no request is under way to it
_DRAIN = 30.0
#: seconds for which a server that was replaced waits for requests that the gateway assigned to it before
_REPLACED = 2.0
#: of a controller that has answered, and of one that has not
_HUNG = f"its loop has made no step for more than {MOST:g} s, or its port does not answer: no release advances"
_UNHEARD = "it has not answered since it was started: no release advances"
#: a controller is not ended by the supervisor: its step may only take long, and it would begin the same again
_REMEDY = "if that lasts, `kill -9 {pid}`: it is started again, and requests are served meanwhile"


class StackSupervisor:
    """Call `run` once; it ends on SIGTERM or SIGINT, or with the process `parent`."""

    def __init__(
        self,
        stack: Stack,
        traffic: Traffic,
        gateway: Gateway,
        *,
        parent: int | None = None,
        report: Callable[[ProcessStarted | ProcessEnded], None] = unreported,
        clock: Clock | None = None,
        steady: Callable[[], float] = time.monotonic,
        leave: Callable[[], str] = lambda: "",
        watch: Callable[[Status], None] = lambda _: None,
    ) -> None:
        """`watch` gets each status. `leave` is called before the processes end, and may take its time: they serve on
        meanwhile. It returns what went wrong.
        """
        self._stack = stack
        self._leave, self._watch = leave, watch
        self._traffic = traffic
        self._gateway = gateway
        self._parent = parent
        self._report = report
        self._clock = clock or SystemClock()
        self._steady = steady
        self._children: dict[str, Child] = {}
        self._wanted: dict[str, WantedProcess] = {}
        self._trouble: dict[str, str] = {}
        self._url: str | None = None
        #: without a shared one new with each supervisor: nothing of the stack runs before it
        self._keys = {GATEWAY_KEY: stack.gateway_key or new_key()}
        if stack.caller_key is not None:
            self._keys[CALLER_KEY] = stack.caller_key
        self._since = self._clock.now()
        self._written = 0.0
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Supervise until the request to end; then end all processes in order.

        Raises:
            LeaseHeldError: another supervisor runs.
            StorageError: the state folder cannot be written.
            IntegrityError: the desired state is damaged.
        """
        with hold_lock(self._stack.state):
            end_left_behind(self._stack.state)
            read_desired_state(self._stack.state, self._stack.model)
            self._write_keys()
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self._ended.set)
            probing = asyncio.create_task(self._probe())
            self._report(
                ProcessStarted(name=_NAME, process=_NAME, pid=os.getpid(), attempt=1, cause="the project should be up")
            )
            cause = "a fault"
            try:
                cause = await self._rounds()
            finally:
                if trouble := await asyncio.to_thread(self._leave):
                    self._trouble["leave"] = trouble
                    self._write_status(self._steady(), self._clock.now())
                probing.cancel()
                await self._end()
                remove_keys(self._stack.state)
                tidy(self._stack.state)
                seconds = round((self._clock.now() - self._since).total_seconds(), 1)
                self._report(ProcessEnded(name=_NAME, process=_NAME, pid=os.getpid(), cause=cause, seconds=seconds))

    async def _rounds(self) -> str:
        while not self._ended.is_set():
            self._round()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), _CHECK_SECONDS)
            if self._parent is not None and os.getppid() != self._parent:
                return "the process that started it has ended"
        return "it was asked to end"

    def _round(self) -> None:
        now, at = self._steady(), self._clock.now()
        with self._noting("desired state"):
            self._wanted = wanted_processes(self._stack, read_desired_state(self._stack.state, self._stack.model), at)
        with self._noting("key"):  # a server that starts must accept the running gateway, also where the file was lost
            self._write_keys()
        for child in self._children.values():
            child.reap(now, at)
        self._drain(now)
        present = {name: child.present() for name, child in self._children.items()}
        due = plan_actions(self._wanted, present, now)
        for verb, name in due:
            self._act(verb, name, now, at)
        if due or now - self._written >= _STATUS_SECONDS:
            self._write_status(now, at)

    def _write_keys(self) -> None:
        for name, key in self._keys.items():
            write_key(self._stack.state, key, name)

    @contextmanager
    def _noting(self, part: str) -> Iterator[None]:
        """The trouble of a part: an error of the block, until the block runs without one."""
        try:
            yield
            self._trouble.pop(part, None)
        except CumulantError as error:
            self._trouble[part] = error.message

    def _drain(self, now: float) -> None:
        for name, child in self._children.items():
            if name in self._wanted:
                child.unwanted, child.drained = None, False
            elif child.unwanted is None:
                child.unwanted = now
            elif now - child.unwanted > _DRAIN:
                child.drained = True

    def _act(self, verb: str, name: str, now: float, at: datetime) -> None:
        match verb:
            case "start":
                self._start(self._wanted[name], now, at)
            case "stop":
                self._children[name].stop(
                    now, "its settings changed" if name in self._wanted else "it is no longer wanted"
                )
            case "forget":
                child = self._children.pop(name)
                if child.wanted.generation and child.has_answered:  # else its log has the reason
                    child.log.remove()

    def _start(self, wanted: WantedProcess, now: float, at: datetime) -> None:
        child = self._children.get(wanted.name)
        if child is None:
            salt = self._stack.salt if wanted.kind == "server" and "--salt-file" not in wanted.command else None
            child = self._children[wanted.name] = Child(
                wanted, log_file(self._stack.logs, wanted.name), salt=salt, report=self._report
            )
        child.start(wanted, now, at)
        if wanted.kind == "server" and child.identity is not None:
            with self._noting("disk"):
                line = wanted.command
                note_use(self._stack.uses, child.identity.pid, folder=folder_of(line), table=table_of(line))

    async def _probe(self) -> None:
        """Check the health of all repeatedly, beside the rounds: one that hangs does not delay the others."""
        while True:
            children = list(self._children.values())
            for child in children:
                child.log.rotate()
            self._url = find_gateway_url(self._gateway) if self._stack.gateway else None
            health = await asyncio.gather(*map(self._health, children))
            now, at = self._steady(), self._clock.now()
            for child, child_health in zip(children, health, strict=True):
                if child_health is not None:
                    child.observe(child_health.ready, now, at)
                    child.trouble = server_trouble(child, child_health)
                child.fault = controller_fault(child)
            for child in children:
                if child.unwanted is not None and not child.drained:
                    child.drained = await self._is_drained(child)
            await asyncio.sleep(_CHECK_SECONDS)

    async def _health(self, child: Child) -> ServerHealth | None:
        """None: nothing is known, so that it counts as before."""
        if not child.alive:
            return ServerHealth(ready=False)
        match child.wanted.kind:
            case "server":
                return await server_health(child.wanted.url or "")
            case "gateway":
                return ServerHealth(ready=self._url is not None and await listens(self._url))
            case "console" | "observer":
                return ServerHealth(ready=await listens(child.wanted.url or ""))
            case "controller":
                return await self._controller_health(child)
            case "agent":
                return ServerHealth(ready=child.age(self._steady()) > _SETTLED)

    async def _controller_health(self, child: Child) -> ServerHealth | None:
        address = read_address(self._stack.state / FOLDER)
        if address is None or child.identity is None or address.pid != child.identity.pid:
            return None  # it begins, or another controller of this folder has replaced or removed the file
        return await server_health(address.url)

    async def _is_drained(self, child: Child) -> bool:
        version, url = child.wanted.version, child.wanted.url or ""
        if version is None:
            return True
        try:
            if await answer_of(lambda: is_drained(self._traffic, self._stack.model, version)):
                return True
            if self._steady() - (child.unwanted or self._steady()) < _REPLACED:
                return False
            return await answer_of(lambda: is_replaced(self._traffic, self._stack.model, version, url))
        except CumulantError:
            return False  # the gateway does not answer: the version gets its time

    def _write_status(self, now: float, at: datetime) -> None:
        self._written = now
        status = Status(
            model=self._stack.model,
            environment=self._stack.environment,
            roles=self._stack.roles,
            supervisor=this_process(),
            since=self._since,
            at=at,
            url=self._url,
            children=tuple(child.status(now) for child in self._children.values()),
            trouble="; ".join(self._trouble.values()),
            home=home_of(self._stack.state),
        )
        try:
            write_status(self._stack.state, status)
        except OSError as error:  # a full disk: serving continues, and the status is written when space is free again
            sys.stderr.write(f"the status cannot be written: {error}\n")
        self._watch(status)

    async def _end(self) -> None:
        for group in stop_order({name: child.wanted.kind for name, child in self._children.items()}):
            await self._end_group([self._children[name] for name in group])

    async def _end_group(self, group: Sequence[Child]) -> None:
        for child in group:
            child.stop(self._steady(), "the supervisor ends")
        while any(child.alive for child in group):
            now, at = self._steady(), self._clock.now()
            for child in self._children.values():
                child.reap(now, at)
            if now - self._written >= _STATUS_SECONDS:
                self._write_status(now, at)
            await asyncio.sleep(_CHECK_SECONDS / 4)


def controller_fault(child: Child) -> str:
    """Why a controller is not ready, and what to do; empty for one that is, and for other processes."""
    if child.wanted.kind != "controller" or child.ready or child.identity is None:
        return ""
    return f"{_HUNG if child.is_heard else _UNHEARD}; {_REMEDY.format(pid=child.identity.pid)}"


def server_trouble(child: Child, health: ServerHealth) -> str:
    """What a server that is ready cannot do, and what follows; empty where there is nothing."""
    troubles = []
    if health.overloaded:
        troubles.append("its queue is full: requests that would wait too long get 429")
    if "online" in health.unreachable:
        store = masked(online_of(child.wanted.command) or "")
        troubles.append(
            f"the online store {store} does not answer: requests for features that are read from it get 503"
        )
    return "; ".join(troubles)
