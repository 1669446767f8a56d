"""The process of the API: it claims the address, announces it, answers, and drains."""

from __future__ import annotations

import gc
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.structs import prepare_decoding
from cumulant.flows.ledger.refusals import record_refusals
from cumulant.server.application import Middleware, create_application
from cumulant.server.connections import server_of
from cumulant.server.file_changes import follow_files
from cumulant.server.jobs import Jobs
from cumulant.server.streaming.uploads import sweep_uploads
from cumulant.serving.workers.event_loops import loaded_objects_frozen, restore_signals, shorten_thread_turns

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.routing import BaseRoute

    from cumulant.project.project import Project
    from cumulant.server.overviews import Overviews


def serve(
    projects: Mapping[str, Project],
    listener: socket.socket,
    *,
    authenticate: Middleware,
    pages: Sequence[BaseRoute] = (),
    announce: Callable[[], None] = lambda: None,
    prepare: Callable[[], None] = lambda: None,
) -> None:
    """Answer on a bound socket until SIGTERM or SIGINT; running requests are finished, and jobs end.

    `prepare` is done by a thread, beside the first requests.
    """
    jobs = Jobs()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        announce()
        overviews.warm(projects.values(), prepare_and_freeze)
        yield

    def prepare_and_freeze() -> None:
        prepare()
        gc.freeze()  # what was loaded since the start, too

    application = create_application(projects, authenticate=authenticate, pages=pages, jobs=jobs, lifespan=lifespan)
    overviews: Overviews = application.state.overviews
    prepare_all_decoding()
    with ExitStack() as stack:
        stack.enter_context(loaded_objects_frozen())
        stack.enter_context(shorten_thread_turns())
        for project in projects.values():
            sweep_uploads(project)
            stack.enter_context(record_refusals(project, lambda text: sys.stderr.write(f"{text}\n")))
        stack.enter_context(follow_files(projects.values(), lambda text: sys.stderr.write(f"{text}\n")))
        stack.callback(jobs.close)
        stack.callback(overviews.close)
        stack.enter_context(restore_signals())
        for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises them again once it has drained
            signal.signal(number, lambda *_: None)
        server_of(application).run(sockets=[listener])


def prepare_all_decoding() -> None:
    """Build the decoders of all structs that are imported, before threads use them: see `prepare_decoding`."""
    for kind in _below(msgspec.Struct):
        # Some hold values that are never decoded, or name types that are imported for type checking alone.
        with suppress(TypeError, NameError):
            prepare_decoding(kind)


def _below(kind: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    return [inner for each in kind.__subclasses__() for inner in (each, *_below(each))]
