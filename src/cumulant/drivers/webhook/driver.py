"""The records of receivers over HTTP. Importing this loads nothing else."""

from __future__ import annotations

from cumulant.ports.driver import Driver
from cumulant.ports.notifier import KEEPS_STATE

_HERE = "cumulant.drivers.webhook"

#: `webhook+https://HOST/PATH`: the whole message as a JSON document
webhook = Driver(clients={"notifier": f"{_HERE}.receivers:Webhook"})
#: `slack+https://HOST/PATH`: one text, as Slack, Mattermost and others take it
slack = Driver(clients={"notifier": f"{_HERE}.receivers:Slack"})
#: `alertmanager://HOST:PORT`, `alertmanager+https://HOST/PREFIX`: API v2
alertmanager = Driver(
    clients={"notifier": f"{_HERE}.alertmanager:Alertmanager"},
    capabilities={"notifier": frozenset({KEEPS_STATE})},
)
