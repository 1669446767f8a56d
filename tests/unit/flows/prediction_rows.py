"""Rows of the prediction log as its part files take them."""

from cumulant.serving.prediction_log.storage.part_writer import SCHEMA

_DEFAULTS = {"int32": 0, "int64": 0, "string": "", "bool": False}


def prediction_row(**values):
    """A row with these values by name; the other columns are empty, so that tests need not name what is added later."""
    unknown = values.keys() - set(SCHEMA.names)
    if unknown:
        raise KeyError(f"the prediction log has no columns {sorted(unknown)}")
    return tuple(values.get(field.name, _DEFAULTS.get(str(field.type))) for field in SCHEMA)
