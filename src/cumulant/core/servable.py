"""The servable: one folder that holds a model ready to answer, described by `servable.json`."""

from __future__ import annotations

from typing import Literal

import msgspec

from cumulant.core.plan import FeaturePlan

FORMAT = "cumulant.servable/1"
GRAPH_FORMAT = "cumulant.graph/1"
Task = Literal["binary", "multiclass", "regression"]
#: of the Open Inference Protocol, as far as an ONNX graph has them
Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"
]
#: why a request does not carry a column: known only later, what is predicted, or nothing reads it
Unread = Literal["late", "target", "unused"]


class Input(msgspec.Struct, frozen=True):
    """One column of the model's float32 matrix, made from one feature.

    `number`: the value, missing as NaN. `flag`: 0 or 1, missing as NaN. `category`: the position of the
    value in `categories`; unseen and missing values as NaN.
    """

    feature: str
    kind: Literal["number", "flag", "category"]
    categories: tuple[str, ...] = ()
    #: subtracted in float64 before the cast, so that large magnitudes (epoch seconds) keep their digits
    center: float = 0.0


class Calibration(msgspec.Struct, frozen=True):
    """Applied to the model's output p. `sigmoid`: 1/(1+exp(-(a*logit(p)+b))). `none`: p."""

    kind: Literal["none", "sigmoid"] = "none"
    a: float = 1.0
    b: float = 0.0


class Parity(msgspec.Struct, frozen=True):
    """How the packaged model answered against the trained one, on rows on both sides of the threshold."""

    rows: int
    max_difference: float
    flips: int
    tolerance: float


class Reasons(msgspec.Struct, frozen=True, kw_only=True):
    """How a row's answer is explained: which of the model's features made it what it is."""

    #: how contributions are computed; a server that does not know the method refuses the servable
    method: str = "occlusion"
    #: reasons a row where the request gives no number
    count: int = 3
    #: rows that get reasons by default: `always` all, `requested` none, `decision` (binary models)
    #: those that are predicted true
    when: Literal["always", "requested", "decision"] = "requested"
    #: feature to the value that a contribution is measured against; null or absent: a missing value
    reference: dict[str, str | int | float | bool | None] = {}
    #: feature to the text that describes it to a person
    codes: dict[str, str] = {}


class FieldRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the data contract requires of one value of a request. Bounds of times and dates are ISO 8601 text."""

    #: a null breaks the rule; else it breaks none
    required: bool = False
    min: int | float | str | None = None
    max: int | float | str | None = None
    members: tuple[bool | int | float | str, ...] | None = None
    #: a regular expression, as Python reads it, that a text must contain
    pattern: str | None = None
    #: the same as the contract declares it, for messages
    declared_pattern: str | None = None
    #: how numbers are written in files of rows, as the source declares it; requests carry plain numbers
    number_format: str | None = None
    #: the same of dates; requests carry ISO 8601
    date_format: str | None = None


#: version of a servable that was never registered
UNREGISTERED = "1"


class Servable(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `servable.json`. Paths are relative to the folder."""

    format: str = FORMAT
    name: str
    version: str = ""
    task: Task
    model: str = "model.onnx"
    inputs: tuple[Input, ...]
    plan: FeaturePlan
    #: class labels in the order of the model's outputs; empty for regression
    classes: tuple[str, ...] = ()
    #: the target was a number, whose classes are whole: predictions are numbers, not their texts
    whole: bool = False
    #: columns of the training source that a request does not carry, and why; a row that has them is answered
    unread: dict[str, Unread] = {}
    #: request fields to what the contract of the training source requires of each value
    rules: dict[str, FieldRule] = {}
    #: features whose categories hold all but few of the training rows: another one is worth a warning
    closed: tuple[str, ...] = ()
    #: request fields that no row of the training source lacked, of many: a missing one is worth a warning
    complete: tuple[str, ...] = ()
    #: number fields that no row of the training source has below 0, of many: a negative one is worth a warning
    nonnegative: tuple[str, ...] = ()
    #: of the salt that personal values are hashed with (`masking.fingerprint`); empty: any will do
    salt_fingerprint: str = ""
    calibration: Calibration = Calibration()
    #: binary: predict true at or above it
    threshold: float | None = None
    parity: Parity | None = None
    #: None: answers are not explained
    reasons: Reasons | None = None
    #: what made it: snapshot, run, code, settings, environment (hashes and names only)
    lineage: dict[str, str] = {}
    #: files of the folder and their SHA-256
    files: dict[str, str] = {}
    example: dict[str, str | int | float | bool | None] = {}


