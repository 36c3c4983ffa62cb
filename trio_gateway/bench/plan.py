"""What is to be measured, and in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_gateway.bench.jobs import Op

__all__ = ["BURST", "JOBS", "STREAMS", "Case", "Kind", "Mode", "Part", "Plan"]

Mode: TypeAlias = Literal["direct", "pool", "pool-busy", "burst", "start"]
Kind: TypeAlias = Literal["thread", "interpreter"]
Part: TypeAlias = Literal["decode", "encode", "burst", "start"]

JOBS: Final[tuple[tuple[Op, int | None], ...]] = (
    ("decode", None),
    ("encode", 0),
    ("encode", 5),
    ("encode", 10),
)
"""Operations, with the complexity of encoders."""

STREAMS: Final = (1, 8, 64)  # per worker
BURST: Final = 10  # streams per worker: 20 frames at once for two
BURST_COMPLEXITIES: Final = (None, 5)


@frozen
class Case:
    """One configuration.

    Attributes:
        mode: direct; pool; pool-busy, where the Trio thread is half busy; burst, where frames come
            all at once; start, where a "frame" is one more worker.
        op: decode or encode; fresh or parked for a start.
        kind: Of the workers; None for direct.
        workers: Or threads.
        streams: Per worker; 0 for a start.
        complexity: Of the encoder; else None.
    """

    mode: Mode
    op: Op | Literal["fresh", "parked"]
    kind: Kind | None
    workers: int
    streams: int
    complexity: int | None

    def __str__(self) -> str:
        words = (self.mode, self.op, self.kind, self.streams or None, self.complexity)
        return " ".join(str(word) for word in words if word is not None)

    @property
    def base(self) -> Case | None:
        """The direct loop that it is compared with: that of as many threads as it has workers."""
        if self.mode == "start":
            return None
        return Case("direct", self.op, None, self.workers, 1, self.complexity)


@frozen(kw_only=True)
class Plan:
    """A whole measurement.

    Attributes:
        workers: Of each pool.
        cores: That this process may use.
        kinds: Of worker.
        parts: Of the measurement.
        rounds: How often everything is measured.
        seconds: How long each time.
    """

    workers: int
    cores: int
    kinds: tuple[Kind, ...]
    parts: tuple[Part, ...]
    rounds: int
    seconds: float

    def round(self, number: int) -> list[Case]:
        """The configurations in the order of that round.

        What is compared stands together, the plain loop of as many threads both before it and
        after it; and every other round comes backwards. So a machine that gets slower or faster
        all the time favours nobody.
        """
        cases = list(self._cases())
        return cases[::-1] if number % 2 else cases

    def _cases(self) -> Iterator[Case]:
        for op, complexity in JOBS:
            measured = list(self._pools(op, complexity))
            if measured:
                for threads in sorted({1, self.workers, self.cores}):
                    yield Case("direct", op, None, threads, 1, complexity)
                yield from measured
                yield Case("direct", op, None, self.workers, 1, complexity)
        if "start" in self.parts:
            for kind in self.kinds:
                for start in ("fresh", "parked"):
                    yield Case("start", start, kind, 1, 0, None)

    def _pools(self, op: Op, complexity: int | None) -> Iterator[Case]:
        if op in self.parts:
            for mode in ("pool", "pool-busy"):
                for kind in self.kinds:
                    for streams in STREAMS:
                        yield Case(mode, op, kind, self.workers, streams, complexity)
        if "burst" in self.parts and complexity in BURST_COMPLEXITIES:
            for kind in self.kinds:
                yield Case("burst", op, kind, self.workers, BURST, complexity)
