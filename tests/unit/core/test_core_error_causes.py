"""What led to an error."""

from __future__ import annotations

from cumulant.core.errors import causes, is_interrupt


def test_errors_that_are_the_cause_of_each_other_end() -> None:
    first, second = ValueError("first"), TypeError("second")
    first.__cause__, second.__context__ = second, first
    assert list(causes(first)) == [first, second]
    assert not is_interrupt(first)


def test_an_interrupt_below_other_errors_is_one() -> None:
    error = ValueError("a session that was interrupted")
    error.__context__ = ImportError("not loaded")
    error.__context__.__context__ = KeyboardInterrupt()
    assert is_interrupt(error)
