"""The section `lifecycle` of the project file."""

from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta


class ClassesSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Ages at which stored files move into a cheaper class of an object store; new ones are hot."""

    #: where the age of deletion is declared
    absent: ClassVar[dict[str, str]] = {
        "expire": "snapshots expire by `keep` of their source (data.NAME.keep), logs by serving.log.keep; of features"
        " and artifacts `cumulant clean` deletes what nothing needs",
        "hot": "files are hot until they are `cool`",
    }
    cool: Annotated[
        str | None,
        Meta(
            description="Age for the class of rarely read files: S3 STANDARD_IA, Azure Cool, GCS NEARLINE. Default:"
            " never.",
            extra={"text": "duration"},
        ),
    ] = None
    archive: Annotated[
        str | None,
        Meta(
            description="Age for the cheapest class that is still read within milliseconds: S3 GLACIER_IR, Azure Cold,"
            " GCS ARCHIVE. Default: never.",
            extra={"text": "duration"},
        ),
    ] = None


class LifecycleSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Storage classes by age, of stores in a bucket. `data.NAME.keep` and `serving.log.keep` say when files expire."""

    data: Annotated[ClassesSpec, Meta(description="Snapshots of the sources, and batches of streams.")] = ClassesSpec()
    features: Annotated[ClassesSpec, Meta(description="Computed tables of features.")] = ClassesSpec()
    logs: Annotated[ClassesSpec, Meta(description="Predictions, labels, joined rows and other logs.")] = ClassesSpec()
    artifacts: Annotated[ClassesSpec, Meta(description="Models and servables.")] = ClassesSpec()
