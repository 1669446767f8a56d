"""A polite request to end reaches the command, wherever the main thread is when it comes."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from cumulant.cli import main
from cumulant.cli.app import run
from cumulant.cli.output import CommandOutput
from cumulant.cli.termination import termination


class Finalized:
    """Its finalizer is interrupted by the signal: Python drops what is raised there."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)
        time.sleep(0)


@pytest.fixture
def default_interrupt():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_interrupt")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_drops_is_raised_again(number: int) -> None:
    def wait() -> None:
        Finalized(number)
        time.sleep(20)

    with termination() as asked:
        with pytest.raises(KeyboardInterrupt):
            wait()
        assert asked.received is (number == signal.SIGTERM)


def test_what_else_python_drops_is_shown_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __del__(self) -> None:
            raise ValueError("broken")

    dropped: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", lambda one: dropped.append(one.exc_type))
    with termination():
        Broken()
    assert dropped == [ValueError]


def test_an_interrupt_while_the_command_line_is_imported_shows_no_traceback(monkeypatch, capsys) -> None:
    class Interrupted:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "cumulant.cli.app":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "cumulant.cli.app")
    monkeypatch.delattr("cumulant.cli.app")
    monkeypatch.setattr("sys.meta_path", [Interrupted(), *sys.meta_path])
    monkeypatch.setattr("cumulant.cli.process_settings.collect_rarely", lambda: None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr().err) == (130, "interrupted\n")


@pytest.mark.parametrize(("end", "code"), [(lambda: None, 130), (lambda: os.kill(os.getpid(), signal.SIGTERM), 143)])
def test_an_error_that_an_interrupt_led_to_ends_the_command_as_the_interrupt(monkeypatch, capsys, end, code) -> None:
    def interrupted(words: object, output: CommandOutput) -> int:
        if code == 130:
            output.interrupted = "the job goes on"
        try:
            end()
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ImportError("initialization failed") from error

    monkeypatch.setattr("cumulant.cli.app._call", interrupted)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ended = run(["train"])
    signal.signal(signal.SIGTERM, before)
    assert ended == code
    told = "the job goes on" if code == 130 else "run the same command again"
    assert capsys.readouterr().err.startswith(f"interrupted; {told}")
