"""What a feature plan means, for whoever compiles one: an oracle, generated cases, and values that both agree on.

from cumulant.testing.plans.conformance import PlanConformance

class TestMyCompiler(PlanConformance):
    def features(self, case):
        return my_compiler(case.plan, case.deliveries, case.queries)
"""
