"""Rules of the port `compute`."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import pytest

from cumulant.core.errors import (
    CumulantError,
    DataError,
    DefinitionError,
    NotFoundError,
    ProjectFileError,
    RetryableError,
    StepCancelledError,
    StepFailedError,
)
from cumulant.core.progress import Progress
from cumulant.ports.compute import Compute, StepCall
from cumulant.testing.conformance.gaps import Suite

_HERE = __name__


def add(first: float, second: float) -> dict[str, object]:
    """A step that the suite runs."""
    print("a step may print")  # noqa: T201
    return {"sum": first + second, "pair": (first, second)}


def echo(**arguments: object) -> dict[str, object]:
    return arguments


def report(count: int, progress: Progress) -> dict[str, object]:
    for number in range(count):
        progress(f"part {number}", None if number == 0 else number / count)
    return {"reported": count}


def report_slowly(count: int, progress: Progress) -> dict[str, object]:
    """A step whose reports are a second apart."""
    for number in range(count):
        progress(f"part {number}", number / count)
        time.sleep(1)
    return {"reported": count}


def report_on(progress: Progress) -> dict[str, object]:
    """A step that reports for a minute."""
    for number in range(600):
        progress(f"part {number}")
        time.sleep(0.1)
    return {}


def refuse(kind: str) -> dict[str, object]:
    """Raise one of our errors."""
    if kind == "project":
        raise ProjectFileError("bad file", problems=[("a.yaml", 3, "unknown key")], hint="look there")
    kinds: Mapping[str, type[CumulantError]] = {"data": DataError, "missing": NotFoundError, "retry": RetryableError}
    raise kinds[kind]("it did not work", subject="flights", hint="try this")


def crash() -> dict[str, object]:
    return {"never": 1 / 0}


def no_object() -> list[int]:
    return [1]


class ComputeConformance(Suite):
    """Give a fixture `compute`."""

    @pytest.fixture
    def compute(self) -> Compute:
        raise NotImplementedError

    def test_a_step(self, compute: Compute) -> None:
        result = compute.run(StepCall(f"{_HERE}:add", {"first": 1, "second": 0.5}))
        assert result == {"sum": 1.5, "pair": [1, 0.5]}

    def test_arguments_arrive_as_json(self, compute: Compute) -> None:
        arguments: dict[str, object] = {"text": "ä\n\u2028", "none": None, "nested": {"list": [1, {"a": []}]}}
        assert compute.run(StepCall(f"{_HERE}:echo", arguments)) == arguments

    @pytest.mark.parametrize(
        ("kind", "error"), [("data", DataError), ("missing", NotFoundError), ("retry", RetryableError)]
    )
    def test_our_errors_arrive_as_themselves(self, compute: Compute, kind: str, error: type[CumulantError]) -> None:
        with pytest.raises(CumulantError) as caught:
            compute.run(StepCall(f"{_HERE}:refuse", {"kind": kind}))
        assert type(caught.value) is error
        assert str(caught.value) == caught.value.message == "it did not work"
        assert (caught.value.subject, caught.value.hint) == ("flights", "try this")

    def test_what_an_error_carries(self, compute: Compute) -> None:
        with pytest.raises(ProjectFileError) as caught:
            compute.run(StepCall(f"{_HERE}:refuse", {"kind": "project"}))
        assert caught.value.problems == (("a.yaml", 3, "unknown key"),)
        assert caught.value.as_dict()["hint"] == "look there"

    def test_reports_arrive_in_order_and_before_the_result(self, compute: Compute) -> None:
        reports: list[tuple[str, float | None, int]] = []

        def progress(text: str, share: float | None = None) -> None:
            reports.append((text, share, threading.get_ident()))

        count = 300
        assert compute.run(StepCall(f"{_HERE}:report", {"count": count}), progress=progress) == {"reported": count}
        here = threading.get_ident()
        assert reports == [(f"part {n}", n / count if n else None, here) for n in range(count)]
        assert compute.run(StepCall(f"{_HERE}:report", {"count": 1})) == {"reported": 1}

    def test_an_interrupt_during_a_report_ends_the_step(self, compute: Compute) -> None:
        def interrupt(text: str, share: float | None = None) -> None:
            raise KeyboardInterrupt(text, share)

        with pytest.raises(KeyboardInterrupt):
            compute.run(StepCall(f"{_HERE}:report", {"count": 1}), progress=interrupt)

    def test_a_step_that_is_cancelled_while_it_runs(self, compute: Compute) -> None:
        cancel = threading.Event()

        def progress(text: str, share: float | None = None) -> None:
            del text, share
            cancel.set()

        with pytest.raises(StepCancelledError):
            compute.run(StepCall(f"{_HERE}:report_on", {}), cancel=cancel, progress=progress)

    def test_a_step_that_is_cancelled_before_it_begins(self, compute: Compute) -> None:
        cancel = threading.Event()
        cancel.set()
        with pytest.raises(StepCancelledError):
            compute.run(StepCall(f"{_HERE}:add", {"first": 1, "second": 2}), cancel=cancel)

    def test_a_step_of_a_key_runs_again_once_its_result_was_returned(self, compute: Compute) -> None:
        for second in (2, 3):
            call = StepCall(f"{_HERE}:add", {"first": 1, "second": second})
            assert compute.run(call, key="sum")["sum"] == 1 + second

    def test_other_errors_fail_the_step(self, compute: Compute) -> None:
        with pytest.raises(StepFailedError, match="ZeroDivisionError"):
            compute.run(StepCall(f"{_HERE}:crash", {}))

    @pytest.mark.parametrize("function", ["no_such_module:f", f"{_HERE}:no_such_function", "no_colon"])
    def test_functions_that_are_not_there(self, compute: Compute, function: str) -> None:
        with pytest.raises(DefinitionError):
            compute.run(StepCall(function, {}))

    def test_a_result_that_is_no_object(self, compute: Compute) -> None:
        with pytest.raises(DefinitionError):
            compute.run(StepCall(f"{_HERE}:no_object", {}))
