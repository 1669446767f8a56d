"""Progress on standard error: live on a terminal, plain lines elsewhere, nothing with --json."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from cumulant.cli.output import CommandOutput
from cumulant.cli.progress import ProgressLines, Steps, show_progress


def drawn(steps: Steps, width: int = 80, height: int = 20) -> str:
    stream = StringIO()
    Console(file=stream, width=width, height=height, markup=False, highlight=False).print(steps)
    return stream.getvalue()


def test_steps_are_listed_and_the_running_one_has_its_detail_and_bar() -> None:
    steps = Steps("train")
    steps.say("data flights")
    steps.say("reading flights.parquet", 0.5)
    steps.say("search")
    steps.say("search", 0.0)
    steps.say("trial 3 of 30", 0.1)
    text = drawn(steps)
    assert "✓ data flights" in text
    assert "search · trial 3 of 30" in text
    assert " 10%" in text
    assert "reading" not in text


def test_a_step_said_again_is_the_same_step() -> None:
    steps = Steps("train")
    steps.say("search")
    steps.say("waiting for search: process 7 works on it (3 s)")
    steps.say("search")
    text = drawn(steps)
    assert "✓" not in text
    assert text.count("search ") >= 1


@pytest.mark.parametrize("width", [20, 40, 200])
def test_no_line_is_wider_than_the_window(width: int) -> None:
    steps = Steps("train")
    steps.say("data " + "x" * 300)
    steps.say("detail " + "y" * 300, 0.3)
    assert all(len(line) <= width for line in drawn(steps, width).splitlines())


def test_a_low_window_shows_the_newest_steps() -> None:
    steps = Steps("train")
    for number in range(30):
        steps.say(f"step {number}")
    text = drawn(steps, height=8)
    assert "step 29" in text
    assert "step 28" in text
    assert "step 3\n" not in text
    assert len(text.splitlines()) <= 8


def test_plain_lines_say_each_step_once() -> None:
    stream = StringIO()
    lines = ProgressLines(Console(file=stream, markup=False, highlight=False))
    for text, share in (
        ("data [b]flights[/b]", None),
        ("reading", 0.1),
        ("reading", 0.9),
        ("search", None),
        ("search", None),
    ):
        lines.say(text, share)
    assert stream.getvalue() == "data [b]flights[/b]\nsearch\n"


def test_plain_lines_say_what_a_long_step_does_now_and_then() -> None:
    stream, now = StringIO(), [0.0]
    lines = ProgressLines(Console(file=stream, markup=False, highlight=False), clock=lambda: now[0])
    lines.say("trying lightgbm")
    for number in range(1, 41):
        now[0] += 1.0
        lines.say(f"lightgbm: trial {number} of 40", number / 40)
    lines.say("trying catboost")
    now[0] += 100.0
    lines.say("trying catboost", 0.0)
    assert stream.getvalue().splitlines() == [
        "trying lightgbm",
        "lightgbm: trial 15 of 40",
        "lightgbm: trial 30 of 40",
        "trying catboost",
    ]


def test_with_json_progress_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with CommandOutput(json=True) as output, show_progress("train", output) as progress:
        progress("search")
    found = capsys.readouterr()
    assert (found.out, found.err) == ("", "")
