"""Where a browser goes after it has signed in: paths of this server alone."""

from __future__ import annotations

from urllib.parse import quote

_LONGEST = 2_000
HOME = "/"
#: paths that only lead back to the sign-in
_OWN = ("/login", "/logout")


def local_path(text: str) -> str:
    """`text` where it is a path of this server, else `/`: a link may come from anybody."""
    if not text.startswith("/") or len(text) > _LONGEST or not text.isascii() or not text.isprintable():
        return HOME
    path = text.partition("?")[0]
    if "\\" in text or " " in text or "//" in path or path.startswith(_OWN):
        return HOME
    return text


def login_path(target: str) -> str:
    """The page to sign in at, from where the browser goes on to `target`."""
    target = local_path(target)
    return "/login" if target == HOME else f"/login?next={quote(target, safe='/')}"
