"""The whole project file as one type. Each package owns its section; this module puts them together.

The modules of sections do not postpone the evaluation of annotations: msgspec evaluates postponed ones twice, which
takes 15 ms of every command that loads a project.
"""

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from cumulant.core.scope import NAME, NAME_SAYS
from cumulant.data.spec import SourceSpec
from cumulant.data.storage.spec import LifecycleSpec
from cumulant.monitoring.spec import MonitoringSpec
from cumulant.project.file.access_spec import AccessSpec
from cumulant.project.file.sign_in_spec import SignInSpec
from cumulant.release.spec import ReleaseSpec
from cumulant.serving.spec import ServingSpec
from cumulant.training.spec import EvaluationSpec, TrainingSpec

Name = Annotated[str, Meta(pattern=NAME, extra={"says": NAME_SAYS})]


class ModelSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the model is, for whom, and how much harm it can do."""

    name: Annotated[
        Name,
        Meta(
            description="The model's name in the registry. Default: the name of the project's folder.",
            extra={"derived": "the folder's name"},
        ),
    ]
    owner: Annotated[str, Meta(description="Who answers for the model; on the report and in each alert.")] = ""
    purpose: Annotated[str, Meta(description="One sentence: what is decided with the answers.")] = ""
    risk: Annotated[
        Literal["low", "medium", "high"],
        Meta(description="How much harm a wrong answer can do. `high` requires `release.approval`."),
    ] = "low"


class StepResourcesSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a worker must have to take a step; with `compute: worker://`."""

    cpu: Annotated[float, Meta(ge=0, description="CPU cores.")] = 1
    memory: Annotated[str | None, Meta(description="Memory, such as `16GiB`. Default: any.")] = None
    gpu: Annotated[int, Meta(ge=0, description="GPUs.")] = 0
    region: Annotated[Name | None, Meta(description="The region of the worker. Default: any.")] = None


def _step(text: str) -> Meta:
    return Meta(description=f"{text}: what its worker must have.")


class StepsSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What each step needs of a worker."""

    data: Annotated[StepResourcesSpec, _step("Reading a source")] = StepResourcesSpec()
    features: Annotated[StepResourcesSpec, _step("Computing features")] = StepResourcesSpec()
    check_rows: Annotated[StepResourcesSpec, _step("Checking the rows in `plan`")] = StepResourcesSpec()
    search: Annotated[StepResourcesSpec, _step("The search for a model")] = StepResourcesSpec()
    evaluate: Annotated[StepResourcesSpec, _step("The evaluation")] = StepResourcesSpec()
    package: Annotated[StepResourcesSpec, _step("Building the servable")] = StepResourcesSpec()
    final_fit: Annotated[StepResourcesSpec, _step("The fit on all rows")] = StepResourcesSpec()
    online_state: Annotated[StepResourcesSpec, _step("Filling the online state")] = StepResourcesSpec()
    monitoring_reference: Annotated[StepResourcesSpec, _step("The reference of drift")] = StepResourcesSpec()
    review_reference: Annotated[StepResourcesSpec, _step("The reference of reviews")] = StepResourcesSpec()


class ResourcesSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a command may take of the machine. Results are the same whatever is set."""

    memory: Annotated[
        str | None,
        Meta(
            description="The most memory that checking data, computing features and filling online state take, such as "
            "`8GiB`; tables that need more (for features: or than 1 GiB) are worked on in parts, set aside on disk. "
            "Default: half of the machine's. A training whose rows take more than what is set, or without it more than "
            "the machine has, is refused before they are read, with the `training.rows` that fits."
        ),
    ] = None
    steps: Annotated[
        StepsSpec, Meta(description="What each step needs of a worker, by the step's name; with `compute: worker://`.")
    ] = StepsSpec()


def _overrides(section: str) -> Meta:
    return Meta(description=f"Keys of `{section}` that differ in this environment.", extra={"overrides": section})


class PriceSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What serving costs, for metrics; nothing is decided by it."""

    server: Annotated[
        float, Meta(ge=0, description="Of one server of a version for an hour, with its share of the machine.")
    ]
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$", description="By ISO 4217, such as `EUR`.")] = "USD"


class EnvironmentSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a project runs: its drivers by URL, and what differs. `local` is built in: its state is in `.cumulant/`."""

    #: keys that it does not have, though one may expect them, each with what to write instead
    absent: ClassVar[dict[str, str]] = {
        "labels": "labels and their join with predictions are kept where `log` says; files of labels are named by"
        " `monitoring.labels`",
    }
    extends: Annotated[
        str | None,
        Meta(
            description="A file with keys of an environment, shared by projects; relative to this file, or in an object"
            " store: `s3://BUCKET/FILE`."
        ),
    ] = None
    tenant: Annotated[Name, Meta(description="Who owns what is stored: the first part of every name in a store.")] = (
        "default"
    )
    region: Annotated[Name, Meta(description="Where it runs and stores; a part of every event.")] = "local"
    residency: Annotated[
        list[Name],
        Meta(
            description="The regions where it may store: `eu` includes `eu-central-1`. A declared region outside of"
            " them is refused: `region`, and `?region=` of the URLs of `store` and `log` in S3."
        ),
    ] = []
    tracking_uri: Annotated[
        str | None,
        Meta(
            description="Runs and versions: `mlflow+postgresql://HOST/DATABASE?artifacts=s3://BUCKET`, or the address"
            " of an MLflow server. Default: SQLite in the state folder."
        ),
    ] = None
    journal: Annotated[
        str | None,
        Meta(description="State and events: `sqlite://FILE`, `postgresql://`. Default: SQLite in the state folder."),
    ] = None
    store: Annotated[
        str | None, Meta(description="Tables and objects (snapshots, servables). Default: the state folder.")
    ] = None
    online: Annotated[
        str | None,
        Meta(
            description="State of features for serving, such as `valkey://USER@HOST:6379/0?password=SECRET`. Default:"
            " SQLite in the state folder."
        ),
    ] = None
    log: Annotated[
        str | None,
        Meta(
            description="Logs of predictions: a folder, or a bucket where servers and readers share no folder. "
            "Default: the state folder."
        ),
    ] = None
    streams: Annotated[
        str | None,
        Meta(
            description="Where the topics are that sources name: `folder://FOLDER`, one folder a topic, or"
            " `kafka://HOST:PORT`, encrypted `kafkas://USER@HOST:PORT?password=SECRET`, or `kinesis://REGION`. Default:"
            " `streams` in the state folder."
        ),
    ] = None
    schemas: Annotated[
        str | None,
        Meta(
            description="The registry of the schemas of Avro and Protobuf messages:"
            " `confluent+https://USER@HOST:8081?password=SECRET`. Default: none."
        ),
    ] = None
    history: Annotated[
        str | None,
        Meta(
            description="The engine that computes features of the history: Spark by its Connect protocol,"
            " `sc://HOST:15002?staging=FOLDER`, encrypted `scs://HOST:443?staging=FOLDER&token=SECRET`. Default: the"
            " process of the step itself."
        ),
    ] = None
    stream_engine: Annotated[
        str | None,
        Meta(
            description="The engine that computes features of streams as a job: Flink by its SQL gateway,"
            " `flink://GATEWAY:8083?checkpoints=s3://BUCKET/FOLDER`, encrypted `flinks://`. Default: `ingest run`."
        ),
    ] = None
    secrets: Annotated[
        str | None, Meta(description="Where `${secret:NAME}` is looked up. Default: environment variables.")
    ] = None
    access: Annotated[
        str | None,
        Meta(
            description="Who may do what: `open://`, everybody everything; `cedar://`, by the roles of the section"
            " `access`; `cedar://FOLDER`, by these and the policies in its `.cedar` files. Default: `open://`."
        ),
    ] = None
    compute: Annotated[
        str | None,
        Meta(
            description="Where steps of commands run: `inline://`, in the command's process; `subprocess://`, each in "
            "its own; `worker://`, in processes of `cumulant worker` on any machine. Default: inline."
        ),
    ] = None
    traffic: Annotated[
        str | None,
        Meta(
            description="The gateway that shares requests between versions. Default: `envoy://`, in the state folder."
        ),
    ] = None
    deploy: Annotated[
        Literal["local://", "hosts://"],
        Meta(
            description="Where servers run: `local://`, on the machine of `cumulant up`, or `hosts://`, on every "
            "machine where `cumulant up --role servers` runs."
        ),
    ] = "local://"
    salt: Annotated[
        str | None,
        Meta(
            description="The secret of the keyed hashes that stand for personal values: `${secret:NAME}`. "
            "Default: a random file in the state folder."
        ),
    ] = None
    sign_in: Annotated[SignInSpec, Meta(description="How callers of the API and the console show who they are.")] = (
        SignInSpec()
    )
    audit: Annotated[
        str | None,
        Meta(
            description="Where signed checkpoints of the event chain are written: a folder (`file://FOLDER`) or a"
            " bucket (`s3://BUCKET/FOLDER`) that those who can write the journal cannot change. Default: nowhere."
        ),
    ] = None
    audit_key: Annotated[
        str | None,
        Meta(
            description="The private key that signs checkpoints, of Ed25519 in PEM: `${secret:NAME}`. Default: a file"
            " in the state folder, made on first use."
        ),
    ] = None
    price: Annotated[
        PriceSpec | None,
        Meta(description="What a running server costs: a metric of the cost of each version. Default: none is known."),
    ] = None
    model: Annotated[dict[str, Any], _overrides("model")] = {}
    data: Annotated[dict[str, Any], _overrides("data")] = {}
    features: Annotated[str | None, _overrides("features")] = None
    training: Annotated[dict[str, Any], _overrides("training")] = {}
    evaluation: Annotated[dict[str, Any], _overrides("evaluation")] = {}
    serving: Annotated[dict[str, Any], _overrides("serving")] = {}
    release: Annotated[dict[str, Any], _overrides("release")] = {}
    monitoring: Annotated[dict[str, Any], _overrides("monitoring")] = {}
    resources: Annotated[dict[str, Any], _overrides("resources")] = {}
    lifecycle: Annotated[dict[str, Any], _overrides("lifecycle")] = {}


