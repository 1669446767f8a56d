"""Rows of lists as rendered text: most rows of a page are those of the page before."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from markupsafe import Markup

from cumulant.console.rendering import environment

Item = TypeVar("Item")
#: rows that are kept, of all projects; about 1 KB each
_MOST = 4_000
#: characters of a row that is kept: an event may have much more, and is rendered each time
_LARGEST = 16_000


class RenderedRows:
    """Texts of rows by all that they are made of, so that nobody is shown a row that was not read for them.

    The rows that were used longest ago are dropped. Threads may share it.
    """

    def __init__(self, *, most: int = _MOST) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._texts: OrderedDict[tuple[object, ...], str] = OrderedDict()

    def render(
        self,
        template: str,
        items: Iterable[Item],
        *,
        key: Callable[[Item], object],
        values: Callable[[Item], Mapping[str, object]],
        **shared: str | bool,
    ) -> Markup:
        """The rows of `items`, each by the macro `row` of the template `rows/TEMPLATE.html.jinja`, which gets `values`
        and `shared`. `key`: equal for equal values, and hashable.
        """
        macro, texts = None, []
        place = (template, *shared.values())
        for item in items:
            name = (*place, key(item))
            text = self._known(name)
            if text is None:
                macro = macro or environment().get_template(f"rows/{template}.html.jinja").module.row  # type: ignore[attr-defined]
                text = str(macro(**values(item), **shared))
                self._keep(name, text)
            texts.append(text)
        return Markup("".join(texts))  # noqa: S704 - rendered by templates that escape

    def _known(self, name: tuple[object, ...]) -> str | None:
        with self._lock:
            text = self._texts.get(name)
            if text is not None:
                self._texts.move_to_end(name)
            return text

    def _keep(self, name: tuple[object, ...], text: str) -> None:
        if len(text) > _LARGEST:
            return
        with self._lock:
            self._texts[name] = text
            while len(self._texts) > self._most:
                self._texts.popitem(last=False)
