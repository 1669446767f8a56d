"""Rules of every compiler of feature plans."""

from __future__ import annotations

import pytest

from cumulant.testing.plans.cases import KINDS, PlanCase, plan_case
from cumulant.testing.plans.oracle import Row


class PlanConformance:
    """Override `features`. Values must be those of a loop over all rows, numbers within a relative 1e-9.

    A compiler that takes events reads `deliveries` of a case, one that takes tables `accepted`.
    """

    def features(self, case: PlanCase) -> list[Row]:
        """The features of each query of a case, by name."""
        raise NotImplementedError

    @pytest.mark.parametrize("kind", KINDS)
    def test_queries_get_what_a_loop_over_all_rows_gives(self, kind: str) -> None:
        for seed in range(2):
            case = plan_case(kind, seed)
            values = self.features(case)
            assert len(values) == len(case.queries)
            assert case.mismatches(values) == [], seed
