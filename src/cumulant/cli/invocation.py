"""One call of a command: its project, environment, action and output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.cli.output import CommandOutput
    from cumulant.core.progress import Progress
    from cumulant.project.project import Project


class Invocation:
    """The first argument of every command; its members are created on first use."""

    def __init__(self, *, directory: str | None, environment: str, action: str | None, output: CommandOutput) -> None:
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
        """
        from cumulant.flows.ledger.actions import check
        from cumulant.project.file.loading import load

        project = load(self.directory, environment=self.environment, via="cli")
        self.output.redact = project.vault.redact
        if self.action is not None:
            check(project, project.principal(), self.action, personal=personal)
        return project

    def line(self, command: str) -> str:
        """A command line to run next, of the same project and environment."""
        from cumulant.cli.program import line
        from cumulant.project.file.layers import LOCAL

        return line(command, project=self.given, environment=None if self.environment == LOCAL else self.environment)

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
