"""The soak itself: it passes on a gateway in order, and fails on each kind of harm."""

from __future__ import annotations

import argparse
from random import Random
from typing import Any

import pytest
from attrs import evolve
from run_soak import main, soak
from samples import Inside, Rest, Sample
from verdict import GROWTH_BYTES, Outcome, failures, memory_slope, slope_of, table

from trio_gateway.workers.interpreter import interpreters_work

MIB = 1 << 20
KINDS = ["thread", *(["interpreter"] if interpreters_work() else [])]
INSIDE = Inside(
    tasks=17, idle_threads=0, interpreters=1, timers=0, sessions=0, streams=0, slots=0, in_pool=0,
    under_way=0, connections=0, opened=0, frames=0, datagrams=0, refused=0, deaths=0,
    unaccounted={},
)  # fmt: skip
SAMPLE = Sample(at=0.0, rss_bytes=90 * MIB, descriptors=19, threads=5, cpu_s=1.0, inside=INSIDE)
REST = Rest(sample=SAMPLE, objects={"list": 100})
BUSY = {"opened": 100, "frames": 9000, "datagrams": 5000}


def outcome(**changes: Any) -> Outcome:
    quiet = Outcome(
        kind="thread",
        samples=[evolve(SAMPLE, at=2.0 * index) for index in range(100)],
        before=REST,
        after=at_rest(),
        surprises={},
        errors={"worker died": 3, "handler failed": 9},
        left={"descriptors": 0},
        exit_code=0,
    )
    return evolve(quiet, **changes)


def at_rest(**inside: Any) -> Rest:
    """At the end."""
    return evolve(REST, sample=evolve(SAMPLE, inside=evolve(INSIDE, **{**BUSY, **inside})))


def with_sample(**changes: Any) -> Rest:
    rest = at_rest()
    return evolve(rest, sample=evolve(rest.sample, **changes))


def growing(bytes_per_s: float, noise: int, seconds: int) -> list[Sample]:
    draw = Random(1)
    return [
        evolve(
            SAMPLE, at=float(at), rss_bytes=int(90 * MIB + bytes_per_s * at + draw.gauss(0, noise))
        )
        for at in range(seconds)
    ]


def test_nothing_wrong() -> None:
    assert failures(outcome()) == []
    assert "| descriptors | 19 | 19 | 19 | 19 | 19 |" in table(outcome())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (outcome(after=with_sample(descriptors=20)), "descriptors: 19"),
        (outcome(after=with_sample(threads=6)), "threads: 5 before, 6"),
        (outcome(after=at_rest(tasks=18)), "tasks: 17 before, 18"),
        (outcome(after=at_rest(slots=1)), "slots: 1 at the end"),
        (outcome(after=at_rest(under_way=1)), "under_way: 1 at the end"),
        (outcome(after=at_rest(unaccounted={"up.heard": 1})), "do not add up"),
        (outcome(after=evolve(at_rest(), objects={"list": 6000})), "5900 list"),
        (outcome(after=at_rest(frames=0)), "nothing happened: frames 0"),
        (outcome(surprises={"no answer": 2}), "surprise: no answer (2 times)"),
        (outcome(errors={"session not opened": 1}), "session not opened"),
        (outcome(left={"descriptors": 1}), "1 descriptors"),
        (outcome(exit_code=-11), "-11 exit code"),
        (outcome(samples=growing(GROWTH_BYTES / 40, 0, 100)), "memory: grows"),
    ],
)
def test_what_is_wrong_is_said(wrong: Outcome, words: str) -> None:
    (line,) = failures(wrong)
    assert words in line


def test_one_sample_that_does_not_add_up_is_enough() -> None:
    samples = list(outcome().samples)
    samples[50] = evolve(SAMPLE, at=100.0, inside=evolve(INSIDE, unaccounted={"framed": -1}))
    (line,) = failures(outcome(samples=samples))
    assert "from 100 s on: {'framed': -1}" in line


def test_objects_may_fill_caches_but_not_grow_with_the_calls() -> None:
    cached = evolve(at_rest(), objects={"list": 100, "TokenBucket": 4096, "tuple": 2000})
    assert failures(outcome(after=cached)) == []
    leaking = evolve(at_rest(opened=50_000), objects={"list": 50_100})
    assert "50000 more at the end, after 50000 calls" in failures(outcome(after=leaking))[0]


def test_memory_that_is_noisy_or_stepped_early_is_no_leak() -> None:
    assert failures(outcome(samples=growing(0.0, 16 * MIB, 300))) == []
    early = [evolve(SAMPLE, at=float(at), rss_bytes=(60 + min(at, 100)) * MIB) for at in range(300)]
    assert failures(outcome(samples=early)) == []
    peak = [
        evolve(SAMPLE, at=float(at), rss_bytes=(90 + 50 * (at > 295)) * MIB) for at in range(300)
    ]
    assert failures(outcome(samples=peak)) == []


def test_a_leak_is_found_under_noise() -> None:
    leaking = growing(0.1 * MIB, MIB, 300)  # 15 MiB in the second half
    assert memory_slope(leaking).estimate == pytest.approx(0.1 * MIB, rel=0.1)
    assert "memory: grows by" in failures(outcome(samples=leaking))[0]


def test_the_slope_is_that_of_most_points() -> None:
    line = [(float(x), 3.0 * x) for x in range(30)]
    line[7] = (7.0, 1e9)
    assert slope_of(line).estimate == pytest.approx(3.0)
    assert slope_of(line).at_least == pytest.approx(3.0)
    assert slope_of([(0.0, 0.0), (1.0, 1.0)]).at_least == float("-inf")


def given(kind: str, seconds: float, *harm: str) -> argparse.Namespace:
    return argparse.Namespace(minutes=seconds / 60, devices=8, seed=7, kind=kind, harm=harm)


@pytest.mark.parametrize("kind", KINDS)
async def test_three_seconds_of_a_gateway_in_order(kind: str) -> None:
    seen = await soak(given(kind, 3.0))
    assert failures(seen) == []
    assert seen.after.sample.inside.opened > seen.before.sample.inside.opened + 8
    assert max(sample.inside.under_way for sample in seen.samples) > 0


async def test_every_harm_is_seen() -> None:
    harm = ("memory", "object", "descriptor", "thread", "frame")
    seen = await soak(given("thread", 6.0, *harm))
    text = "\n".join(failures(seen))
    for words in ("memory: grows", "objects: ", "descriptors: ", "threads: ", "'up.heard': "):
        assert words in text


def test_a_gateway_that_crashes_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--minutes", "0.1", "--devices", "2", "--seed", "5", "--harm", "crash"]) == 1
    said = capsys.readouterr().out
    assert "FAILED, seed 5: the gateway's process has ended: exit code -9" in said
