"""Every timeout and retry policy of the workflows, by name, each with its reason."""

from __future__ import annotations

from datetime import timedelta

from temporalio.common import RetryPolicy

# --- Queues ---------------------------------------------------------------------------------------------------------

CONTROL_QUEUE = "control"
"""Workflows and short activities."""
BROKER_QUEUE = "broker"
"""`follow_run`: any broker, since following needs the database alone."""


def run_queue(tenant_id: object) -> str:
    """The queue that brokers poll only while a runtime of this tenant has a free place."""
    return f"run/{tenant_id}"


# --- Short database work --------------------------------------------------------------------------------------------

LOCAL_START_TO_CLOSE = timedelta(seconds=2)
"""A transaction of ours takes milliseconds; what takes longer would hold a workflow task up."""
LOCAL_SCHEDULE_TO_CLOSE = timedelta(seconds=4)
"""Bounds waiting for a slot and the one retry, well within the 10 s after which a workflow task is handed on."""
LOCAL_RETRY = RetryPolicy(initial_interval=timedelta(milliseconds=100), maximum_attempts=2)
"""One retry rides over a broken connection; after that the durable form takes over."""

RECORD_START_TO_CLOSE = timedelta(seconds=30)
"""Twice the database's statement timeout of 15 s, so that the database answers first."""
RECORD_SCHEDULE_TO_CLOSE = timedelta(days=10)
"""What records state goes on trying for days: an outage of PostgreSQL delays work and never loses it."""
RECORD_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1), backoff_coefficient=2.0, maximum_interval=timedelta(seconds=30)
)
"""At most 30 s between tries: that is how long after an outage the last item goes on."""

# --- A run ----------------------------------------------------------------------------------------------------------

PLACE_START_TO_CLOSE = timedelta(seconds=60)
"""Claim, hand over, the runtime's record: under a second; a minute means that the broker is gone."""
PLACE_MARGIN = timedelta(seconds=30)
"""How long before the warrant's `claim_before` a waiting `place_run` is given up: a claim never meets a stale one."""
PLACE_WAIT_WITHOUT_CLAIM_TIME = timedelta(minutes=5)
"""The wait where the warrant named no `claim_before`."""
PLACE_SHORTEST_WAIT = timedelta(seconds=1)
"""A warrant that is nearly over still gets one poll."""
PLACE_RETRY = RetryPolicy(maximum_attempts=1)
"""One try: whether a claim happened is read from PostgreSQL, never assumed by trying again."""
PLACE_AGAIN_FIRST = timedelta(milliseconds=500)
PLACE_AGAIN_MOST = timedelta(seconds=30)
"""A runtime that has just gone makes `place_run` fail at once: the next try waits, longer each time."""

FOLLOW_START_TO_CLOSE = timedelta(days=8)
"""Longer than the longest run that a policy may allow (7 days)."""
FOLLOW_HEARTBEAT = timedelta(seconds=30)
"""A broker that died is replaced after this; the run itself does not notice (it has its lease)."""
FOLLOW_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1), backoff_coefficient=2.0, maximum_interval=timedelta(seconds=10)
)
"""Without end within its time: following reads and harms nobody."""

# --- Waiting --------------------------------------------------------------------------------------------------------

LOOK_AGAIN_FIRST = timedelta(minutes=5)
LOOK_AGAIN_MOST = timedelta(hours=1)
"""The slow timer behind each signal, twice as long each time that nobody said anything: a signal that was lost delays
by an hour at most, and ten thousand waiting items cost three workflow tasks a second."""
LOOK_AGAIN_AT_LEAST = timedelta(seconds=1)
"""The shortest wait, so that a moment that has already passed never makes a loop without a pause."""
EXPIRY_GRACE = timedelta(seconds=1)
"""How long after an approval's end, by our clock, the database is asked to expire it: its clock decides."""
PARENT_EXPIRY_GRACE = timedelta(minutes=2)
"""How much later the parent does the same, when the approval's own workflow has not."""

# --- Effects --------------------------------------------------------------------------------------------------------

PERFORM_START_TO_CLOSE = timedelta(seconds=150)
"""A connector waits 60 s at most; a minute is for writing down what came of it while the database is away."""
PERFORM_SCHEDULE_TO_CLOSE = timedelta(minutes=10)
"""The warrant is to be claimed within five minutes: who begins later is refused, and another is minted."""
PERFORM_HEARTBEAT = timedelta(seconds=20)
"""A worker that died is noticed after this; what it had sent is settled by the database's clock."""
PERFORM_RETRY = RetryPolicy(maximum_attempts=1)
"""One try: whether it was sent is read from PostgreSQL, never assumed by trying again."""
PERFORM_AGAIN_FIRST = timedelta(seconds=2)
PERFORM_AGAIN_MOST = timedelta(minutes=5)
"""Between tries that are harmless (nothing was sent, or the other side takes a key): twice as long each time."""
SETTLE_MARGIN = timedelta(seconds=1)
"""How long after a try's time is over, by our clock, it is settled: the database's clock decides."""
DOUBT_AGAIN = timedelta(minutes=15)
"""The slow timer behind a staged effect of which nobody knows: people answer, and the item is told."""

# --- Deliveries and reconciliation ----------------------------------------------------------------------------------

DELIVER_START_TO_CLOSE = timedelta(seconds=30)
"""A receiver gets 15 s for its answer; the rest is ours."""
DELIVER_SCHEDULE_TO_CLOSE = timedelta(days=4)
"""A receiver may be down over a long weekend."""
DELIVER_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=5), backoff_coefficient=2.0, maximum_interval=timedelta(hours=1)
)
"""5 s, 10 s … 1 h: quick after a hiccup, and never a flood."""

RECONCILE_START_TO_CLOSE = timedelta(minutes=2)
"""A page of 200 rows asks Temporal 200 times, a few milliseconds each."""
RECONCILE_RETRY = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_attempts=3)
"""It computes, and the next minute's run does it again: a few tries are enough."""
RECONCILE_EVERY = timedelta(minutes=1)
RECONCILE_MOST_PAGES = 200
"""40,000 open rows a run; the next run starts from the front, and what was mended needs no second look."""
RECONCILE_RUN_TIMEOUT = timedelta(minutes=30)
"""A run that hangs ends, so that the schedule (which skips while one runs) goes on."""

RPC_TIMEOUT = timedelta(seconds=10)
"""Starting, signalling and describing: Temporal answers in milliseconds or is away."""
