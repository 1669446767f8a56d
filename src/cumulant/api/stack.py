"""`project.stack`: the processes of `cumulant up`, and `project.releases` on them."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cumulant.api.errors import short_methods
from cumulant.api.group import MethodGroup
from cumulant.core.errors import EngineUnavailableError, NotFoundError
from cumulant.core.system.child_processes import stop
from cumulant.core.traffic import CHAMPION
from cumulant.flows.ledger.actions import check

if TYPE_CHECKING:
    from cumulant.flows.replay.caller import ReplayClient
    from cumulant.flows.stack.desired_state import ServedVersion
    from cumulant.flows.stack.status import Status
    from cumulant.release.state import Release

_STOP_SECONDS = 90.0
#: for servers and gateways of other machines
_MACHINES_SECONDS, _CHECK_SECONDS = 120.0, 0.2
#: folder of the gateway's files in the state of a project
_GATEWAY = "gateway"


class RunningStack:
    """A stack that answers at `.url` until `.stop()`, the end of a `with` block, or the end of this process."""

    def __init__(self, process: subprocess.Popen[bytes], url: str | None) -> None:
        self._process = process
        self.url = url

    def client(self, *, timeout: float = 30.0) -> ReplayClient:
        """An HTTP client of the gateway for many requests at once, for use in one event loop; seconds until no answer.

        Raises:
            EngineUnavailableError: it has no gateway.
        """
        from cumulant.flows.replay.caller import ReplayClient

        if self.url is None:
            raise EngineUnavailableError("no gateway runs here", hint="start it with the role `gateway`")
        return ReplayClient(self.url, timeout=timeout)

    def stop(self) -> None:
        """End all processes; requests under way are finished first.

        Raises:
            EngineUnavailableError: the supervisor does not end in time.
        """
        if not stop(self._process, _STOP_SECONDS):
            raise EngineUnavailableError("the supervisor did not end in time", hint="`cumulant down` ends what is left")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@short_methods
class ProjectStack(MethodGroup):
    """The gateway, the servers and the controller of a project."""

    @property
    def gateway_key_file(self) -> Path:
        """The file of the key by which servers recognize the gateway while the stack runs."""
        from cumulant.flows.stack.gateway_key import key_path

        return key_path(self._loaded.state)

    def check(self) -> None:
        """Raise MissingPartError where no gateway is installed, so that `up` would fail."""
        from cumulant.flows.stack.stack_processes import check_gateway

        check_gateway(self._loaded)

    @property
    def spans_machines(self) -> bool:
        """Whether gateway, servers and controller run on several machines: `deploy: hosts://`."""
        from cumulant.flows.deployment.deployment import is_shared

        return is_shared(self._loaded)

    def up(
        self,
        model: str = "",
        *,
        http: str = "127.0.0.1:0",
        roles: Sequence[str] = (),
        advertise: str = "",
        observe: bool = False,
    ) -> RunningStack:
        """Start all processes and return when the gateway answers; as `cumulant up`.

        `model` is served first where nothing was served yet; default: the champion, else the newest version. With
        `deploy: hosts://`, `roles` and `advertise` are as `cumulant up` takes them, and the gateway may be another
        machine's. With `observe`, Prometheus and Alertmanager run beside them.

        Raises:
            LeaseHeldError: the stack runs already.
            UsageError: another version than `model` is served.
            MissingPartError: no gateway is installed, or Prometheus with `observe`.
            EngineUnavailableError: a process does not answer; all have ended again.
        """
        from cumulant.flows.stack.lifecycle import up

        with self._follow("up") as progress:
            stack = up(
                self._loaded,
                model,
                principal=self._principal,
                http=http,
                roles=roles,
                advertise=advertise,
                observe=observe,
                progress=progress,
            )
        running = RunningStack(stack.process, stack.status.url)
        if self.spans_machines:
            try:
                running.url = self._await_gateway()
            except BaseException:
                running.stop()
                raise
        return running

    def _await_gateway(self) -> str:
        from cumulant.flows.deployment.deployment import deployment_of, with_servers
        from cumulant.flows.traffic.clients import gateway_url

        desired = deployment_of(self._loaded).read(self._loaded.name)
        with_servers(self._loaded, desired.arm(desired.champion or "", CHAMPION), within=_MACHINES_SECONDS)
        deadline = time.monotonic() + _MACHINES_SECONDS
        while (url := gateway_url(self._loaded)) is None:
            if time.monotonic() > deadline:
                raise EngineUnavailableError(
                    f"no machine has a gateway that is ready after {_MACHINES_SECONDS:g} s",
                    hint="`cumulant up --role gateway` starts one",
                )
            time.sleep(_CHECK_SECONDS)
        return url

    def status(self) -> Status | None:
        """The processes, as `cumulant ps`; None where no supervisor runs."""
        from cumulant.flows.stack.lifecycle import ps

        return ps(self._loaded, principal=self._principal)

    def champion(self) -> ServedVersion:
        """The version that is served as the champion.

        Raises:
            NotFoundError: nothing was served yet.
        """
        from cumulant.flows.deployment.deployment import deployment_of

        check(self._loaded, self._principal, "stack.show")
        desired = deployment_of(self._loaded).read(self._loaded.name)
        if desired.champion is None:
            raise NotFoundError("nothing was served yet", subject=self._loaded.name, hint="call `.stack.up()`")
        return desired.versions[desired.champion]

    def champion_url(self) -> str:
        """The URL of a server of the champion.

        Raises:
            NotFoundError: nothing was served yet.
            EngineUnavailableError: no machine has one that is ready.
        """
        from cumulant.flows.deployment.deployment import deployment_of, with_servers

        arm = deployment_of(self._loaded).read(self._loaded.name).arm(self.champion().version, CHAMPION)
        return with_servers(self._loaded, arm, within=_MACHINES_SECONDS).endpoints[0]

    def down(self) -> int:
        """End all processes, whoever started them, as `cumulant down`; returns their number.

        Raises:
            EngineUnavailableError: the supervisor does not end.
            UsageError: it runs on another machine.
        """
        from cumulant.flows.stack.lifecycle import down

        return down(self._loaded, principal=self._principal)

    def reset(self, *, reason: str) -> None:
        """End all processes, abort a release under way and delete the record of the versions that are served.

        The next `up` serves the model that it names. Models, logs and stored features stay.

        Raises:
            EngineUnavailableError: the supervisor does not end.
        """
        from cumulant.flows.deployment.deployment import deployment_of
        from cumulant.flows.release import actions, store
        from cumulant.flows.stack.desired_state import FOLDER, DesiredState

        self.down()
        current = store.read(self._loaded.journal(), self._loaded.name)
        if current is not None and not current[0].over:
            actions.abort(self._loaded, principal=self._principal, reason=reason)
        if self.spans_machines:
            deployment_of(self._loaded).change(
                self._loaded.name, lambda desired: DesiredState(model=desired.model, edition=desired.edition)
            )
        for folder in (FOLDER, _GATEWAY):
            shutil.rmtree(self._loaded.state / folder, ignore_errors=True)


@short_methods
class ProjectReleases(MethodGroup):
    """Releases of a project, on its running stack."""

    def start(
        self, model: str = "", *, external: tuple[str, str] | None = None, override_slo: str = ""
    ) -> Release | None:
        """Begin the release of a version, as `cumulant release start`; None where it waits for one under way.

        `external`: URLs of two servers, champion and candidate, that are compared instead of registered versions.
        `override_slo`: why it begins and goes on whatever the objectives of the served model are; it is recorded.

        Raises:
            RefusedError: the candidate is not admitted.
            ObjectiveMissedError: the served model misses an objective, which `release.slo` waits for.
            LeaseHeldError: another release is under way.
            EngineUnavailableError: the stack does not run, or the candidate's server does not answer.
        """
        from cumulant.flows.release.controller.external_servers import ExternalServers
        from cumulant.flows.release.start.start import start_release

        servers = None if external is None else ExternalServers(champion=external[0], candidate=external[1])
        with self._follow("release") as progress:
            started = start_release(
                self._loaded,
                model,
                principal=self._principal,
                outside=servers,
                override_slo=override_slo,
                progress=progress,
            )
        return started.release

    def current(self) -> Release:
        """The release under way, else the newest one; `.status`, `.reason`, `.over`.

        Raises:
            NotFoundError: there was no release yet.
        """
        from cumulant.flows.release import store

        check(self._loaded, self._principal, "release.show")
        return store.read_required(self._loaded.journal(), self._loaded.name)[0]
