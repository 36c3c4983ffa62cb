"""A pool of workers as queueing theory has it: what a load does to a number of workers.

Frames come at moments of their own and any free worker takes the next: M/G/c. While more is offered
than the workers can do, a fluid backlog grows at the difference; otherwise the waiting is Erlang's
(for M/M/c), corrected for service times that vary less than exponential ones (Lee and Longton 1959,
Allen and Cunneen 1978):

    mean frames waiting = V * C(c, a) * u / (1 - u)        u = a / c, V = (1 + variation) / 2
    P(a frame waits longer than t) = C(c, a) * exp(-t * (c - a) / (V * service))

with a = the offered load in workers. The second is exact for M/M/c and a heavy-traffic limit else.
Against a simulation of every frame (a test does it) means are right to 3 % and the slowest frame of
a second to 15 %, up to 85 % utilisation.

What it leaves out: devices that talk in chorus (their frames come together and wait for each other;
`simulate --together` does that) wait longer than this; those that each keep their own 60 ms, less.
"""

from __future__ import annotations

from math import ceil, log1p

from attrs import define, field, frozen

from trio_gateway.core.window import Window

__all__ = ["FRAME", "Moment", "QueueingPool", "erlang_c"]

FRAME = 0.060
"""Seconds of speech in a frame: what devices send, and hear by default."""

VARIATION = 0.74
"""Squared coefficient of variation of the service time: decodes of 35 us and as many encodes of
465 us, which is what calls at complexity 5 were measured to cost."""
LONGEST = 1.86
"""The longest service in means: 465 us of a mean of 250."""
_V = (1 + VARIATION) / 2
FULL = 0.95
"""Utilisation beyond which the queue of chance is not followed: it would take longer to form than a
load stays the same, and at 100 % the backlog takes over."""

IDLE_CPU = 5.0
"""% of the cores without a call: what the earlier gateway needed; ours is below it."""
CPU_PER_CODEC = 1.23
"""Seconds of CPU for a second of codec, the event loop's share included. A fit: with it and eight
cores, ten of the earlier gateway's devices come to the 70 % that it needed."""


@frozen(kw_only=True)
class Moment:
    """What the pool would have reported of one step.

    Attributes:
        pending: Frames in the pool; mean.
        waiting: Frames of those that no worker is at work on; mean.
        cpu: % of the cores.
        latency: Seconds; the slowest frame of the window.
        overloaded: More came than the workers can do, or some of that was left from before.
        dropped: Frames.
    """

    pending: float
    waiting: float
    cpu: float
    latency: float
    overloaded: bool
    dropped: float


@define(kw_only=True)
class QueueingPool:
    """Workers, and what waits for them.

    Attributes:
        workers: May be set at any time.
        cores: They share; more workers than cores take turns.
        patience: Seconds of speech that may wait; beyond it the oldest is dropped.
        window: Seconds that latencies are remembered (MetricsSettings).
        backlog: Frames that wait because more came than could be done.
    """

    workers: int
    cores: float
    patience: float = 3.0
    window: float = 10.0
    backlog: float = field(default=0.0, init=False)
    _now: float = field(default=0.0, init=False)
    _service: float = field(default=0.001, init=False)  # of the last frames; none has come yet
    _latency: Window = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._latency = Window(self.window)

    @property
    def capacity(self) -> float:
        """Load that it can do, in workers."""
        return min(self.workers, self.cores * (1 - IDLE_CPU / 100) / CPU_PER_CODEC)

    def step(self, offered: float, service: float, elapsed: float) -> Moment:
        """Let time pass.

        Args:
            offered: Load in workers: arrival rate x service time.
            service: Mean seconds in the codec for a frame. 0 if no frame came.
            elapsed: Seconds, above 0.
        """
        self._now += elapsed
        self._service = service = service or self._service
        capacity = self.capacity
        before = self.backlog
        backlog, dropped = self._pile_up(offered / service, capacity / service, elapsed)
        queue, slowest = self._by_chance(offered, service, elapsed)
        busy = min(offered + before * service / elapsed, capacity)
        pending = busy + backlog + queue
        if busy > 0:
            oldest = max(before, self.backlog) * service / capacity
            self._latency.record(oldest + slowest, self._now)
        return Moment(
            pending=pending,
            waiting=backlog + queue,
            cpu=min(IDLE_CPU + 100 * CPU_PER_CODEC * busy / self.cores, 100.0),
            latency=self._latency.summary(self._now).max,
            overloaded=offered > capacity or before > 0,
            dropped=dropped,
        )

    def _pile_up(self, arriving: float, served: float, elapsed: float) -> tuple[float, float]:
        """Let the backlog grow or shrink; return its mean, and the frames dropped.

        Args:
            arriving: Frames/s.
            served: Frames/s, at most.
            elapsed: Seconds.
        """
        before = self.backlog
        slope = arriving - served
        grown = before + slope * elapsed
        limit = max(arriving * self.patience, before)  # fewer arrivals drop nothing that waits
        self.backlog = after = min(max(grown, 0.0), limit)
        if after == before:
            mean = after
        else:  # a line to its bound, and along it
            moving = min((after - before) / slope, elapsed)
            mean = ((before + after) / 2 * moving + after * (elapsed - moving)) / elapsed
        return mean, max(grown - limit, 0.0)

    def _by_chance(self, offered: float, service: float, elapsed: float) -> tuple[float, float]:
        """Return the mean number that waits although there is capacity, and the slowest's seconds.

        The slowest of n draws: what 1 in n waits longer than.
        """
        if not offered:
            return 0.0, LONGEST * service
        capacity = self.capacity
        share = min(offered / capacity, FULL)
        servers = ceil(capacity)  # where cores are short, it takes that many workers to use them
        waits = erlang_c(servers, share * servers)
        queue = _V * waits * share / (1 - share)
        # Neighbours wait in the same queue: their waits are not as many draws as there are frames.
        draws = offered / service * elapsed * (1 - share) ** 2
        mean = _V * service / (capacity * (1 - share))  # of those that wait
        return queue, LONGEST * service + mean * log1p(draws * waits)


def erlang_c(servers: int, offered: float) -> float:
    """Return the probability that whoever comes has to wait (M/M/c; Erlang 1917).

    Args:
        servers: At least 1.
        offered: Load in servers, below their number.
    """
    blocked = 1.0  # Erlang's B, by recursion over the servers
    for number in range(1, servers + 1):
        blocked = offered * blocked / (number + offered * blocked)
    return servers * blocked / (servers - offered * (1 - blocked))
