"""The second tier of the prediction cache: answers that several servers share."""

from cumulant.serving.shared.answers import Counts, SharedAnswers
from cumulant.serving.shared.breaker import Breaker
from cumulant.serving.shared.tier import Sharing, Tier

__all__ = ["Breaker", "Counts", "SharedAnswers", "Sharing", "Tier"]