class TensorSpec(msgspec.Struct, frozen=True):
    """An input or output of a graph; -1 stands for a size that a request chooses. The first size is the rows."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]


class StateTensor(msgspec.Struct, frozen=True):
    """A pair of tensors that a server keeps between the requests of a sequence: what `output` gives, `input` gets next.

    A size of -1 stands for the rows of the sequence's requests; one of 0 begins there and is the graph's to change.
    """

    input: str
    output: str
    datatype: Datatype
    shape: tuple[int, ...]
    #: what the first request of a sequence gets
    initial: Literal["zeros"] = "zeros"


class Batching(msgspec.Struct, frozen=True):
    """Whether rows of different requests may be scored together: only where that changes no bit of an answer."""

    exact: bool
    #: why not, or on how many rows it was measured
    reason: str = ""


class FormResult(msgspec.Struct, frozen=True, kw_only=True):
    """One form of the graph that was tried at packaging. Sizes in bytes, times in seconds a row."""

    kind: str
    size: int
    seconds: float
    #: share of the sample on which it predicts the same, or 1 - relative error; 1.0 is the original
    agreement: float
    chosen: bool = False
    reason: str = ""


class GraphServable(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `servable.json` for a graph that reads tensors rather than rows of a project's features."""

    format: str = GRAPH_FORMAT
    name: str
    version: str = ""
    model: str = "model.onnx"
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    #: names of the columns where the one input is a matrix [n, k]: rows may then be sent as plain JSON objects
    columns: tuple[str, ...] = ()
    #: those of them that every row must carry: the model has no answer where they are missing
    required: tuple[str, ...] = ()
    #: labels of a classifier, in the order of its probabilities
    classes: tuple[str, ...] = ()
    batching: Batching = Batching(exact=False, reason="not tried")
    #: pairs among `inputs` and `outputs` that callers neither send nor, unless they request them by name, get
    state: tuple[StateTensor, ...] = ()
    #: seconds after which a sequence without requests is deleted
    state_idle: float = 600.0
    parity: Parity | None = None
    candidates: tuple[FormResult, ...] = ()
    #: what made it: source file and hash, converter, packages (names and hashes only)
    lineage: dict[str, str] = {}
    #: files of the folder and their SHA-256
    files: dict[str, str] = {}
    #: values of one row for each input, in row-major order
    example: dict[str, list[str | int | float | bool]] = {}


class Reason(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One feature's part in an answer.

    `contribution`: the score less what it would be with the feature at its reference value. The score is the log-odds
    of a binary model's probability, the log-odds of the predicted class of several, or the predicted number.
    """

    feature: str
    contribution: float
    direction: Literal["raises", "lowers"]
    #: the description of the feature for a person, where the servable has such a text
    code: str = ""


class Answer(msgspec.Struct, kw_only=True, omit_defaults=True):
    prediction: str | int | float | bool
    probability: float | None = None
    probabilities: dict[str, float] | None = None
    #: seconds between the prediction's moment and the newest stored state used; null without state
    state_age: float | None = None
    #: features that may lack events: the moment is before what is stored of their key begins
    incomplete: tuple[str, ...] = ()
    #: the largest contributions first, without those that are 0; null where none were requested
    reasons: tuple[Reason, ...] | None = None
