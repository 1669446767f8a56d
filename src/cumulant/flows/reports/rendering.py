"""Pages from templates: one Jinja2 environment, which escapes every value and refuses names that are not defined."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from cumulant.core.errors import missing_part
from cumulant.flows.reports import wording
from cumulant.flows.reports.svg_elements import printable

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, page: object) -> str:
    """The text of a template, where `page` is a struct with all its values.

    Raises:
        MissingPartError: Jinja2 is not installed.
    """
    # Once over the whole text: neither a value nor a filter can bring in a character that no page may hold.
    return printable(environment().get_template(template).render(page=page))


@cache
def environment() -> Environment:
    """The environment of this package's templates."""
    return make_environment(__package__)


def make_environment(package: str) -> Environment:
    """An environment of a package's templates: they name functions of `wording`, and otherwise what they are given.

    Raises:
        MissingPartError: Jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise missing_part("jinja2", "train") from None
    templates = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        optimized=False,  # a process renders few pages: folding constants takes longer than it saves
    )
    templates.globals["wording"] = wording
    return templates
