"""One connection at a time has the owner, and the newest has the right to it."""

import threading

import pytest

from controller_app.owner import OwnerLoan
from tests.support.recording_owner import RecordingOwner


class FakeConnection:
    """Gives the owner back some time after it was asked to close."""

    id = 1

    def __init__(self, loan, *, ends=True):
        self.loan = loan
        self.ends = ends
        self.closes = 0

    def close(self):
        self.closes += 1
        if self.ends:
            threading.Timer(0.01, self.loan.give_back, (self,)).start()


@pytest.fixture
def loan():
    return OwnerLoan(RecordingOwner())


def test_a_free_owner_is_taken_at_once(loan):
    assert loan.take(FakeConnection(loan), 0)


def test_the_former_connection_is_ended_first(loan):
    former = FakeConnection(loan)
    assert loan.take(former, 0)
    assert loan.take(FakeConnection(loan), 5)
    assert former.closes == 1


def test_a_former_connection_that_does_not_end_keeps_it(loan):
    former = FakeConnection(loan, ends=False)
    assert loan.take(former, 0)
    newcomer = FakeConnection(loan)
    assert loan.take(newcomer, 0.02) is False
    loan.give_back(newcomer)
    assert loan.take(newcomer, 0) is False
    loan.give_back(former)
    assert loan.take(newcomer, 0)


def test_of_many_newcomers_each_gets_its_turn_and_one_is_left(loan):
    connections = [FakeConnection(loan) for _ in range(8)]
    answers = {}
    threads = [
        threading.Thread(target=lambda c=c: answers.update({id(c): loan.take(c, 5)}))
        for c in connections
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert list(answers.values()) == [True] * 8
    assert sum(connection.closes for connection in connections) >= 7
    holders = [c for c in connections if c.closes == 0]
    assert len(holders) == 1
    assert loan._holder is holders[0]
