"""The runtime's own facts, and the chain seen while others write."""

from cumulant.core.events import Actor, Fact
from cumulant.flows.ledger import run_events as events
from cumulant.flows.ledger.run_events import RunStarted, verify
from cumulant.testing.journal import MemoryJournal

ADA = Actor("user:ada")


def test_facts_have_kinds_of_their_own():
    facts = [found for found in vars(events).values() if isinstance(found, type) and issubclass(found, Fact)]
    kinds = [fact.kind for fact in facts if fact is not Fact]
    assert len(kinds) == len(set(kinds)) == 7
    assert all(kind.split(".")[0] in {"run", "step"} for kind in kinds)


def test_an_empty_chain_holds():
    assert verify(MemoryJournal()).breaks == []


def test_events_written_while_the_chain_is_verified_are_no_break():
    class Busy(MemoryJournal):
        """Somebody else writes whenever this journal is read."""

        def events(self, **choice):
            self.write()
            yield from super().events(**choice)
            self.write()

        def write(self):
            with self.transaction(actor=ADA) as tx:
                tx.emit(RunStarted(flow="train"))

    journal = Busy()
    journal.write()
    assert verify(journal).breaks == []
    assert journal.head().seq == 3
