"""What came of a simulation: numbers for a program (JSON) and for people (a table)."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import attrs
from attrs import define, field, frozen
from rich.table import Table

from trio_gateway.core.window import Summary

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Failure", "Report", "Spread"]

_SHOWN_FAILURES = 10  # lines; what twenty devices have in common, ten of them show


@define
class Spread:
    """The standard deviation of values that come one by one (Welford 1962)."""

    count: int = 0
    mean: float = 0.0
    _squares: float = field(default=0.0, init=False)

    def add(self, value: float) -> None:
        """Count one value."""
        self.count += 1
        delta = value - self.mean
        self.mean += delta / self.count
        self._squares += delta * (value - self.mean)

    @property
    def sigma(self) -> float:
        """Of what was added; 0 for none."""
        return math.sqrt(self._squares / self.count) if self.count else 0.0


@frozen
class Failure:
    """A device that did not hear back what it said, and why."""

    device: int
    client_id: str
    reason: str


@frozen(kw_only=True)
class Report:
    """All devices together. Times are seconds; frames are datagrams of 60 ms, usually."""

    devices: int
    elapsed: float
    """From the first connection to the last goodbye, without the verification."""
    mode: str
    heard_back: int
    """Devices without failure, each of whose judged calls brought back what was said."""
    calls: int
    """Talk and reply, once; a device makes one after the other."""
    judged: int
    """Calls whose reply was decoded and compared: the newest of each device."""
    similarity_min: float
    """Over the judged calls; see `verify`. -1 without any."""
    similarity_mean: float
    hello: Summary
    """From hello to its answer."""
    response: Summary
    """From the end of speech to the first audio; in realtime mode from its beginning."""
    round_trip: Summary
    """Of a frame, there and back: realtime mode only."""
    jitter: float
    """Standard deviation of the time between frames that arrive one after the other."""
    frames_up: int
    frames_down: int
    lost: int
    """Downlink frames that never came, by their sequence."""
    late: int
    """Dropped: came after their successors."""
    repeated: int
    """Dropped: came twice."""
    malformed: int
    """Dropped: not an audio datagram."""
    unexpected: int
    """Dropped: came outside of `tts start` ... `tts stop`."""
    overflows: int
    """Dropped: the device's queue of 40 was full."""
    underruns: int
    """Gaps that a person would hear: the device had nothing to play."""
    cuts: int
    """Frames that `tts stop` cut off before they were played."""
    network_lost: int
    """Dropped by the simulated network, both ways; not in `lost` if on the way up."""
    network_held: int
    """Held up by a frame or more by the simulated network, both ways."""
    cpu: float
    """Of the simulator itself, % of a core, without the verification."""
    lag: float
    """How late the simulator sent a frame, at most. If it is large, so is its own part in all."""
    failures: tuple[Failure, ...] = ()

    @property
    def dropped(self) -> int:
        """Frames that came to a device and were not taken, for whatever reason."""
        return self.late + self.repeated + self.malformed + self.unexpected + self.overflows

    @property
    def passed(self) -> bool:
        """Whether every device heard back what it said."""
        return self.heard_back == self.devices

    def to_json(self) -> str:
        """Return one JSON object with the attributes' names."""
        return json.dumps({"passed": self.passed, **attrs.asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read what `to_json` wrote, in this version of the package."""
        values: dict[str, Any] = json.loads(text)
        del values["passed"]
        for name in ("hello", "response", "round_trip"):
            values[name] = Summary(**values[name])
        values["failures"] = tuple(Failure(**failure) for failure in values["failures"])
        return cls(**values)

    def table(self) -> RenderableType:
        """Return it as a table for a terminal."""
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(style="dim")
        table.add_column()
        for name, text in self._rows():
            table.add_row(name, text)
        for failure in self.failures[:_SHOWN_FAILURES]:
            table.add_row(f"device {failure.device}", f"[red]{_plain(failure.reason)}")
        if len(self.failures) > _SHOWN_FAILURES:
            table.add_row("", f"[red]and {len(self.failures) - _SHOWN_FAILURES} more")
        return table

    def _rows(self) -> list[tuple[str, str]]:
        color = "green" if self.passed else "red"
        judged = f"{self.judged} of {self.calls} calls"
        if self.judged:
            least = f"least {self.similarity_min:.3f}"
            judged += f", similarity {self.similarity_mean:.3f} ({least})"
        rows = [
            ("devices", f"{self.devices}, {self.mode} mode, {self.elapsed:.1f} s"),
            (
                "heard back",
                f"[{color}]{self.heard_back}/{self.devices}[/] on decoded audio: {judged}",
            ),
            ("frames", f"{self.frames_up} up, {self.frames_down} down, {self.lost} lost"),
            ("dropped", self._dropped()),
            ("playback", f"{self.underruns} underruns, {self.cuts} frames cut off"),
        ]
        for name, times in (
            ("hello", self.hello),
            ("response", self.response),
            ("round trip", self.round_trip),
        ):
            if times.count:
                rows.append((name, _times(times)))
        if self.response.count:
            rows.append(("jitter", f"{self.jitter * 1000:.2f} ms (sigma)"))
        if self.network_lost or self.network_held:
            network = f"{self.network_lost} dropped, {self.network_held} held up"
            rows.append(("network", f"{network} on purpose"))
        rows.append(("simulator", f"{self.cpu:.0f} % of a core, lag {self.lag * 1000:.1f} ms"))
        return rows

    def _dropped(self) -> str:
        counts = {
            "late": self.late,
            "repeated": self.repeated,
            "malformed": self.malformed,
            "not speaking": self.unexpected,
            "queue full": self.overflows,
        }
        return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none"


def _times(summary: Summary) -> str:
    p50, p99, most = (1000 * value for value in (summary.p50, summary.p99, summary.max))
    return f"p50 {p50:.1f}, p99 {p99:.1f}, max {most:.1f} ms"


def _plain(text: str) -> str:
    return text.replace("[", "\\[")  # rich's markup; a reason may quote the gateway
