"""Where a browser goes after it has signed in: paths of this server alone."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

_LONGEST = 2_000
HOME = "/"
#: paths that only lead back to the sign-in
_OWN = ("/login", "/logout")
_SLASHES = ("%2f", "%5c")


def local_path(text: str) -> str:
    """`text` where it is a path of this server, else `/`: a link may come from anybody."""
    if not text.startswith("/") or len(text) > _LONGEST or not text.isascii() or not text.isprintable():
        return HOME
    path = text.partition("?")[0]
    # Whoever decodes a path once more would read the second sign of these as a slash before a host.
    if "\\" in text or " " in text or "//" in path or path.startswith(_OWN) or path[1:4].lower() in _SLASHES:
        return HOME
    return text


def path_of(url: str) -> str:
    """Path and query of the URL that a page is shown at."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return HOME
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def renewal_path(target: str) -> str:
    """Where a session is checked at the provider again, from where the browser goes on to `target`."""
    return f"/login/start?next={quote(local_path(target), safe='/')}"


def login_path(target: str) -> str:
    """The page to sign in at, from where the browser goes on to `target`."""
    target = local_path(target)
    return "/login" if target == HOME else f"/login?next={quote(target, safe='/')}"
