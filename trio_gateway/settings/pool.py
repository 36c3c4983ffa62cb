"""The settings of the codec workers and of the scaler that adds and retires them."""
# setting() makes an attrs field, not a shared value

from __future__ import annotations

import sys
from platform import python_version
from typing import ClassVar, Literal

from attrs import frozen

from trio_gateway.settings.rules import (
    COUNT,
    DURATION,
    Choice,
    Number,
    Optional,
    Switch,
    Text,
    Whole,
    require,
    setting,
)

__all__ = [
    "PoolSettings",
    "ScalingSettings",
]

_PERCENT = Number(0, 100)


@frozen
class PoolSettings:
    """The codec workers."""

    SECTION: ClassVar[str] = "pool"

    min_workers: int = setting(
        2,
        Whole(1, 64),
        unit="workers",
        help="Always running.",
        why="The earlier gateway; with two, one that dies leaves one.",
    )
    max_workers: int = setting(
        8,
        Whole(1, 64),
        unit="workers",
        help="Never more.",
        why="The earlier gateway.",
    )
    kind: Literal["auto", "thread", "interpreter"] = setting(
        "auto",
        Choice("auto", "thread", "interpreter", note="interpreter needs Python 3.13 or later"),
        unit="",
        help="What a worker is. auto = isolated interpreters where they work, else threads.",
        why="Measured on 3.13, Trio thread half busy: interpreters do 1.5 to 2.2 times the frames.",
    )
    in_flight: float = setting(
        0.008,
        DURATION,
        unit="s",
        help="Work handed to one worker ahead of time, by what its frames cost lately; at least "
        "one frame, at most 256. A word waits behind that much at worst.",
        why="Measured: with a half busy Trio thread and two cores, encoding with interpreters "
        "reaches 0.46 of the bare codec with 2 ms, 0.55 with 4, 0.72 with 8 and 0.75 with 16.",
    )
    slots: int = setting(
        2048,
        Whole(1, 1 << 20),
        unit="frames",
        help="Size of the buffer pool: frames that workers hold at once. Those that still wait "
        "for a worker are not in it.",
        why="8 workers x 256 frames; 40 MiB, of which only pages that were ever used are real "
        "memory.",
    )
    backlog_frames: int = setting(
        50,
        COUNT,
        unit="frames",
        help="Waiting for one stream; beyond it the oldest is dropped and counted.",
        why="3 s of speech; older than that, nobody wants to hear it.",
    )
    deadline: float = setting(
        0.150,
        DURATION,
        unit="s",
        help="A frame that takes longer through the pool is counted as late.",
        why="ITU-T G.114: 150 ms one way is what a conversation does not notice.",
    )
    drain_timeout: float = setting(
        2.0,
        DURATION,
        unit="s",
        help="For a retired worker to finish what it holds; then it is reported and let go.",
        why="Draining takes milliseconds; 2 s means that libopus hangs.",
    )
    hang_timeout: float = setting(
        5.0,
        Number(0.1),
        unit="s",
        help="For a worker that holds frames to report one; then its thread is given up, and "
        "another worker takes its place.",
        why="Guess: a codec call takes a millisecond, but a thread that gets no core looks the "
        "same; with 1 s, workers were given up where ten programs shared a core.",
    )
    libopus: str | None = setting(
        None,
        Optional(Text("the path of a shared library")),
        unit="",
        help="Another libopus to load. none = the one in the opuslib-next-bundled wheel.",
        why="none: no system package needed.",
    )
    decode_first: bool = setting(
        True,
        Switch(),
        unit="",
        help="Hand out decoders' frames before encoders'.",
        why="A listener forgives a late reply sooner than a lost word.",
    )
    decode_workers: int = setting(
        0,
        Whole(0, 63),
        unit="workers",
        help="That decode and do nothing else. One worker at least is left for encoders.",
        why="Measured (docs/performance.md): with 1 of 2, words wait 0.1 ms instead of 5 where "
        "encoders saturate the workers, and replies lose 6 to 19 %.",
    )
    pin_workers: bool = setting(
        False,
        Switch(),
        unit="",
        help="Keep each worker on one CPU core (Linux).",
        why="Measured (docs/performance.md): nothing is gained in every round.",
    )
    switch_interval: float | None = setting(
        None,
        Optional(Number(1e-6, 0.1)),
        unit="s",
        help="sys.setswitchinterval for the whole program, while workers are threads. none = leave "
        "it alone.",
        why="none: the program around an embedded gateway decides. The command line sets 0.0001: "
        "measured, a few % more frames than with 0.0005, up to a third with a busy Trio thread.",
    )

    def __attrs_post_init__(self) -> None:
        require(
            self,
            "min_workers must not be above max_workers",
            "min_workers",
            "max_workers",
            holds=self.min_workers <= self.max_workers,
        )
        require(
            self,
            f"interpreter needs Python 3.13 or later, and this is {python_version()}",
            "kind",
            holds=self.kind != "interpreter" or sys.version_info >= (3, 13),
        )
        require(
            self,
            "only Linux lets a thread choose its core",
            "pin_workers",
            holds=not self.pin_workers or sys.platform == "linux",
        )
        require(
            self,
            "dedicated decode workers need decode_first, a queue of their own",
            "decode_workers",
            "decode_first",
            holds=self.decode_first or not self.decode_workers,
        )
        require(
            self,
            "slots must be at least max_workers, or some could hold nothing",
            "slots",
            "max_workers",
            holds=self.max_workers <= self.slots,
        )


