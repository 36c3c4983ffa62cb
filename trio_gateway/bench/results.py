"""What was found: a figure for each configuration, and which targets that reaches."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

from attrs import asdict, frozen

from trio_gateway.bench.figures import Figures, figures, medians, merged, quotients

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from trio_gateway.bench.figures import Run
    from trio_gateway.bench.plan import Case

__all__ = ["Result", "Verdict", "quiet", "results", "verdicts"]

# What the targets for throughput are set for.
_CROWD: Final = 64  # streams per worker
_COMPLEXITY: Final = 5


@frozen(kw_only=True)
class Result:
    """A configuration's medians over the rounds.

    Attributes:
        case: The configuration.
        figures: Medians; for a start, of all of them together.
        ratios: Medians of the ratios to direct; None for a start, which has no counterpart.
        over_codec_us: Median latency beyond that of direct, microseconds: what the pool adds.
        codec_us: Inside libopus as the workers measure it, getting the GIL back included.
        busy: Share of the Trio thread that was burnt.
        cores: CPU cores that the process had, on average.
    """

    case: Case
    figures: Figures
    cores: float
    ratios: Figures | None = None
    over_codec_us: float | None = None
    codec_us: float | None = None
    busy: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """A flat object; `ratios` holds the other ratios to direct under their figures' names."""
        case, ratios = asdict(self.case), None
        if self.ratios is not None:
            ratios = asdict(self.ratios)
        return {
            **case,
            **asdict(self.figures),
            "ratio": None if ratios is None else ratios.pop("fps"),
            "ratios": ratios,
            "over_codec_us": self.over_codec_us,
            "codec_us": self.codec_us,
            "trio_busy": self.busy,
            "cores": self.cores,
        }


def results(runs: Mapping[Case, Sequence[Run]]) -> list[Result]:
    """Summarise.

    Args:
        runs: Of each configuration, one for each round in order, those of its base included.
    """
    return [_result(case, runs) for case in runs]


def _result(case: Case, runs: Mapping[Case, Sequence[Run]]) -> Result:
    if case.base is None:
        every = merged(runs[case])
        return Result(case=case, figures=figures(every), cores=every.cpu / every.elapsed)
    rounds = [figures(run) for run in runs[case]]
    bases = [figures(run) for run in runs[case.base]]
    over = medians(
        Figures(**{k: v - asdict(base)[k] for k, v in asdict(each).items()})
        for each, base in zip(rounds, bases, strict=True)
    )
    codec = [run.codec for run in runs[case] if run.codec is not None]
    return Result(
        case=case,
        figures=medians(rounds),
        ratios=medians(map(quotients, rounds, bases)),
        over_codec_us=over.p50_ms * 1e3 if case.mode.startswith("pool") else None,
        codec_us=fmean(codec) * 1e6 if codec else None,
        busy=fmean(run.busy for run in runs[case]),
        cores=fmean(run.cpu / run.elapsed + run.busy for run in runs[case]),
    )


def quiet(found: Sequence[Result], cores: int) -> float | None:
    """The share of the `cores` that the plain loops had, of what they had use for.

    Returns:
        About 1 on a machine that nobody else uses, the least of all loops; None without any.
    """
    loops = [each for each in found if each.case.kind is None]
    return min((each.cores / min(each.case.workers, cores) for each in loops), default=None)


@frozen
class Verdict:
    """A target, and what was measured.

    Attributes:
        case: The configuration that it is set for.
        what: In words.
        wanted: The limit.
        got: The figure.
        at_least: Whether the limit is the least; else it is the most.
        unit: Of both.
    """

    case: Case
    what: str
    wanted: float
    got: float
    at_least: bool
    unit: str

    @property
    def reached(self) -> bool:
        """Whether the figure is within the limit."""
        return self.got >= self.wanted if self.at_least else self.got <= self.wanted


def verdicts(found: Sequence[Result]) -> list[Verdict]:
    """Judge what was measured by the targets that were set for two cores."""
    return [verdict for result in found for verdict in _judged(result)]


def _judged(result: Result) -> Iterator[Verdict]:
    case, kind = result.case, result.case.kind
    if case.mode == "pool" and case.streams == _CROWD and result.ratios is not None:
        wanted = None
        if case.op == "decode":
            wanted = 0.85 if kind == "interpreter" else 0.75
        elif case.complexity == _COMPLEXITY:
            wanted = 0.95
        if wanted is not None:
            yield Verdict(case, "frames/s of direct", wanted, result.ratios.fps, True, "")
    if case.mode == "pool" and case.streams == 1 and case.op == "decode":
        over = result.over_codec_us or 0.0
        yield Verdict(case, "p50 beyond the codec", 90, over, False, "us")
    if case.mode == "burst" and case.op == "decode":
        yield Verdict(case, "jitter in a burst", 1.0, result.figures.jitter_ms, False, "ms")
    if case.mode == "start":
        wanted = 40.0 if kind == "interpreter" else 3.0
        yield Verdict(case, "p50 of a start", wanted, result.figures.p50_ms, False, "ms")
