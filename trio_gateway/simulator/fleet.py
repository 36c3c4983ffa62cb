"""All devices of a simulation, and what they share: one timer, one reader, one set of meters."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final

import trio
from attrs import define

from trio_gateway.simulator.caller import Caller
from trio_gateway.simulator.handset import Meters
from trio_gateway.simulator.report import Failure, Report
from trio_gateway.simulator.surroundings import RealSurroundings
from trio_gateway.simulator.verify import judge, required_similarity
from trio_gateway.simulator.voice import FRAME_MS, voice
from trio_gateway.speech import CLIPS

if TYPE_CHECKING:
    from trio_gateway.simulator.caller import Call
    from trio_gateway.simulator.network import BadNetwork
    from trio_gateway.simulator.plan import Plan

__all__ = ["simulate"]

_SETTLING: Final = 0.5
# Seconds from the last connection to the first common start; a guess: all hellos are answered.
_BETWEEN: Final = 1.0  # seconds of a turn beyond talk and reply; a guess: the echo needs 0.3


async def simulate(plan: Plan) -> Report:
    """Let the devices live, then judge what they heard.

    Measured with 200 devices and the gateway on two cores: 9 % of a core while they talk and listen
    in turn, 15 % in realtime mode. The judging comes afterwards, in threads: all calls that are
    kept, the newest 16 of each device.
    """
    # All are encoded now, and not while the first devices talk.
    longest = max(len(voice(number).packets) for number in range(len(CLIPS))) * FRAME_MS / 1000
    meters = Meters()
    began, cpu_s = trio.current_time(), time.process_time()
    surroundings = _Turns(began + plan.ramp + _SETTLING, 2 * longest + _BETWEEN, plan.together)
    async with surroundings.open():
        numbers = range(plan.first_device, plan.first_device + plan.devices)
        callers = [Caller(number, plan, surroundings, meters) for number in numbers]
        await _live(callers, began, plan)
    elapsed = trio.current_time() - began
    cpu_s = time.process_time() - cpu_s
    calls = [call for caller in callers for call in caller.calls if call.finished]
    await judge(calls)
    return _report(
        plan, callers, calls, meters, elapsed=elapsed, cpu=100 * cpu_s / max(elapsed, 1e-9)
    )


async def _live(callers: list[Caller], began: float, plan: Plan) -> None:
    async with trio.open_nursery() as nursery:
        for index, caller in enumerate(callers):
            await trio.sleep_until(began + plan.ramp * index / len(callers))
            nursery.start_soon(caller.run, began + plan.seconds)


@define(eq=False)
class _Turns(RealSurroundings):
    """Surroundings in which all devices begin to talk at the same moments, if they are to."""

    first_turn: float
    turn_s: float
    together: bool

    async def next_turn(self) -> None:
        """See Surroundings."""
        if not self.together:
            await trio.lowlevel.checkpoint()
            return
        turn = max(0, math.ceil((trio.current_time() - self.first_turn) / self.turn_s))
        await trio.sleep_until(self.first_turn + turn * self.turn_s)


def _report(
    plan: Plan,
    callers: list[Caller],
    calls: list[Call],
    meters: Meters,
    *,
    elapsed: float,
    cpu: float,
) -> Report:
    counters = [caller.device.counters for caller in callers]
    speakers = [caller.device.speaker for caller in callers]
    networks = [way.statistics() for caller in callers for way in _ways(caller)]
    similarities = [call.similarity for call in calls]
    failures = tuple(
        Failure(caller.number, caller.device.client_id, reason)
        for caller in callers
        if (reason := _failure(caller))
    )
    return Report(
        devices=len(callers),
        elapsed=elapsed,
        mode=plan.mode,
        heard_back=len(callers) - len(failures),
        calls=sum(caller.call_count for caller in callers),
        judged=len(calls),
        similarity_min=min(similarities, default=-1.0),
        similarity_mean=sum(similarities) / max(len(calls), 1),
        hello=meters.hello.summary(0.0),
        response=meters.response.summary(0.0),
        round_trip=meters.round_trip.summary(0.0),
        jitter=meters.jitter.sigma,
        frames_up=sum(each.up for each in counters),
        frames_down=sum(each.down for each in counters),
        lost=sum(each.lost for each in counters),
        late=sum(each.late for each in counters),
        repeated=sum(each.repeated for each in counters),
        malformed=sum(each.malformed for each in counters),
        unexpected=sum(each.unexpected for each in counters),
        overflows=sum(each.overflows for each in speakers),
        underruns=sum(each.underruns for each in speakers),
        cuts=sum(each.cuts for each in speakers),
        network_lost=sum(each.lost for each in networks),
        network_held=sum(each.held for each in networks),
        cpu=cpu,
        lag=meters.lag,
        failures=failures,
    )


def _ways(caller: Caller) -> tuple[BadNetwork, BadNetwork]:
    return caller.handset.up, caller.handset.down


def _failure(caller: Caller) -> str:
    """Return why this device is no success; empty if it is one."""
    if caller.failure:
        return caller.failure
    for call in caller.calls:
        frames = 2 * len(call.voice.packets)
        required = required_similarity(call.damaged / frames)
        if call.similarity < required:
            return f"heard something else: similarity {call.similarity:.2f}, {required:.2f} needed"
    return "" if caller.calls else "did not get to talk"
