"""Data and project templates that are shipped with the package; `README.md` states source and licence."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent

#: all flights out of New York in 2013, one row a scheduled flight
FLIGHTS = FOLDER / "flights.parquet"
#: the hourly weather at the three airports
WEATHER = FOLDER / "weather.parquet"
#: one folder a template; files that end in `.tmpl` lose that ending in a new project
TEMPLATES = FOLDER / "templates"
#: one workflow file for continuous integration a service
WORKFLOWS = FOLDER / "workflows"
