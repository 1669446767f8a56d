"""The overview of all projects, and of one: the worst first, with what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

import msgspec
from msgspec.json import encode

from cumulant.console.page_request import Crumb, Nav, PageRequest, PageRoute
from cumulant.flows.overview.problems import DRIFT_WORDS, Level, ModelProblem, NextStep
from cumulant.flows.overview.project_overview import (
    ProjectOverview,
    project_overview,
)
from cumulant.flows.reports.svg_elements import Drawing, draw, element

if TYPE_CHECKING:
    from starlette.responses import Response


_ACTION = "project.overview"
#: the moment of an overview, which a card does not show
_ANY = datetime(1970, 1, 1, tzinfo=UTC)
#: cards of a page
_CARDS = 50
#: of levels with a problem, the worst first, for one model and for several
_WORDS: Mapping[Level, tuple[str, str]] = {
    "critical": ("is in a critical state", "are in a critical state"),
    "warning": ("needs attention today", "need attention today"),
    "notice": ("waits for a decision or is being released", "wait for a decision or are being released"),
}
#: by target of a next step, the page below the project
_PAGES: Mapping[str, str] = {
    "alerts": "monitoring",
    "data": "data",
    "events": "events",
    "monitoring": "monitoring",
    "release": "releases",
    "review": "review",
    "rollback": "releases",
    "runs": "runs",
}


#: by kind of change
_CAUSES: Mapping[str, str] = {
    "concept": "the same inputs have other outcomes",
    "covariate": "the inputs changed",
    "data_fault": "a fault of the data",
    "feed": "a feed is incomplete",
    "prior": "outcomes are more or less frequent",
    "quality": "bad data",
    "volume": "more or fewer rows arrive",
    "errors": "server errors",
    "latency": "slow answers",
}


class Card(NamedTuple):
    """A project: its overview, the link of its next step, and its losses as a small drawing."""

    overview: ProjectOverview
    href: str
    next_href: str
    spark: Drawing | None


def all_projects(page: PageRequest) -> Response:
    """Every project that the principal may see, the worst first."""
    first = _place(page.query("page"))
    place = slice(first * _CARDS, (first + 1) * _CARDS)
    overviews, levels, *_ = page.overviews.page(page.principal, page.projects, place)
    shown = overviews[place]
    more = f"/?page={first + 2}" if len(overviews) > (first + 1) * _CARDS else ""
    fewer = "" if not first else "/" if first == 1 else f"/?page={first}"
    return page.page(
        "overview.html.jinja",
        title="Overview",
        any=bool(shown),
        cards=page.site.rows.render(
            "card",
            [_card(page, each) for each in shown],
            key=lambda card: (encode(msgspec.structs.replace(card.overview, at=_ANY)), card.next_href),
            values=lambda card: {"card": card},
        ),
        headline=headline(overviews[0], levels) if overviews else "",
        level=overviews[0].level if overviews else "unknown",
        more=more,
        fewer=fewer,
    )


def one_project(page: PageRequest) -> Response:
    """One project, with everything that is wrong with it."""
    overview = project_overview(page.project, principal=page.principal, memory=page.overviews.memory(page.project))
    return page.page(
        "project.html.jinja",
        title=overview.project,
        crumbs=[Crumb(overview.project)],
        live=page.may("events.show"),
        card=_card(page, overview),
        steps=[_step_href(page, overview.project, problem.next) for problem in overview.problems],
        finding_text=finding_text,
        cause_text=cause_text,
    )


def finding_text(problem: ModelProblem) -> tuple[str, str]:
    """The heading of a finding, and its sentence without it: `drift of temperature`, `mean rose from 3.1 to 9.4`."""
    kind, separator, rest = problem.sentence.partition(": ")
    if separator and kind in DRIFT_WORDS.values():
        what, text = kind, rest
    else:
        what, text = problem.what.replace("_", " "), problem.sentence
    return what if problem.subject in (problem.what, what) else f"{what} of {problem.subject}", text


def cause_text(cause: str) -> str:
    """A likely cause in words."""
    return _CAUSES.get(cause, cause.replace("_", " "))


def headline(worst: ProjectOverview, levels: Mapping[Level, int]) -> str:
    """`1 of 3 models is in a critical state: fraud`; of one `project fraud is in a critical state`. `worst`: the first
    of the list, `levels`: how many are of each.
    """
    total = sum(levels.values())
    for level, words in _WORDS.items():
        count = levels.get(level, 0)
        if count and total == 1:
            return f"project {worst.project} {words[0]}"
        if count:
            named = f": {worst.project}" if count == 1 else ""
            return f"{count} of {total} models {words[count > 1]}{named}"
    unknown = levels.get("unknown", 0)
    if unknown:
        return f"nothing is wrong; {unknown} of {total} were not evaluated yet"
    return f"none of {total} models has a problem" if total > 1 else f"no problem in {worst.project}"


def _card(page: PageRequest, overview: ProjectOverview) -> Card:
    href = f"/projects/{quote(overview.project, safe='')}"
    step = overview.next
    losses = overview.quality.losses if overview.quality else ()
    return Card(overview, href, _step_href(page, overview.project, step) if step else "", loss_line(losses))


def _step_href(page: PageRequest, project: str, step: NextStep) -> str:
    """Where the next step is taken; empty where only the command does it."""
    name = _PAGES.get(step.target, "")
    if name not in {path[0] for _, path, _, _ in page.site.nav if path}:
        return ""
    parts = [project, name]
    if step.target == "release" and step.subject:
        parts.append(step.subject)
    return "/".join(["/projects", *(quote(part, safe="") for part in parts)])


def loss_line(losses: tuple[float, ...]) -> Drawing | None:
    """The losses of the newest windows as a line; None for fewer than two."""
    if len(losses) < 2:
        return None
    low, high = min(losses), max(losses)
    span = (high - low) or 1.0
    points = " ".join(
        f"{2 + 66 * place / (len(losses) - 1):.1f},{16 - 14 * (loss - low) / span:.1f}"
        for place, loss in enumerate(losses)
    )
    text = f"losses of the newest windows, {low:.3g} to {high:.3g}"
    return draw(text, element("polyline", points=points, class_="model"), width=70, height=18)


def _place(text: str) -> int:
    return max(0, int(text) - 1) if text.isascii() and text.isdecimal() and len(text) < 6 else 0


ROUTES = (
    PageRoute("/", all_projects, None),
    PageRoute("/projects/{project}", one_project, _ACTION, nav=Nav("Overview", "o")),
)
