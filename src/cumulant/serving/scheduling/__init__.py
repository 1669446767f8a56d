"""When a model scores what: at once while idle, gathered while busy, refused when it could not be in time."""

from cumulant.serving.scheduling.cost import Cost
from cumulant.serving.scheduling.line import Demand, Job, Line
from cumulant.serving.scheduling.runner import Feeds, Runner, Scheduling

__all__ = ["Cost", "Demand", "Feeds", "Job", "Line", "Runner", "Scheduling"]
