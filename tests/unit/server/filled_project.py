"""A project with rows in quarantine, predictions, labels, cases that wait, an alert and a release that ended."""

from datetime import UTC, datetime, timedelta

from releases import MOMENT, release

from cumulant.core.events import Actor
from cumulant.flows.data.validate import validate
from cumulant.flows.outcomes.labels import import_predictions, ingest_labels
from cumulant.flows.release import store
from cumulant.flows.review.fill_queue import fill
from cumulant.project.file.loading import load
from cumulant.release.decide import end_release, start

#: in every row that may be personal, and in no response to who may not see such rows
SECRET = "kleinschmidt-7391"
FILE = """version: 1
model: {{name: {name}}}
data:
  visits:
    path: visits.csv
    key: id
    event_time: {{column: at, zone: UTC}}
    known_time: {{1h: [bought]}}
    personal: [mail]
    rules: {{pages: {{min: 0}}}}
    quarantine: 90%
training: {{target: bought, predict_at: at, trainers: [naive]}}
monitoring: {{review: {{budget: 6/day, sample: 100%, second: 0%}}}}
{rest}"""
FEATURES = """from cumulant.features import source

pages = source("visits").columns("pages")
"""


def write_project(folder, name="shop", rest=""):
    """The files of a project below `folder`, and its folder."""
    root = folder / name
    root.mkdir()
    at = datetime(2026, 3, 1, tzinfo=UTC)
    rows = [
        f"{number},{(at + timedelta(hours=6 * number)).isoformat()},{SECRET}@x.org,{number % 7 - 1},{number % 2}"
        for number in range(120)
    ]
    (root / "visits.csv").write_text("\n".join(["id,at,mail,pages,bought", *rows, ""]))
    (root / "features.py").write_text(FEATURES)
    (root / "cumulant.yaml").write_text(FILE.format(name=name, rest=rest))
    return root


def fill_journal(project, principal=None):
    """Predictions, labels, cases, a release and snapshots; by the user, or by another principal."""
    who, root = principal or project.principal(), project.root
    moment = datetime.now(UTC) - timedelta(hours=1)
    # some of one microsecond, so that pages end between them
    lines = [
        f"r{number},{(moment + timedelta(seconds=number // 3)).isoformat()},{number % 2},0.{number:02d}"
        for number in range(25)
    ]
    (root / "old.csv").write_text("\n".join(["id,at,said,p", *lines, ""]))
    (root / "labels.csv").write_text("id,label\n" + "".join(f"r{number},{number % 2}\n" for number in range(10)))
    validate(project, principal=who)
    parts = {"id": "id", "time": "at", "prediction": "said", "score": "p"}
    import_predictions(project, root / "old.csv", parts, principal=who)
    ingest_labels(project, [str(root / "labels.csv")], principal=who)
    fill(project, principal=who)
    ended = end_release(start(release(model=project.name)), "rolled_back", "ended by ada", at=MOMENT)
    with project.journal().transaction(actor=Actor("user:ada")) as transaction:
        store.write(transaction, None, ended, expect=0)


def opened_project(folder, name="shop", rest=""):
    """A filled project, loaded as a server does; the caller closes it."""
    project = load(write_project(folder, name, rest), via="http")
    fill_journal(project)
    return project
