"""The releases of the tests of releases."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "release"))
