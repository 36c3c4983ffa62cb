"""What fuzz targets are made of, and what is asked of all of them.

Invariant: whatever comes, an `_untrusted` function raises the one exception that its target names,
with a reason from a fixed vocabulary (reasons become keys of counters), and what it keeps does not
grow with what it was given.

A target is opened, then fed inputs one after the other, by Hypothesis
(hypothesis_tests/test_untrusted_properties.py) and by atheris (`python fuzz`). An input is bytes,
always; `Take` reads from them what a structured target wants to know.
"""

from __future__ import annotations

import gc
import re
import tracemalloc
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import define, field, frozen
from structlog.testing import capture_logs

from trio_gateway.errors import PeerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = [
    "SCALARS",
    "WORDS",
    "Feed",
    "Take",
    "Target",
    "growth",
    "nothing_breaks",
    "record",
    "refusable",
]

Feed: TypeAlias = "Callable[[bytes], None]"

DEEPEST = 8  # levels of a JSON value
SCALARS = (None, True, False, 0, 1, 2, 7.0, 16000, 16000.0, 60, 8884, -1, 2**31, 1e308, 10**30)
WORDS = (
    *("type", "hello", "tts", "mcp", "alert", "goodbye", "session_id", "version", "features"),
    *("transport", "udp", "server", "port", "key", "nonce", "state", "start", "stop", "message"),
    *("audio_params", "format", "opus", "sample_rate", "channels", "frame_duration", "status"),
    *("sender_client_id", "orginal_payload", "original_payload", "payload", "jsonrpc", "id"),
    *("method", "params", "result", "error", "", "\0", "\ud800", "00" * 16),
)

_REASON = re.compile(r"[a-z][a-z0-9_]{1,30}")


@frozen(kw_only=True)
class Target:
    """One way in.

    Attributes:
        name: For the command line.
        open: Makes what is fed, from scratch; it lives through many inputs.
        refusal: The one exception that an input may cause.
        covers: The `_untrusted` functions that it reaches, "module:Class.name" without the package.
        seeds: Inputs that get far, to begin with.
    """

    name: str
    open: Callable[[], Feed]
    refusal: type[Exception]
    covers: tuple[str, ...]
    seeds: Callable[[], Iterable[bytes]]

    def check(self, feed: Feed, data: bytes) -> None:
        """Feed one input; raise whatever should not have been raised."""
        with refusable(self.refusal):
            feed(data)


@contextmanager
def refusable(kind: type[Exception]) -> Iterator[None]:
    """Take one refusal, if its reason is a word and nothing that the peer has chosen."""
    try:
        yield
    except kind as refusal:
        if isinstance(refusal, PeerError) and not _REASON.fullmatch(refusal.reason):
            raise AssertionError(f"no word for a counter: {refusal.reason!r}") from refusal


@contextmanager
def nothing_breaks() -> Iterator[None]:
    """What shields sessions and connections from each other logs what it caught: show that here."""
    with capture_logs() as logs:
        yield
    broken = [each for each in logs if each["log_level"] in ("error", "critical")]
    for each in broken:
        error = each.get("exc_info")
        raise AssertionError(str(each)) from error if isinstance(error, Exception) else None


@define
class Take:
    """Reads an input from front to back. Where it has ended, everything is 0 or empty."""

    data: bytes
    at: int = field(default=0, init=False)

    @property
    def more(self) -> bool:
        """Whether anything is left."""
        return self.at < len(self.data)

    def number(self, size: int = 1) -> int:
        """Return an unsigned integer of so many bytes, big-endian."""
        self.at += size
        return int.from_bytes(self.data[self.at - size : self.at], "big")

    def signed(self, size: int = 1) -> int:
        """Return a signed one."""
        value, span = self.number(size), 1 << 8 * size
        return value - span if value >= span // 2 else value

    def block(self) -> bytes:
        """Return bytes with their length in front, two bytes; fewer if the input ends."""
        length = self.number(2)
        self.at += length
        return self.data[self.at - length : self.at]

    def value(self, depth: int = 0) -> Any:
        """Return a JSON value: of JSON text with bytes changed at random, little parses."""
        kind = self.number() % 6 if depth < DEEPEST else self.number() % 4
        if kind == 0:
            return SCALARS[self.number() % len(SCALARS)]
        if kind == 1:
            return WORDS[self.number() % len(WORDS)]
        if kind == 2:
            return self.signed(9)
        if kind == 3:
            return self.block().decode("utf-8", "surrogateescape")
        items = range(self.number() % 16)
        if kind == 4:
            return [self.value(depth + 1) for _ in items]
        return self.object(len(items), depth)

    def object(self, items: int, depth: int = 0) -> dict[str, Any]:
        """Return a JSON object with at most so many items."""
        return {
            WORDS[self.number() % len(WORDS)]: self.value(depth + 1)
            for _ in range(items)
            if self.more
        }

    def rest(self) -> bytes:
        """Return what is left."""
        rest, self.at = self.data[self.at :], len(self.data)
        return rest


def record(*parts: int | bytes) -> bytes:
    """Write what `Take` reads: an integer as one byte, bytes as a block."""
    return b"".join(
        bytes([part & 0xFF]) if isinstance(part, int) else len(part).to_bytes(2, "big") + part
        for part in parts
    )


def growth(target: Target, warm_up: Iterable[bytes], inputs: Iterable[bytes]) -> int:
    """Return by how many bytes the memory in use grows while one target is fed `inputs`.

    Whatever has a bound (a backlog, a cache) should have reached it after `warm_up`.
    """
    feed = target.open()
    tracemalloc.start()
    try:
        for data in warm_up:
            target.check(feed, data)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for data in inputs:
            target.check(feed, data)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - before