#: the keys of an environment that name drivers
DRIVERS = ("tracking_uri", "journal", "store", "online", "log", "streams", "secrets", "access", "compute", "traffic")
#: the keys of an environment that override sections
SECTIONS = (
    "model",
    "data",
    "features",
    "training",
    "evaluation",
    "serving",
    "release",
    "monitoring",
    "resources",
    "lifecycle",
)


class ProjectSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A model's whole life in one file, `cumulant.yaml`. Any section may be left out."""

    version: Annotated[Literal[1], Meta(description="The version of this file's format: 1.")]
    extends: Annotated[
        str | None,
        Meta(description="A file with keys of a project file, which this file overrides; relative to this file."),
    ] = None
    model: Annotated[
        ModelSpec,
        Meta(description="What the model is, for whom, and how much harm it can do.", extra={"derived": ""}),
    ]
    data: Annotated[
        dict[Name, SourceSpec], Meta(description="The sources, by the name that `source(...)` takes in the features.")
    ] = {}
    features: Annotated[
        str, Meta(description="The Python file whose public names are the features; relative to the project.")
    ] = "features.py"
    training: Annotated[
        TrainingSpec | None, Meta(description="What is predicted, when, and how the model is searched.")
    ] = None
    evaluation: Annotated[
        EvaluationSpec, Meta(description="The untouched later data, and what a candidate must reach there.")
    ] = EvaluationSpec()
    serving: Annotated[ServingSpec, Meta(description="How the model answers requests.")] = ServingSpec()
    release: Annotated[ReleaseSpec, Meta(description="How a candidate takes over from the champion.")] = ReleaseSpec()
    monitoring: Annotated[MonitoringSpec, Meta(description="How the served model is watched.")] = MonitoringSpec()
    resources: Annotated[ResourcesSpec, Meta(description="What a command may take of the machine.")] = ResourcesSpec()
    lifecycle: Annotated[
        LifecycleSpec, Meta(description="Ages at which stored files move into cheaper storage classes of a bucket.")
    ] = LifecycleSpec()
    access: Annotated[AccessSpec, Meta(description="Who has which role, for `access: cedar://`.")] = AccessSpec()
    environments: Annotated[
        dict[Name, EnvironmentSpec],
        Meta(description="Where the project runs, by name. `local` is built in and may be changed."),
    ] = {}
