"""The gate: whether a candidate may go on, rule by rule, on the same rows as what it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from cumulant.core.errors import GateRefusedError, UsageError, did_you_mean
from cumulant.core.servable import Task
from cumulant.statistics import Estimate, Metric, Rows, Word, difference, estimate, metric, metrics_for, verdict
from cumulant.training.spec import GateRule

Against = Literal["champion", "naive", "limit"]

#: without a rule a candidate may be worse than the champion by this part of the champion's value
DEFAULT_MARGIN = 0.01


class RuleVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """One rule's verdict. `difference` is oriented: above 0 the candidate is better than reference or limit."""

    metric: str
    rule: str
    against: Against
    word: Word
    passed: bool
    candidate: Estimate
    reference: Estimate | None = None
    limit: float | None = None
    difference: Estimate
    text: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The gate's answer: `passed` where every rule passed. `word` tells the metric searched, against the champion
    where there is one, else against naive.
    """

    passed: bool
    word: Word
    rules: tuple[RuleVerdict, ...]
    text: str

    def raise_for_refusal(self, model: str) -> None:
        """Raises GateRefusedError unless passed."""
        if not self.passed:
            reasons = "; ".join(rule.text for rule in self.rules if not rule.passed)
            raise GateRefusedError(
                f"the gate refused {model}: {reasons}",
                subject=model,
                hint="more data, other features or a longer search; or change evaluation.gate",
            )


def gate(
    candidate: Rows,
    *,
    task: Task,
    main: str,
    naive: Rows,
    champion: Rows | None = None,
    rules: Mapping[str, GateRule] | None = None,
    seed: int = 0,
) -> Verdict:
    """Judge `candidate` by `rules` (metric -> rule), all on the same rows.

    Whatever the rules, the naive baseline must be beaten in `main`, the metric that was searched. A margin is
    held against the champion (`better` or `not_worse` passes); for a first model against naive, which must
    be beaten. A limit passes where the value keeps it and is not surely beyond it. Without rules: the champion
    may be missed in `main` by a hundredth of its value.

    Raises:
        UsageError: a rule names a metric that does not exist, does not measure the task or needs costs, or is
            not exactly one of margin, min and max.
    """
    costs = candidate.cost_false_negative is not None
    judged = [_against(metric(main), candidate, naive, "naive", seed=seed)]
    declared = rules or {}
    for name, rule in declared.items():
        found = _metric(name, task, costs=costs)
        _check(name, rule)
        if rule.margin is None:
            judged.append(_limited(found, rule, candidate, seed=seed))
        elif champion is not None:
            judged.append(_against(found, candidate, champion, "champion", margin=rule.margin, seed=seed))
        elif name != main:
            judged.append(_against(found, candidate, naive, "naive", margin=rule.margin, seed=seed))
    if champion is not None and main not in declared:
        margin = DEFAULT_MARGIN * abs(metric(main).value(champion))
        judged.append(_against(metric(main), candidate, champion, "champion", margin=margin, seed=seed))
    passed = all(rule.passed for rule in judged)
    told = next((rule for rule in judged if rule.against == "champion" and rule.metric == main), judged[0])
    text = "passed" if passed else "refused: " + "; ".join(rule.text for rule in judged if not rule.passed)
    return Verdict(passed=passed, word=told.word, rules=tuple(judged), text=text)


def check_gate(rules: Mapping[str, GateRule], *, task: Task, costs: bool) -> None:
    """Refuse rules that `gate` would refuse, before a search is spent on them.

    Raises:
        UsageError: as `gate`.
    """
    for name, rule in rules.items():
        _metric(name, task, costs=costs)
        _check(name, rule)


def _metric(name: str, task: Task, *, costs: bool) -> Metric:
    known = [one.name for one in metrics_for(task, costs=costs)]
    if name == "cost" and not costs and task == "binary":
        raise UsageError(
            "evaluation.gate has a rule for cost, but no cost is declared",
            subject="cost",
            hint="add `training: {cost: {false_negative: 5, false_positive: 1}}`",
        )
    try:
        found = metric(name)
    except KeyError:
        found = None
    if found is None or task not in found.tasks:
        hint = did_you_mean(name, known) or f"for a {task} target: {', '.join(known)}"
        raise UsageError(f'evaluation.gate names "{name}", which does not measure this task', subject=name, hint=hint)
    return found


def _check(name: str, rule: GateRule) -> None:
    if sum(value is not None for value in (rule.margin, rule.min, rule.max)) != 1:
        raise UsageError(
            f"evaluation.gate.{name} needs exactly one of margin, min and max",
            subject=name,
            hint=f"write for example `{name}: {{margin: 0.005}}`",
        )


def _against(
    found: Metric, candidate: Rows, reference: Rows, against: Against, *, margin: float = 0.0, seed: int
) -> RuleVerdict:
    gap = difference(found, candidate, reference, seed=seed)
    # A constant is all but perfectly calibrated: of a first model it is asked only to come near.
    near = against == "champion" or found.name == "calibration_error"
    word = verdict(gap.low, gap.high, margin=margin if near else 0.0)
    ours, theirs = estimate(found, candidate, seed=seed), estimate(found, reference, seed=seed)
    passed = word == "better" or (near and word == "not_worse")
    asked = f"not worse than {against} by over {margin:.4g}" if near else f"better than {against}"
    values = f"{found.text} {_show(ours)} against {_show(theirs)} ({against})"
    told = f"{values}, better by {_span(gap)}: {_WORDS[word]}"
    return RuleVerdict(
        metric=found.name,
        rule=asked,
        against=against,
        word=word,
        passed=passed,
        candidate=ours,
        reference=theirs,
        difference=gap,
        text=told,
    )


def _limited(found: Metric, rule: GateRule, candidate: Rows, *, seed: int) -> RuleVerdict:
    limit, at_least = (rule.min, True) if rule.min is not None else (rule.max, False)
    assert limit is not None
    ours = estimate(found, candidate, seed=seed)
    gap = _room(ours, limit, at_least=at_least)
    word = verdict(gap.low, gap.high)
    passed = ours.value is not None and gap.value is not None and gap.value >= 0 and word != "worse"
    asked = f"{'at least' if at_least else 'at most'} {limit:g}"
    kept = "kept" if passed else "broken"
    sure = "" if word in ("better", "worse") else ", though its interval reaches beyond" if passed else ""
    return RuleVerdict(
        metric=found.name,
        rule=asked,
        against="limit",
        word=word,
        passed=passed,
        candidate=ours,
        limit=limit,
        difference=gap,
        text=f"{found.text} {_span(ours)}, {asked}: {kept}{sure}",
    )


def _room(ours: Estimate, limit: float, *, at_least: bool) -> Estimate:
    """How far inside its limit an estimate is."""
    if ours.value is None:
        return Estimate(value=None, clusters=ours.clusters, level=ours.level)
    if at_least:
        low, high = (None if end is None else end - limit for end in (ours.low, ours.high))
        value = ours.value - limit
    else:
        low, high = (None if end is None else limit - end for end in (ours.high, ours.low))
        value = limit - ours.value
    return Estimate(value=value, low=low, high=high, clusters=ours.clusters, level=ours.level)


_WORDS: dict[Word, str] = {
    "better": "better",
    "worse": "worse",
    "not_worse": "not worse",
    "cannot_tell": "cannot tell",
}


def _show(found: Estimate) -> str:
    return "undefined" if found.value is None else f"{found.value:.4g}"


def _span(found: Estimate) -> str:
    if found.value is None:
        return "undefined"
    if found.low is None or found.high is None:
        return f"{found.value:.4g}"
    return f"{found.value:.4g} [{found.low:.4g}, {found.high:.4g}]"
