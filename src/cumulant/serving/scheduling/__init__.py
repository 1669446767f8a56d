"""When a model scores what: at once while idle, gathered while busy, refused when it could not be in time."""

from cumulant.serving.scheduling.cache import Cache, Caching
from cumulant.serving.scheduling.cost import Cost
from cumulant.serving.scheduling.histogram import ROWS, SECONDS, Histogram
from cumulant.serving.scheduling.line import Demand, Job, Line, Turn
from cumulant.serving.scheduling.runner import Feeds, Runner, Scheduling

__all__ = [
    "ROWS",
    "SECONDS",
    "Cache",
    "Caching",
    "Cost",
    "Demand",
    "Feeds",
    "Histogram",
    "Job",
    "Line",
    "Runner",
    "Scheduling",
    "Turn",
]
