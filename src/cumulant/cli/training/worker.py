"""`cumulant worker`: run the steps that commands have queued."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from cumulant.cli.command import application, command
from cumulant.cli.invocation import Invocation
from cumulant.core.system.end_signals import setting

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.worker.worker import StepRun
    from cumulant.ports.step_queue import WorkerOffer

#: the most steps of the document at the end: the last ones
_SHOWN = 1000

app = application("worker", "Run queued steps of commands, on this machine.")


@command(
    app,
    action="steps.run",
    examples=[
        "cumulant worker --env prod",
        "cumulant worker --env prod --cpu 32 --memory 128GiB --gpu 1 --region eu-west-1 --drain",
        "cumulant worker --env prod --once --json",
    ],
)
def worker(
    call: Invocation,
    *,
    once: Annotated[bool, typer.Option("--once", help="End when no step that fits is queued.")] = False,
    drain: Annotated[
        bool, typer.Option("--drain", help="On SIGTERM, end after the running step; otherwise it is queued again.")
    ] = False,
    cpu: Annotated[float | None, typer.Option(help="CPU cores for a step; default: the machine's.")] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory for a step, such as 16GiB; default: the machine's.")
    ] = None,
    gpu: Annotated[int, typer.Option(help="GPUs for a step.")] = 0,
    region: Annotated[str, typer.Option(help="The region of this machine; default: that of the environment.")] = "",
) -> None:
    """Take steps that commands with `compute: worker://` have queued, and run each in a process of its own.

    The machine needs the project file with the environment, the installed extras and the secrets; code comes
    from the object store. Steps that need more than this worker has are left to others. Several workers may run
    on one machine. Ctrl-C ends the running step, which another worker then takes. Standard error has a line for each
    step that begins and ends, also with --json.
    """
    from cumulant.core.units import size
    from cumulant.flows.worker.run_worker import machine_offer, run_worker

    runs: deque[StepRun] = deque(maxlen=_SHOWN)
    endings = Counter[str]()
    write = _Log(call.output.notices()).write  # also where a document follows
    with call.project() as project, _draining(drain) as stop:
        most = None if memory is None else size(memory)
        offer = machine_offer(cpu=cpu, memory=most, gpu=gpu, region=region or project.scope.region)
        write(_offer_text(offer))
        for run in run_worker(
            project, principal=project.principal(), offer=offer, stop=stop, once=once, progress=write
        ):
            runs.append(run)
            endings[run.ending] += 1
            write(_sentence(run))

    call.answer({"steps": list(runs)}, lambda console: console.print(_summary(endings)))


class _Log:
    """One line for each text; a text that is repeated, such as a reason to wait, at most each `QUIET` seconds."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._last, self._at = "", clock()

    def write(self, text: str, share: float | None = None) -> None:
        from cumulant.cli.progress import QUIET
        from cumulant.flows.reports.terminal import clean

        del share  # steps report their progress to their command
        now = self._clock()
        if text != self._last or now - self._at >= QUIET:
            self._last, self._at = text, now
            self._console.print(clean(text), style="dim", soft_wrap=True)


def _offer_text(offer: WorkerOffer) -> str:
    from cumulant.flows.reports.wording import size

    gpus = f", {offer.gpu} GPUs" if offer.gpu else ""
    region = f", region {offer.region}" if offer.region else ""
    return f"takes queued steps that need at most {offer.cpu:g} cores, {size(offer.memory)}{gpus}{region}"


def _sentence(run: StepRun) -> str:
    detail = f": {run.note}" if run.note else ""
    return f"{run.shown}: {run.ending} after {run.seconds:.1f} s, attempt {run.attempt}{detail}"


def _summary(endings: Mapping[str, int]) -> str:
    if not endings:
        return "no step was queued that fits this worker"
    return f"steps: {', '.join(f'{count:,} {ending}' for ending, count in endings.items())}"


@contextmanager
def _draining(drain: bool) -> Iterator[threading.Event]:
    """An event that SIGTERM sets while the block runs, with `drain`."""
    stop = threading.Event()
    if not drain or threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, setting(stop))
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