@frozen
class ScalingSettings:
    """When workers come (any signal is high) and go (all signals are low)."""

    SECTION: ClassVar[str] = "scaling"

    interval: float = setting(
        10.0,
        DURATION,
        unit="s",
        help="Between two looks at the signals.",
        why="The earlier gateway.",
    )
    window: float = setting(
        10.0,
        DURATION,
        unit="s",
        help="How far back the signals look.",
        why="The interval: each look sees what happened since the last one, once.",
    )
    load_up: float = setting(
        70.0,
        Number(0),
        unit="%",
        help="Add workers above this load = frames pending per worker / `frames_per_worker`.",
        why="The earlier gateway.",
    )
    load_down: float = setting(
        30.0,
        Number(0),
        unit="%",
        help="Retire workers only below this load.",
        why="The earlier gateway.",
    )
    cpu_up: float = setting(
        60.0,
        _PERCENT,
        unit="%",
        help="Add workers above this use of the cores that this program may run on.",
        why="The earlier gateway.",
    )
    cpu_down: float = setting(
        30.0,
        _PERCENT,
        unit="%",
        help="Retire workers only below this.",
        why="The earlier gateway.",
    )
    latency_up: float = setting(
        0.050,
        DURATION,
        unit="s",
        help="Add workers when a frame in the window took longer than this through the pool.",
        why="The earlier gateway.",
    )
    latency_down: float = setting(
        0.010,
        DURATION,
        unit="s",
        help="Retire workers only when all were faster.",
        why="The earlier gateway.",
    )
    queue_per_worker_up: float = setting(
        3.0,
        DURATION,
        unit="frames",
        help="Add workers when more than this many frames per worker wait for one. They are "
        "retired only when none waits.",
        why="The earlier gateway.",
    )
    frames_per_worker: float = setting(
        5.0,
        DURATION,
        unit="frames",
        help="Pending frames that count as 100 % load of one worker.",
        why="The earlier gateway: the 5 in 'pending per worker / 5'.",
    )
    cooldown_up: float = setting(
        30.0,
        Number(0),
        unit="s",
        help="After a change, before workers are added.",
        why="The earlier gateway.",
    )
    cooldown_down: float = setting(
        60.0,
        Number(0),
        unit="s",
        help="After a change, before workers are retired.",
        why="The earlier gateway.",
    )
    cooldown_overload: float = setting(
        1.5,
        Number(0),
        unit="s",
        help="In place of `cooldown_up`, while more load comes than the workers can do and a core "
        "is free for one more. `cooldown_up` or more: no difference is made.",
        why="Replayed (docs/scaling.md): a jump that one sample saw half of overloads for 3 s and "
        "not for 35. The second sample after a change; the third would find 3 s of speech waiting.",
    )

    def __attrs_post_init__(self) -> None:
        for signal in ("load", "cpu", "latency"):
            down, up = f"{signal}_down", f"{signal}_up"
            require(
                self,
                f"{down} must be below {up}, or the pool would swing",
                down,
                up,
                holds=getattr(self, down) < getattr(self, up),
            )
