"""Fakes of every port, and the conformance suites that hold drivers to the same rules.

from cumulant.testing.journal import MemoryJournal
from cumulant.testing.conformance.journal import JournalConformance

class TestMyJournal(JournalConformance):
    @pytest.fixture
    def journal(self, tmp_path):
        return MyJournal(f"my://{tmp_path}")
"""
