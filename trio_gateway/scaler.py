"""The loop around the scaling policy: measure, ask, resize, say what was done and why.

Changes are logged at info. Refusals at debug, each once: a spike that meets a cooldown is refused
every second, and nobody reads thirty lines that differ in the seconds left. `Scaler.last` has them.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import aclosing
from typing import TYPE_CHECKING

import structlog
import trio
from attrs import evolve
from trio_util import periodic

from trio_gateway.core.scaling import ScalerState, ScalingEvent, evaluate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from trio_gateway.core.scaling import Decision, ScalingPolicy, Signals

__all__ = ["Scaler"]

log = structlog.get_logger(__name__)

KEPT = 256
"""Events; a guess: four hours at one change a minute, which is more than cooldowns allow."""


class Scaler:
    """Keeps the pool as large as the policy says.

    Args:
        policy: May be replaced at any time (an operator moves the bounds).
        signals: Returns what was measured over the last so many seconds (0: over the last sample),
            None while nothing was measured yet. `Sampler.signals`.
        resize: Returns when the pool has that many workers. `WorkerPool.resize`.
        workers: Returns how many there are, after a resize that failed half-way.
        on_event: Called with every change that was made. Must not block or raise.
        tick: Seconds between two looks for a spike; as often as there are samples.

    Attributes:
        events: The last changes, oldest first.
        last: The last decision, also when it changed nothing; None before the first.
        paused: While set, nothing is decided and nothing changes.
    """

    def __init__(
        self,
        policy: ScalingPolicy,
        *,
        signals: Callable[[float], Signals | None],
        resize: Callable[[int], Awaitable[None]],
        workers: Callable[[], int] | None = None,
        on_event: Callable[[ScalingEvent], None] | None = None,
        tick: float = 1.0,
    ) -> None:
        self.policy = policy
        self.paused = False
        self.events: deque[ScalingEvent] = deque(maxlen=KEPT)
        self.last: Decision | None = None
        self._signals = signals
        self._resize = resize
        self._workers = workers
        self._on_event = on_event
        self._tick = tick
        self._state = ScalerState()
        self._refused = ""  # what was refused last

    async def run(self) -> None:
        """Scale until cancelled."""
        async with aclosing(periodic(self._tick)) as ticks:  # cancelled inside its loop: close it
            async for _ in ticks:
                if not self.paused:
                    await self._look()

    async def _look(self) -> None:
        now = trio.current_time()
        # What was measured before the last change says nothing about the pool of now, and a sample
        # from before it does not even know how many workers there are.
        changed_at = self._state.changed_at
        window = self._signals(min(self.policy.settings.window, now - changed_at))
        recent = self._signals(0)
        if window is None or recent is None or recent.at <= changed_at:
            return
        decision, self._state = evaluate(self.policy, window, recent, self._state, now)
        if decision is None:
            return
        self.last = decision
        if decision.after != decision.before:
            await self._change(decision)
        elif decision.refused and decision.refused != self._refused:
            log.debug(
                "not scaled",
                workers=decision.before,
                reason=decision.reason,
                **_as_fields(decision.signals),
            )
        self._refused = decision.refused

    async def _change(self, decision: Decision) -> None:
        try:
            await self._resize(decision.after)
        except Exception:
            # Live calls go on with the workers there are. The cooldown counts all the same, so
            # that a machine without memory is not asked for a thread every second.
            log.exception("scaling failed", workers=decision.before, wanted=decision.after)
            reached = decision.before if self._workers is None else self._workers()
            if reached == decision.before:
                return
            short = f"{decision.reason}; the rest of {decision.after} did not start"
            decision = evolve(decision, after=reached, reason=short)
        finally:
            # The cooldown begins when the workers are there, not when they were asked for.
            self._state = evolve(self._state, changed_at=trio.current_time())
        event = ScalingEvent(
            time=self._state.changed_at,
            wall=time.time(),
            before=decision.before,
            after=decision.after,
            reason=decision.reason,
            signals=decision.signals,
        )
        self.events.append(event)
        log.info(
            "scaled",
            before=event.before,
            workers=event.after,
            reason=event.reason,
            **_as_fields(event.signals),
        )
        if self._on_event is not None:
            self._on_event(event)


def _as_fields(signals: Signals) -> Mapping[str, float]:
    """Return signals as a log line has them, rounded to what is read of them."""
    return {
        "load": round(signals.load, 1),
        "cpu": round(signals.cpu, 1),
        "latency_ms": round(signals.latency * 1000, 1),
        "queue": signals.queue,
        "offered": round(signals.offered, 2),
    }
