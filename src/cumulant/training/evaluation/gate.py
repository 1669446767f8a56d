"""The gate: whether a candidate may go on, rule by rule, on the same rows as what it is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cumulant.core.errors import UsageError, did_you_mean
from cumulant.core.servable import Task
from cumulant.statistics import Metric, Rows, metric, metrics_for
from cumulant.statistics.records import LEVEL
from cumulant.training.evaluation.comparisons import Comparisons, Rival
from cumulant.training.evaluation.one_class import one_class_warning
from cumulant.training.records import Against, RuleVerdict, Verdict
from cumulant.training.spec import GateRule

#: without a rule a candidate may be worse than the champion by this part of the champion's value
DEFAULT_MARGIN = 0.01
#: without a rule for a declared cost: decisions are coarser than scores, so their cost varies more
COST_MARGIN = 0.1


def gate(
    candidate: Rows,
    *,
    task: Task,
    main: str,
    naive: Rows,
    champion: Rows | Rival | None = None,
    before: Rival | None = None,
    rules: Mapping[str, GateRule] | None = None,
    doubt: str = "",
    level: float = LEVEL,
    seed: int = 0,
) -> Verdict:
    """Judge `candidate` by `rules` (metric -> rule), all on the same rows.

    Whatever the rules, the naive baseline must be beaten in `main`, the metric that was searched, and so must the
    candidate's own answers given to other rows, unless it is shown to be better than the champion: beside one that
    fails, even a level that is right is worth something. A margin is held against the champion (`better` or `not_worse`
    passes); for a first model against naive, which must be beaten. A limit passes where the value keeps it and is not
    surely beyond it. Without a margin for `main`, whatever limits there are, the champion may be missed in it by a
    hundredth of its value; without one for a declared cost, by a tenth. `before` is an earlier champion: margins
    hold against it too, so that those of successors do not add up, but for what is shown to be better than the
    champion. `level` is that of the intervals, above the usual where the rows have judged other models. `doubt`: why
    the candidate's answers may be too good, which no rule can then make up for. A classifier that predicts one class
    for every row is named as such in the warnings: rules about scores may hold for it.

    Raises:
        UsageError: a rule names a metric that does not exist, does not measure the task or needs costs, or has neither
            a margin nor a limit, or two limits.
    """
    declared = rules or {}
    check_gate(declared, task=task, costs=candidate.cost_false_negative is not None)
    comparisons = Comparisons(candidate=candidate, naive=naive, level=level, seed=seed)
    rival = Rival(rows=champion) if isinstance(champion, Rows) else champion
    verdicts = [comparisons.within_limit(metric(name), rule) for name, rule in declared.items() if _limits(rule)]
    margins = {name: rule.margin for name, rule in declared.items() if rule.margin is not None}
    if rival is None:
        verdicts += _of_first(comparisons, margins, main)
    else:
        verdicts += _RivalRules(comparisons, rival, before, margins, main).made()
    ahead = any(rule.metric == main and rule.against == "champion" and rule.word == "better" for rule in verdicts)
    verdicts.insert(0, comparisons.against_naive(metric(main), informed=not ahead))
    if doubt:
        rule = f"on rows that it did not learn from; {doubt}"
        verdicts.append(comparisons.refused(metric(main), rule, "naive", f"{metric(main).text}: cannot tell, {doubt}"))
    passed = all(rule.passed for rule in verdicts)
    word = next(
        (rule.word for rule in verdicts if rule.against == "champion" and rule.metric == main), verdicts[0].word
    )
    text = "passed" if passed else "refused: " + "; ".join(rule.text for rule in verdicts if not rule.passed)
    warning = one_class_warning(candidate, task=task, main=metric(main))
    warnings = (warning,) if warning else ()
    return Verdict(passed=passed, word=word, rules=tuple(verdicts), text=text, warnings=warnings, level=level)


def _of_first(comparisons: Comparisons, margins: Mapping[str, float], main: str) -> list[RuleVerdict]:
    """Rules of a model without a champion: better than naive where a margin is declared, its cost not surely worse."""
    verdicts = [comparisons.against_naive(metric(name)) for name in margins if name != main]
    if comparisons.candidate.cost_false_negative is not None and "cost" not in (*margins, main):
        verdicts.append(comparisons.not_shown_worse_than_naive(metric("cost")))
    return verdicts


@dataclass(frozen=True)
class _RivalRules:
    """The margins, declared and default, against the champion and against an earlier one."""

    comparisons: Comparisons
    champion: Rival
    before: Rival | None
    margins: Mapping[str, float]
    main: str

    def made(self) -> list[RuleVerdict]:
        pair = self.champion.pair(self.comparisons.candidate)
        if pair is None:
            return [self.comparisons.without_rows(metric(self.main), "champion", self.champion.reason)]
        wanted = self._wanted(pair[1])
        rules = self._against("champion", pair, wanted)
        not_better = {rule.metric: wanted[rule.metric] for rule in rules if rule.word != "better"}
        earlier = None if self.before is None else self.before.pair(self.comparisons.candidate)
        return rules if earlier is None else [*rules, *self._against("champion_before", earlier, not_better)]

    def _wanted(self, champion: Rows) -> dict[str, float]:
        wanted = dict(self.margins)
        if self.main not in wanted:
            wanted[self.main] = DEFAULT_MARGIN * abs(metric(self.main).value(champion))
        if champion.cost_false_negative is not None:
            wanted.setdefault("cost", COST_MARGIN * abs(metric("cost").value(champion)))
        return wanted

    def _against(self, against: Against, pair: tuple[Rows, Rows], wanted: Mapping[str, float]) -> list[RuleVerdict]:
        return [self.comparisons.against_rival(metric(name), pair, against, margin) for name, margin in wanted.items()]


def check_gate(rules: Mapping[str, GateRule], *, task: Task, costs: bool) -> None:
    """Refuse rules that `gate` would refuse, before a search is spent on them.

    Raises:
        UsageError: as `gate`.
    """
    for name, rule in rules.items():
        _check_metric(name, task, costs=costs)
        _check(name, rule)


def _check_metric(name: str, task: Task, *, costs: bool) -> None:
    known = [each.name for each in metrics_for(task, costs=costs)]
    if name == "cost" and not costs and task == "binary":
        raise UsageError(
            "evaluation.gate has a rule for cost, but no cost is declared",
            subject="cost",
            hint="add `training: {cost: {false_negative: 5, false_positive: 1}}`",
        )
    if (known_metric := _metric(name)) is None or task not in known_metric.tasks:
        hint = did_you_mean(name, known) or f"for a {task} target: {', '.join(known)}"
        raise UsageError(f'evaluation.gate names "{name}", which does not measure this task', subject=name, hint=hint)


def _metric(name: str) -> Metric | None:
    try:
        return metric(name)
    except KeyError:
        return None


def _limits(rule: GateRule) -> Sequence[float]:
    return [limit for limit in (rule.min, rule.max) if limit is not None]


def _check(name: str, rule: GateRule) -> None:
    if len(_limits(rule)) > 1 or (rule.margin is None and not _limits(rule)):
        raise UsageError(
            f"evaluation.gate.{name} needs a margin, or exactly one of min and max",
            subject=name,
            hint=f"write for example `{name}: {{margin: 0.005}}`",
        )
