"""Invariant: an `_untrusted` function raises its one exception and nothing else, and keeps nothing.

The targets are those of fuzz/: this is a short run of the same, and what makes sure that no such
function is without a target, and that a target reaches what it says it covers.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest
from fuzz_table import TARGETS
from fuzzing import Feed, Target, growth, refusable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import trio_gateway
from trio_gateway.errors import BadPacket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

PACKAGE = Path(trio_gateway.__file__).parent

WARM_UP = 100
INPUTS = 300
INPUT_BYTES = 400
MAX_GROWTH = 40_000  # bytes, of 120,000 that are fed; what is kept of each would be more

targets = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())

edits = st.lists(
    st.tuples(
        st.integers(0, 1000), st.integers(0, 4) | st.integers(0, 1000), st.binary(max_size=4)
    ),
    max_size=6,
)


def edited(seed: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    """Cut pieces out of a seed and put others in."""
    for at, cut, put in changes:
        place = at % (len(seed) + 1)
        seed = seed[:place] + put + seed[place + cut :]
    return seed


def near(target: Target) -> st.SearchStrategy[bytes]:
    """Inputs: any bytes, and what is close to a seed."""
    seeds = st.sampled_from(list(target.seeds()))
    cut_off = st.builds(lambda seed, end: seed[: end % (len(seed) + 1)], seeds, st.integers(0, 999))
    return st.binary(max_size=300) | cut_off | st.builds(edited, seeds, edits)


@targets
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=50)
@given(data=st.data())
def test_one_exception_and_no_other(target: Target, data: st.DataObject) -> None:
    target.check(target.open(), data.draw(near(target)))


@targets
def test_what_it_is_given_is_not_kept(target: Target) -> None:
    seeds, random = list(target.seeds()), Random(1)

    def inputs(number: int) -> Iterator[bytes]:
        """Good ones, good beginnings, and noise; each is another object."""
        for _ in range(number):
            seed = random.choice(seeds)
            noise = random.randbytes(INPUT_BYTES)
            yield random.choice([bytes(bytearray(seed)), seed[: len(seed) // 2] + noise, noise])

    assert growth(target, inputs(WARM_UP), inputs(INPUTS)) < MAX_GROWTH


def untrusted_functions() -> set[str]:
    """All of the package, "module:Class.name"; not those that a Protocol only asks for."""
    found = set()

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = f"{prefix}{getattr(child, 'name', '')}"
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                if name.endswith("_untrusted"):
                    found.add(name)
                visit(child, f"{name}.<locals>.")
            elif isinstance(child, ast.ClassDef):
                if "Protocol" not in map(ast.unparse, child.bases):
                    visit(child, f"{name}.")
            else:
                visit(child, prefix)

    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        visit(ast.parse(path.read_text(encoding="utf-8")), f"{module}:")
    return found


def test_every_untrusted_function_has_a_target() -> None:
    covered = [name for target in TARGETS.values() for name in target.covers]
    assert set(covered) == untrusted_functions()
    assert len(covered) == len(set(covered)) > 40


@targets
def test_the_seeds_reach_what_their_target_covers(target: Target) -> None:
    called: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name.endswith("_untrusted"):
            module = frame.f_globals["__name__"].removeprefix("trio_gateway.")
            called.add(f"{module}:{frame.f_code.co_qualname}")

    seeds = list(target.seeds())
    sys.setprofile(note)
    try:
        for seed in seeds:
            target.check(target.open(), seed)
    finally:
        sys.setprofile(None)
    assert set(target.covers) <= called


# The checks themselves


def toy(feed: Feed) -> Target:
    return Target(
        name="toy", open=lambda: feed, refusal=BadPacket, covers=(), seeds=lambda: [b"seed"]
    )


def test_another_exception_is_seen() -> None:
    def feed(data: bytes) -> None:
        data.decode("ascii")

    target = toy(feed)
    target.check(feed, b"good")
    with pytest.raises(UnicodeDecodeError):
        target.check(feed, b"\xff")


def test_a_reason_that_the_peer_has_chosen_is_seen() -> None:
    for reason in ("bad length", "", "x" * 40, "é"):
        with pytest.raises(AssertionError, match="no word"), refusable(BadPacket):
            raise BadPacket(reason)
    with refusable(BadPacket):
        raise BadPacket("bad_length", "whatever the peer says")


def test_what_is_kept_is_seen() -> None:
    kept: list[bytes] = []
    inputs = [bytes([index]) * INPUT_BYTES for index in range(200)]
    assert growth(toy(kept.append), [], [bytes(bytearray(each)) for each in inputs]) < MAX_GROWTH

    def feed(data: bytes) -> None:
        kept.append(data + b"!")

    assert growth(toy(feed), [], inputs) > MAX_GROWTH
