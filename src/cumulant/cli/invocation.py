"""One call of a command: its project, environment, action and output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.core.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.cli.output import CommandOutput
    from cumulant.core.progress import Progress
    from cumulant.project.project import Project
    from cumulant.server.client.caller import OperationCaller


class Invocation:
    """The first argument of every command; its members are created on first use."""

    def __init__(
        self, *, directory: str | None, environment: str, action: str | None, output: CommandOutput, server: str = ""
    ) -> None:
        self.server = server
        self.environment = environment
        self.action = action
        self.output = output
        self._directory = directory

    @property
    def json(self) -> bool:
        return self.output.json

    @property
    def given(self) -> str | None:
        """The value of `--project`, if any."""
        return self._directory

    @property
    def directory(self) -> Path:
        """The folder named by `--project`; else the nearest one, from here upwards, with a project file."""
        if self._directory is not None:
            return Path(self._directory)
        here = Path.cwd()
        return next((folder for folder in (here, *here.parents) if (folder / "cumulant.yaml").is_file()), here)

    def project(self, *, personal: bool = False) -> Project:
        """The loaded project, after checking that the user may do this command's action; `personal`: which shows rows
        that may be personal.

        Raises:
            ProjectFileError: the file has faults.
            RefusedError: the user may not.
            UsageError: the command is called with `--server`, and these options of it need the project itself.
        """
        from cumulant.flows.ledger.actions import check
        from cumulant.project.file.loading import load

        if self.server:
            raise UsageError(
                "with these options the command works on the project's machine, not with --server",
                subject=self.server,
                hint="leave them out, or run it on that machine",
            )
        project = load(self.directory, environment=self.environment, via="cli")
        self.output.redact = project.vault.redact
        if self.action is not None:
            check(project, project.principal(), self.action, personal=personal)
        return project

    @contextmanager
    def api(self) -> Iterator[OperationCaller]:
        """What calls operations of the API: of the loaded project, or with `--server` of the one on that server.

        Raises:
            ProjectFileError: the file has faults.
            RefusedError: the user may not.
            UsageError: the address is none that a token may be sent to.
            EngineUnavailableError: the server does not answer.
            CredentialsError: it does not know the token.
        """
        if not self.server:
            from cumulant.server.client.local_api import LocalApi

            with self.project() as project:
                yield LocalApi(project, self.note)
            return
        from cumulant.project.identity import api_token
        from cumulant.server.client.http_api import HttpApi

        remote = HttpApi(self.server, token=api_token(self.server), project=self.given or "", note=self.note)
        try:
            yield remote
        finally:
            remote.close()

    def line(self, command: str) -> str:
        """A command line to run next, of the same project and environment."""
        from cumulant.cli.program import line
        from cumulant.project.file.layers import LOCAL

        text = line(command, project=self.given, environment=None if self.environment == LOCAL else self.environment)
        return f"{text} --server {self.server}" if self.server else text

    @contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        """Progress on standard error: live on a terminal, a line a step elsewhere, nothing with `--json`."""
        from cumulant.cli.progress import show_progress

        with show_progress(title, self.output) as progress:
            yield progress

    def answer(self, document: object, text: Callable[[Console], None]) -> None:
        """Write the result: `document` as JSON with `--json`, else what `text` prints."""
        if self.json:
            self.output.document(document)
        else:
            text(self.output.console())

    def note(self, sentence: str) -> None:
        """Write a line on standard error, beside the result."""
        self.output.notices().print(f"note: {self.output.redact(sentence)}", soft_wrap=True)
