"""Draws docs/images/loop.svg, processes.svg and machines.svg: `python tools/draw_diagrams.py`.

Each picture paints its own background, and its colours follow the reader's light or dark scheme.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
WIDTH = 960
STYLE = """
svg { font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; font-size: 13px }
.page { fill: #ffffff } .box { fill: #f3f6f9; stroke: #8a99a8 } .store { fill: #fff7e8; stroke: #b98a3a }
.group { fill: none; stroke: #8a99a8; stroke-dasharray: 5 4 }
.title { fill: #14212e; font-weight: 600; font-size: 15px } .line, .label { fill: #3f4f5e } .label { font-size: 12px }
.flow { fill: none; stroke: #1f6f8b; stroke-width: 1.8 } .data { fill: none; stroke: #b98a3a; stroke-width: 1.5; stroke-dasharray: 4 3 }
.flow-head { fill: #1f6f8b } .data-head { fill: #b98a3a }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117 } .box { fill: #1b232d; stroke: #5b6b7b } .store { fill: #2a2416; stroke: #b98a3a }
.group { stroke: #5b6b7b } .title { fill: #f0f4f8 } .line, .label { fill: #b8c4d0 }
.flow { stroke: #5bb3d0 } .flow-head { fill: #5bb3d0 }
}
""".strip()


class Box(NamedTuple):
    x: int
    y: int
    width: int
    height: int
    title: str
    lines: tuple[str, ...] = ()
    kind: str = "box"

    @property
    def center(self) -> int:
        return self.x + self.width // 2

    @property
    def middle(self) -> int:
        return self.y + self.height // 2

    @property
    def right(self) -> int:
        return self.x + self.width

    @property
    def bottom(self) -> int:
        return self.y + self.height

    def svg(self) -> str:
        radius = 14 if self.kind == "store" else 6
        place = f'x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}"'
        first = self.middle + 5 - 9 * len(self.lines)
        return "\n".join(
            [
                f'<rect class="{self.kind}" {place} rx="{radius}"/>',
                text(self.center, first, self.title, "title"),
                *(text(self.center, first + 18 * row, line, "line") for row, line in enumerate(self.lines, 1)),
            ]
        )


def text(x: int, y: int, words: str, kind: str, anchor: str = "middle") -> str:
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(words)}</text>'


def arrow(*points: tuple[int, int], kind: str = "flow") -> str:
    """A line through the points; `kind` is "flow" (requests, steps) or "data" (reads and writes of stored data)."""
    path = "M" + " L".join(f"{x} {y}" for x, y in points)
    return f'<path class="{kind}" d="{path}" marker-end="url(#{kind}-head)"/>'


def line(*points: tuple[int, int]) -> str:
    """As `arrow`, without a head."""
    return f'<path class="data" d="M{" L".join(f"{x} {y}" for x, y in points)}"/>'


def picture(height: int, description: str, *parts: str) -> str:
    heads = "".join(
        f'<marker id="{kind}-head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path class="{kind}-head" d="M0 0 L10 5 L0 10 z"/></marker>'
        for kind in ("flow", "data")
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
            f"<title>{escape(description)}</title>",
            f"<style>\n{STYLE}\n</style>",
            f"<defs>{heads}</defs>",
            f'<rect class="page" width="{WIDTH}" height="{height}" rx="8"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


def loop() -> str:
    """The life of a model, as the packages of the code name it."""
    size = (194, 86)
    columns, rows = (24, 263, 503, 742), (24, 184)
    data = Box(columns[0], rows[0], *size, "data", ("contract, quarantine,", "immutable snapshot"))
    features = Box(columns[1], rows[0], *size, "features", ("point in time,", "one definition"))
    training = Box(columns[2], rows[0], *size, "training", ("search, evaluation,", "gate"))
    packaging = Box(columns[3], rows[0], *size, "packaging", ("ONNX servable,", "parity check"))
    serving = Box(columns[3], rows[1], *size, "serving", ("HTTP and gRPC,", "prediction log"))
    outcomes = Box(columns[2], rows[1], *size, "outcomes", ("late labels joined", "with predictions"))
    release = Box(columns[1], rows[1], *size, "release", ("shadow, A/B, canary,", "promote or roll back"))
    monitoring = Box(columns[0], rows[1], *size, "monitoring", ("drift, loss, alerts,", "review queue"))
    boxes = (data, features, training, packaging, serving, outcomes, release, monitoring)
    forward = [arrow((a.right, a.middle), (b.x, b.middle)) for a, b in pairwise(boxes[:4])]
    back = [arrow((a.x, a.middle), (b.right, b.middle)) for a, b in pairwise(boxes[4:])]
    gutter = 147
    retrain = arrow(
        (monitoring.center, monitoring.y),
        (monitoring.center, gutter),
        (training.center, gutter),
        (training.center, training.bottom),
    )
    return picture(
        294,
        "The loop of a model: data, features, training, packaging, serving, outcomes, release, monitoring, retraining",
        *(box.svg() for box in boxes),
        *forward,
        arrow((packaging.center, packaging.bottom), (serving.center, serving.y)),
        *back,
        retrain,
        text((monitoring.center + training.center) // 2, gutter - 8, "retrain when measured loss shows harm", "label"),
    )


def processes() -> str:
    """What runs under `cumulant up`, and what is stored."""
    caller = Box(24, 130, 110, 60, "caller")
    group = Box(170, 20, 560, 280, "")
    gateway = Box(194, 120, 130, 80, "gateway", ("Envoy",))
    champion = Box(400, 56, 170, 74, "server: champion", ("workers on one port",))
    candidate = Box(400, 166, 170, 74, "server: candidate", ("a share, or copies",))
    writer = Box(604, 111, 112, 74, "log process", ("one per server",))
    controller = Box(194, 232, 130, 56, "controller", ("releases, alerts",))
    commands = Box(24, 330, 110, 74, "commands", ("train, monitor,", "review, tick"))
    exchanges = Box(170, 340, 130, 62, "gateway log", ("status, latency",), "store")
    journal = Box(318, 340, 130, 62, "journal", ("state, events",), "store")
    tables = Box(466, 340, 160, 62, "tables, registry", ("snapshots, models",), "store")
    online = Box(760, 56, 176, 74, "online store", ("entities' past events",), "store")
    log = Box(760, 166, 176, 74, "prediction log", ("Parquet files",), "store")
    low = 418
    boxes = (
        caller,
        gateway,
        champion,
        candidate,
        writer,
        controller,
        commands,
        exchanges,
        journal,
        tables,
        online,
        log,
    )
    return picture(
        430,
        "Processes of cumulant up: gateway, servers of champion and candidate, log process, controller; and stored data",
        f'<rect class="group" x="{group.x}" y="{group.y}" width="{group.width}" height="{group.height}" rx="10"/>',
        text(
            group.x + 14, group.y + 20, "cumulant up: one supervisor starts, restarts and stops these", "label", "start"
        ),
        *(box.svg() for box in boxes),
        arrow((caller.right, caller.middle), (gateway.x, gateway.middle)),
        arrow((gateway.right, 145), (360, 145), (360, champion.middle), (champion.x, champion.middle)),
        text(352, champion.middle + 4, "by weight", "label", "end"),
        arrow((gateway.right, 175), (360, 175), (360, candidate.middle), (candidate.x, candidate.middle)),
        arrow((champion.right, 110), (writer.x, 134)),
        arrow((candidate.right, 186), (writer.x, 162)),
        arrow((online.x, 78), (champion.right, 78), kind="data"),
        arrow((writer.right, writer.middle), (742, writer.middle), (742, log.middle), (log.x, log.middle), kind="data"),
        arrow((gateway.x, 180), (182, 180), (182, exchanges.y), kind="data"),
        arrow((controller.center + 30, controller.y), (controller.center + 30, gateway.bottom)),
        text(controller.center + 36, controller.y - 10, "routes", "label", "start"),
        arrow((exchanges.center, exchanges.y), (controller.center - 24, controller.bottom), kind="data"),
        arrow((log.center, log.bottom), (log.center, 270), (controller.right, 270), kind="data"),
        arrow((310, controller.bottom), (310, 318), (journal.center, 318), (journal.center, journal.y), kind="data"),
        arrow(
            (commands.center, commands.bottom),
            (commands.center, low),
            (journal.center, low),
            (journal.center, journal.bottom),
            kind="data",
        ),
        arrow((journal.center, low), (tables.center, low), (tables.center, tables.bottom), kind="data"),
        text(660, 364, "solid: requests and control", "label", "start"),
        text(660, 384, "dashed: stored data", "label", "start"),
    )


def machines() -> str:
    """Which machines a project may be spread over, and what lies between them."""
    training = Box(24, 40, 200, 90, "any machine", ("train, monitor, labels,", "review, release, tick"))
    controller = Box(252, 40, 200, 90, "up --role controller", ("routes follow releases", "and present servers"))
    gateway = Box(480, 40, 200, 90, "up --role gateway", ("Envoy, agent", "copy of the routes"))
    servers = Box(736, 40, 200, 90, "up --role servers", ("a server a version,", "copy of the desired state"))
    more = Box(746, 50, 200, 90, "")
    journal = Box(
        24,
        240,
        250,
        92,
        "PostgreSQL",
        ("state and events, leases", "desired state, routes", "MLflow's tables"),
        "store",
    )
    objects = Box(
        355, 240, 250, 92, "object store", ("tables, models", "logs: predictions, labels,", "exchanges"), "store"
    )
    online = Box(686, 240, 250, 92, "Valkey", ("features read per request",), "store")
    between, stores = 190, (journal, objects, online)
    return picture(
        350,
        "Machines of one project: gateway, servers, controller, any others; below them PostgreSQL, an object store "
        "and Valkey",
        text(24, 26, "machines without a shared folder", "label", "start"),
        *(box.svg() for box in (training, controller, gateway, more, servers, *stores)),
        *(line((box.center, box.bottom), (box.center, between)) for box in (training, controller, gateway, more)),
        line((training.center, between), (more.center, between)),
        *(arrow((box.center, between), (box.center, box.y), kind="data") for box in stores),
        arrow((gateway.right, gateway.middle), (servers.x, servers.middle)),
    )


PICTURES = {
    IMAGES / "loop.svg": loop,
    IMAGES / "processes.svg": processes,
    IMAGES / "machines.svg": machines,
}


def main() -> int:
    for path, draw in PICTURES.items():
        path.write_text(draw(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
