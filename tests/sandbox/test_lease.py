from uuid import uuid4

from sandbox.link.lease import Leases
from sandbox.link.messages import RunRef


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_lease_counts_from_the_sending_not_from_the_answer() -> None:
    clock, run = Clock(), RunRef(run_id=uuid4(), attempt=1)
    leases = Leases(clock)
    leases.grant(run, 120)
    clock.now += 50
    leases.heartbeat_sent(1)
    clock.now += 60  # The answer takes its time.
    leases.renewed(1, [run], 120)
    clock.now = 1050 + 119.9
    assert leases.expired() == []
    clock.now = 1050 + 120
    assert leases.expired() == [run]


def test_a_missed_heartbeat_alone_ends_nothing() -> None:
    clock, run = Clock(), RunRef(run_id=uuid4(), attempt=1)
    leases = Leases(clock)
    leases.grant(run, 120)
    for beat in range(5):
        leases.heartbeat_sent(beat)
        clock.now += 20
    assert leases.expired() == []
    leases.renewed(4, [run], 120)
    clock.now = 1080 + 119
    assert leases.expired() == []


def test_a_lease_that_is_over_stays_over() -> None:
    clock, run = Clock(), RunRef(run_id=uuid4(), attempt=1)
    leases = Leases(clock)
    leases.grant(run, 120)
    leases.heartbeat_sent(1)
    clock.now += 121
    assert leases.renewed(1, [run], 120) == {}
    assert leases.expired() == [run]


def test_unknown_heartbeats_and_runs_renew_nothing_and_old_ones_never_shorten() -> None:
    clock, run = Clock(), RunRef(run_id=uuid4(), attempt=1)
    leases = Leases(clock)
    leases.heartbeat_sent(1)
    clock.now += 30
    leases.grant(run, 120)
    assert leases.renewed(7, [run], 120) == {}
    assert leases.renewed(1, [run], 120) == {run: 1150.0}
    assert leases.renewed(1, [RunRef(run_id=uuid4(), attempt=1)], 120) == {}


def test_what_is_left_is_never_negative_and_nothing_for_the_unknown() -> None:
    clock, run = Clock(), RunRef(run_id=uuid4(), attempt=1)
    leases = Leases(clock)
    assert leases.remaining(run) == 0
    leases.grant(run, 120)
    clock.now += 50
    assert leases.remaining(run) == 70
    clock.now += 100
    assert leases.remaining(run) == 0


def test_a_placement_that_lay_about_has_no_lease_any_more() -> None:
    clock, run = Clock(), RunRef(run_id=uuid4(), attempt=1)
    leases = Leases(clock)
    leases.heartbeat_sent(7)
    clock.now += 5
    assert leases.grant(run, 120, 7) == 1120
    clock.now += 200  # The process stood still, and the frame waited in its socket.
    leases.grant(run, 120, 7)
    assert leases.expired() == [run]
    leases.grant(run, 120, 99)
    assert leases.remaining(run) == 0
