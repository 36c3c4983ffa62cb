"""Invariant: an outbox gives what it accepted, in order, once, and nothing older than it may be.

The model is a list of (payload, time) that forgets nothing; what is stale is told by looking.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.mqtt.outbox import Outbox, Outgoing

MAX_BYTES, MAX_AGE = 2_000, 8.0

steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 900)),  # bytes
        st.tuples(st.just("take"), st.integers(1, 5)),  # messages
        st.tuples(st.just("lose"), st.integers(1, 5)),  # taken, the first half sent, the rest not
        st.tuples(st.just("wait"), st.integers(1, 9)),  # seconds
    )
)


@given(steps)
async def test_outbox(steps: list[tuple[str, int]]) -> None:
    outbox = Outbox(MAX_BYTES, MAX_AGE)
    model: list[tuple[bytes, float]] = []
    now, count, accepted, given_out = 0.0, 0, 0, 0
    for step, amount in steps:
        fresh = [each for each in model if now - each[1] <= MAX_AGE]
        if step == "wait":
            now += amount
        elif step == "put":
            payload = b"%d" % count + b"." * amount
            count += 1
            if outbox.put("t", payload, now):
                model.append((payload, now))
                accepted += 1
                assert outbox.bytes <= MAX_BYTES
            else:
                costs = [Outgoing("t", each, now).cost for each in (payload, *dict(fresh))]
                assert sum(costs) > MAX_BYTES
        else:
            batch = outbox.take(amount, now)
            assert [message.payload for message in batch] == [each for each, _ in fresh[:amount]]
            sent = batch if step == "take" else batch[: len(batch) // 2]
            outbox.put_back(batch[len(sent) :])
            model = fresh[len(sent) :]
            given_out += len(sent)
    assert accepted == given_out + outbox.stale + len(outbox)
    outbox.take(len(outbox), now)
    assert (outbox.bytes, len(outbox)) == (0, 0)
