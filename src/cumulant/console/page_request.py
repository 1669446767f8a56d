"""What a page is given: the request, the loaded projects, who asks; and how it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import quote, urlencode

from starlette.responses import HTMLResponse, RedirectResponse, Response

from cumulant.console import rendering
from cumulant.console.assets import Asset
from cumulant.console.memory import Memories, ProjectMemory
from cumulant.console.rows import RenderedRows
from cumulant.console.security import security_headers
from cumulant.core.errors import CumulantError, NotFoundError, did_you_mean
from cumulant.flows.access.allowed import allowed
from cumulant.flows.ledger.actions import permits
from cumulant.server.handler import is_hidden

if TYPE_CHECKING:
    from starlette.requests import Request

    from cumulant.ports.access import Principal
    from cumulant.project.project import Project
    from cumulant.server.jobs import Jobs
    from cumulant.server.overviews import Overviews

THEMES = ("light", "dark")
_SHOWN = 80


class Crumb(NamedTuple):
    """A step of the path to a page; without `href` the page itself."""

    label: str
    href: str = ""


class NavLink(NamedTuple):
    """A page of a project in the navigation. `key`: with `g` before it, the keyboard opens the page."""

    label: str
    href: str
    key: str
    current: bool


class Shell(NamedTuple):
    """What the frame of every page shows."""

    title: str
    nonce: str
    csrf: str
    theme: str
    who: str
    #: by a session, which can be ended, and not by a token
    signed_in: bool
    crumbs: Sequence[Crumb]
    nav: Sequence[NavLink]
    assets: Mapping[str, Asset]
    #: of the events of the page's project; empty: the page does not change by itself
    stream: str
    notice: str


class PageRequest:
    """A request for a page. `form`: the fields of a form that was sent."""

    def __init__(
        self, request: Request, site: Site, *, nonce: str, csrf: str, form: Mapping[str, str] | None = None
    ) -> None:
        self.request, self.site = request, site
        self.nonce, self.csrf, self.form = nonce, csrf, form or {}
        self.projects: Mapping[str, Project] = request.app.state.projects
        self.jobs: Jobs = request.app.state.jobs
        self.overviews: Overviews = request.app.state.overviews

    @property
    def principal(self) -> Principal:
        """Who asks. Of another tenant than a project's, it has no role there."""
        principal: Principal = self.request.state.principal
        return principal

    @property
    def project(self) -> Project:
        """The project that the path names. Raises NotFoundError."""
        name = self.request.path_params["project"]
        project = self.projects.get(name)
        if project is None:
            raise self._no_project(name)
        return project

    def _no_project(self, name: str) -> NotFoundError:
        shown = name[:_SHOWN]
        seen = [each.name for each in allowed(self.principal, "project.overview", self.projects.values())]
        hint = did_you_mean(shown, seen) or "the overview lists the projects"
        return NotFoundError(f'there is no project "{shown}" here', subject=shown, hint=hint)

    def as_seen(self, action: str, error: CumulantError) -> CumulantError:
        """The error of the page; that of an unknown project where the project is hidden from the principal."""
        project = self.projects.get(self.request.path_params.get("project", ""))
        if project is None or not is_hidden(self.request, project, action, error):
            return error
        return self._no_project(project.name)

    @property
    def memory(self) -> ProjectMemory:
        """What the console remembers of the page's project."""
        return self.site.memories.of(self.project)

    def path(self, name: str) -> str:
        """A parameter of the path."""
        return str(self.request.path_params[name])

    def query(self, name: str, default: str = "") -> str:
        return self.request.query_params.get(name, default).strip()

    def may(self, action: str, *, model: str | None = None) -> bool:
        """Whether the principal may do `action` to the page's project; for what is shown, the flow checks again."""
        return permits(self.project, self.principal, action, model=model)

    def href(self, *parts: str, **query: str) -> str:
        """A path below the page's project, each part quoted."""
        name = self.request.path_params["project"]
        path = "/".join(["/projects", *(quote(part, safe="") for part in (name, *parts))])
        return f"{path}?{urlencode(query)}" if query else path

    def page(
        self, template: str, *, title: str, crumbs: Sequence[Crumb] = (), live: bool = False, **values: object
    ) -> Response:
        """The page of a template. `live`: it follows the events of its project."""
        return self.answer(template, title=title, crumbs=crumbs, live=live, status=200, **values)

    def answer(
        self,
        template: str,
        *,
        title: str,
        status: int,
        crumbs: Sequence[Crumb] = (),
        live: bool = False,
        **values: object,
    ) -> Response:
        shell = Shell(
            title=title,
            nonce=self.nonce,
            csrf=self.csrf,
            theme=self._theme(),
            who=self._who(),
            signed_in=bool(getattr(self.request.state, "session", "")),
            crumbs=(Crumb("Overview", "/" if crumbs else ""), *crumbs),
            nav=self._nav(),
            assets=self.site.assets,
            stream=self.href("stream") if live else "",
            notice=self.site.notices.get(self.query("done"), ""),
        )
        text = rendering.render(template, shell=shell, **values)
        return HTMLResponse(text, status, headers=security_headers(self.nonce))

    def redirect(self, path: str, *, done: str = "") -> Response:
        """To a page of ours, after a form (POST, redirect, GET); `done` names the notice that it shows."""
        target = f"{path}?{urlencode({'done': done})}" if done else path
        return RedirectResponse(target, 303, headers=security_headers(self.nonce))

    def error(self, error: CumulantError, status: int) -> Response:
        """The page of an error, with its code and what to do next."""
        return self.answer("error.html.jinja", title=error_title(status), status=status, error=error, code=status)

    def _theme(self) -> str:
        theme = self.request.cookies.get("theme", "")
        return theme if theme in THEMES else ""

    def _who(self) -> str:
        principal = getattr(self.request.state, "principal", None)
        return "" if principal is None else str(principal.id).removeprefix("user:")

    def _nav(self) -> list[NavLink]:
        if self.request.path_params.get("project") not in self.projects or not self._who():
            return []
        here = self.request.url.path
        links = []
        for label, path, key, action in self.site.nav:
            if not self._may_open(action):
                continue
            href = self.href(*path)
            inside = here == href or (bool(path) and here.startswith(f"{href}/"))
            links.append(NavLink(label, href, key, inside))
        return links

    def _may_open(self, action: str | None) -> bool:
        """As `may`; False where the policies cannot be read, which the page reports."""
        try:
            return action is None or self.may(action)
        except CumulantError:
            return False


class Site(NamedTuple):
    """What all pages share: static files, navigation of a project, notices of forms by name, and what is remembered."""

    assets: Mapping[str, Asset]
    nav: Sequence[tuple[str, tuple[str, ...], str, str | None]]
    notices: Mapping[str, str]
    memories: Memories
    rows: RenderedRows


class Nav(NamedTuple):
    """A place in the navigation of a project; `key`: one letter."""

    label: str
    key: str


class PageRoute(NamedTuple):
    """A page, or what a form of it does.

    `action` is that of the flow behind it; None: the page is open to every principal and shows what each may see.
    `nav`: the page is in the navigation of its project. `notice`: what the page after this form says.
    """

    path: str
    handler: Callable[[PageRequest], Response]
    action: str | None
    method: Literal["GET", "POST"] = "GET"
    nav: Nav | None = None
    notices: Mapping[str, str] = {}


def error_title(status: int) -> str:
    titles = {403: "You may not do this", 404: "Not found", 409: "Something changed meanwhile", 503: "Not available"}
    return titles.get(status, "This did not work" if status < 500 else "Something went wrong here")
