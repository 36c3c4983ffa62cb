"""What the demo showed: a table, and whether all went as it should."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen
from rich.markup import escape
from rich.table import Table

from trio_gateway.metrics.console import event_line
from trio_gateway.metrics.units import megabytes, milliseconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from trio_gateway.core.scaling import ScalingEvent
    from trio_gateway.core.window import Summary
    from trio_gateway.metrics.sampler import Sample
    from trio_gateway.simulator.report import Report
    from trio_gateway.tally import SessionsStatistics

__all__ = ["Outcome"]

_SHOWN_FAILURES = 5  # lines


@frozen(kw_only=True)
class Outcome:
    """All that is known in the end.

    Attributes:
        reports: Of the devices' processes.
        errors: Of those that could not report.
        samples: Of the gateway, oldest first.
        events: Of its scaling, oldest first.
        sessions: The gateway's counters, when all devices had left.
        elapsed: Seconds.
    """

    reports: tuple[Report, ...]
    errors: tuple[str, ...]
    samples: tuple[Sample, ...]
    events: tuple[ScalingEvent, ...]
    sessions: SessionsStatistics
    elapsed: float

    @property
    def passed(self) -> bool:
        """Whether every device heard back what it said, and workers were added and retired."""
        return not tuple(self.problems())

    def problems(self) -> Iterator[str]:
        """Say what did not go as it should."""
        yield from self.errors
        for report in self.reports:
            for failure in report.failures:
                yield f"device {failure.device}: {failure.reason}"
        if not self.reports:
            yield "no device reported"
        if not any(event.after > event.before for event in self.events):
            yield "no worker was added: the load never asked for it, or --workers forbids it"
        if not any(event.after < event.before for event in self.events):
            yield "no worker was retired"

    def table(self) -> RenderableType:
        """Return it for a terminal."""
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, text in (*self._device_rows(), *self._gateway_rows()):
            table.add_row(name, text)
        problems = list(self.problems())
        for problem in problems[:_SHOWN_FAILURES]:
            table.add_row("[red]problem", f"[red]{escape(problem)}")
        if len(problems) > _SHOWN_FAILURES:
            table.add_row("", f"[red]and {len(problems) - _SHOWN_FAILURES} more")
        verdict = "[red]not as it should be" if problems else "[green]all as it should be"
        table.add_row("result", f"{verdict}[/], {self.elapsed:.0f} s")
        return table

    def _device_rows(self) -> Iterator[tuple[str, str]]:
        reports = self.reports
        devices = sum(report.devices for report in reports)
        heard = sum(report.heard_back for report in reports)
        judged = sum(report.judged for report in reports)
        calls = sum(report.calls for report in reports)
        least = min((report.similarity_min for report in reports), default=0.0)
        color = "green" if devices and heard == devices else "red"
        audio = f"the decoded audio of {judged} of {calls} calls (similarity {least:.3f} or more)"
        yield "heard back", f"[{color}]{heard}/{devices}[/] devices, verified on {audio}"
        gateway = self.sessions
        up = sum(report.frames_up for report in reports)
        down = sum(report.frames_down for report in reports)
        lost = gateway.lost + sum(report.lost for report in reports)
        concealed = gateway.up.concealed + gateway.up.recovered
        dropped = gateway.dropped + sum(each.dropped for each in reports)
        yield (
            "frames",
            f"{up} up, {down} down, {lost} lost, {concealed} concealed, {dropped} dropped",
        )
        yield "underruns", f"{sum(report.underruns for report in reports)} on the devices"
        for report in sorted(reports, key=lambda each: each.devices):
            jitter = f"jitter {milliseconds(report.jitter)} (sigma)"
            yield "response", f"{_times(report.response)}, {jitter}: {report.devices} devices"

    def _gateway_rows(self) -> Iterator[tuple[str, str]]:
        if self.samples:
            worst = max((sample.pool.latency for sample in self.samples), key=lambda each: each.p99)
            longest = max(sample.pool.latency.max for sample in self.samples)
            cpu = max(sample.cpu for sample in self.samples)
            memory = max(sample.process.rss_bytes for sample in self.samples)
            usual = f"p50 {milliseconds(worst.p50)}, p99 {milliseconds(worst.p99)}"
            yield "pool latency", f"{usual} when it was worst, max {milliseconds(longest)}"
            cores = self.samples[-1].cores
            yield "gateway", f"at most {cpu:.0f} % of {cores:g} cores, {megabytes(memory)}"
        for event in self.events:
            yield "scaled", escape(event_line(event))


def _times(summary: Summary) -> str:
    p50, p99, most = (milliseconds(value) for value in (summary.p50, summary.p99, summary.max))
    return f"p50 {p50}, p99 {p99}, max {most}"
