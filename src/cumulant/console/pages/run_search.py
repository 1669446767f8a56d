"""The search of a run on its page: trials in order, their parameters beside their scores, and the scores of folds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from cumulant.console.charts import Cell, Chart
from cumulant.console.parallel_coordinates import TrialLine, changing_parameters, parallel_coordinates
from cumulant.core.errors import not_found
from cumulant.flows.reports import report_charts
from cumulant.flows.reports.content import TrialReport
from cumulant.flows.reports.wording import higher_is_better, plural
from cumulant.flows.training.run_trials import RUNNING, UNFINISHED, RunTrial, RunTrials, run_trials

if TYPE_CHECKING:
    from cumulant.console.page_request import PageRequest

_HEADS = [("trial", ""), ("trainer", ""), ("state", "")]
_FOLDS = 10


class SearchSection(NamedTuple):
    """The trials of a run, how many there are in words, charts, links to trainers to draw, and the newest trials."""

    search: RunTrials
    counts: str
    charts: list[Chart]
    trainers: list[tuple[str, str, bool]]
    folds: list[tuple[str, str]]
    newest: list[RunTrial]


def search_section(page: PageRequest, run: str) -> SearchSection | None:
    """None where the run has searched nothing."""
    search = run_trials(page.project, run, principal=page.principal)
    if search is None:
        return None
    link = page.href("runs", run, "trials.csv")
    counts = Counter(trial.trainer for trial in search.trials if trial.params)
    chosen = page.query("trainer") or next((name for name, _ in counts.most_common(1)), "")
    if chosen and chosen not in counts:
        raise not_found("trainer with parameters", chosen[:80], counts)
    charts = [chart for chart in (_history(search, link), _parameters(search, chosen, link)) if chart is not None]
    folds = _folds(search)
    return SearchSection(
        search,
        _count_text(search),
        charts,
        [(name, f"{page.href('runs', run, trainer=name)}#search", name == chosen) for name in counts],
        [(f"fold {number + 1}", "num") for number in range(min(folds, _FOLDS))],
        list(reversed(search.trials))[:20],
    )


def trial_table(search: RunTrials) -> tuple[list[tuple[str, str]], list[list[Cell]]]:
    """Heads and rows of all trials: the score, that of each fold, and every parameter."""
    folds = _folds(search)
    names = list(dict.fromkeys(name for trial in search.trials for name in trial.params))
    numbers = [search.metric or "score", "time, s", *(f"fold {number + 1}" for number in range(folds)), *names]
    heads = [*_HEADS, *((name, "num") for name in numbers)]
    rows: list[list[Cell]] = []
    for trial in search.trials:
        scores = [*trial.scores, *([None] * (folds - len(trial.scores)))]
        values = [_cell(trial.params.get(name)) for name in names]
        rows.append([trial.number, trial.trainer, trial.state, trial.score, round(trial.seconds, 2), *scores, *values])
    return heads, rows


def _count_text(search: RunTrials) -> str:
    """`12 trials`; of a search that goes on `12 trials have ended, 2 are running`."""
    if search.done:
        return plural(len(search.trials), "trial")
    counts = Counter(trial.state for trial in search.trials)
    running, unfinished = counts[RUNNING], counts[UNFINISHED]
    ended = len(search.trials) - running - unfinished
    parts = [f"{plural(ended, 'trial')} {'has' if ended == 1 else 'have'} ended"]
    parts += [f"{running} {'is' if running == 1 else 'are'} running"] if running else []
    parts += [f"{unfinished} did not end"] if unfinished else []
    return ", ".join(parts)


def _folds(search: RunTrials) -> int:
    """How many folds the trials have."""
    return max((max(len(trial.scores), trial.folds) for trial in search.trials), default=0)


def _cell(value: object) -> Cell:
    return value if value is None or type(value) in (int, float, str) else str(value)  # type: ignore[return-value]


def _higher(search: RunTrials) -> bool | None:
    return higher_is_better(search.metric) if search.metric else None


def _history(search: RunTrials, link: str) -> Chart | None:
    reports = [
        TrialReport(number=trial.number, trainer=trial.trainer, state=trial.state, score=trial.score)
        for trial in search.trials
    ]
    name = search.metric or "score"
    drawing = report_charts.search(reports, search.best, name, higher=_higher(search))
    if drawing is None:
        return None
    trainers = list(dict.fromkeys(trial.trainer for trial in search.trials if trial.score is not None))
    legend = [(f"kind{place % 4}", trainer) for place, trainer in enumerate(trainers)]
    legend += [] if search.best is None else [("best", "best")]
    heads, rows = trial_table(search)
    return Chart("Trials in order", drawing, heads, rows, link, legend=legend)


def _parameters(search: RunTrials, trainer: str, link: str) -> Chart | None:
    trials = [trial for trial in search.trials if trial.trainer == trainer and trial.score is not None]
    lines = [TrialLine(trial.number, _plain_params(trial), trial.score or 0.0) for trial in trials]
    name = search.metric or "score"
    drawing = parallel_coordinates(lines, score=name, higher=_higher(search), best=search.best)
    if drawing is None:
        return None
    shown = changing_parameters(lines)
    heads = [("trial", ""), *((each, "num") for each in (*shown, name))]
    rows: Sequence[Sequence[Cell]] = [
        [each.number, *(_cell(each.params.get(n)) for n in shown), each.score] for each in lines
    ]
    legend = [("shade0", "worst scores"), ("shade3", "best scores"), ("chosen-line", "the model's")]
    if _higher(search) is None:
        legend = []
    return Chart(f"Parameters of {trainer}", drawing, heads, rows, link, legend=legend)


def _plain_params(trial: RunTrial) -> dict[str, float | int | str | bool]:
    return {name: str(value) if isinstance(value, list) else value for name, value in trial.params.items()}
