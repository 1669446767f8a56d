"""Pages from the console's templates: values are escaped, and a name that is not defined is an error."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import quote

from markupsafe import Markup

from cumulant.flows.reports.rendering import make_environment
from cumulant.flows.reports.svg_elements import printable

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **values: object) -> str:
    """The text of a template."""
    return printable(environment().get_template(template).render(**values))


def compile_templates() -> None:
    """Compile all templates, which the first page of each would else wait for."""
    for name in environment().list_templates():
        environment().get_template(name)


@cache
def environment() -> Environment:
    templates = make_environment(__package__)
    templates.filters["when"] = when
    templates.filters["part"] = lambda text: quote(str(text), safe="")
    return templates


def when(moment: datetime | None) -> Markup | str:
    """A moment as `<time>`, in UTC until the page's script shows it in the viewer's zone."""
    if moment is None:
        return "–"
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    text = moment.isoformat(timespec="seconds")[:19]
    return Markup(f'<time datetime="{text}Z">{text[:10]} {text[11:16]} UTC</time>')  # noqa: S704 - digits
