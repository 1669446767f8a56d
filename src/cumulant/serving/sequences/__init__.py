"""State tensors: what a server keeps of a sequence between its requests, for all of its workers."""

from cumulant.serving.sequences.parameters import sequence_of
from cumulant.serving.sequences.place import sequence_place
from cumulant.serving.sequences.runner import SequenceRunner, no_state
from cumulant.serving.sequences.shelf import Bounds, Kept, Shelf

__all__ = ["Bounds", "Kept", "SequenceRunner", "Shelf", "no_state", "sequence_of", "sequence_place"]
