from __future__ import annotations

import io
import time
from math import sin
from typing import TYPE_CHECKING

import pytest
import trio
from attrs import evolve
from readings import POLICY, SIGNALS, FakeSessions, a_pool, a_sample, a_worker, an_event
from rich.console import Console

from trio_gateway.core.scaling import Decision
from trio_gateway.core.window import Summary
from trio_gateway.metrics.graphs import ASCII, UNICODE, Bar, Graph
from trio_gateway.metrics.live import LiveState, live_view, run_live

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from trio_gateway.metrics.sampler import Sample


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def a_story(seconds: int = 40, workers: int = 3) -> list[Sample]:
    """Load that swells and ebbs; the last worker is on its way out."""
    samples = []
    pending = waiting = busy = 0.0
    frames = 0
    for second in range(seconds):
        swell = 1 + sin(second / 6)
        pending += 4 * swell * workers / 2
        waiting += 5 * max(swell - 1, 0)
        busy += swell
        frames += round(300 * swell)
        pool = a_pool(
            workers=tuple(
                a_worker(
                    number,
                    busy_s=busy / workers,
                    state="draining" if number == workers else "ready",
                )
                for number in range(1, workers + 1)
            ),
            target=workers - 1,
            frames=frames,
            late=12,
            busy_s=busy,
            pending_frame_s=pending,
            waiting_frame_s=waiting,
            latency=Summary(600, 0.001, 0.00088, 0.002, 0.00126, 0.03 * swell),
        )
        sessions = FakeSessions(active=round(20 * swell), lost=1_041)
        samples.append(a_sample(float(second), pool, cpu=40 * swell, lag=0.0003, sessions=sessions))
    return samples


EVENTS = (
    an_event(
        12.0, 2, 6, "spike: queue 12 > 6, latency 61.2 ms > 50 ms; 3.8 workers of load need 6"
    ),
    an_event(30.0, 6, 5, "load 12 % < 30 %"),
)
REFUSED = Decision(
    kind="refused",
    before=5,
    after=5,
    reason="would scale down, cooldown 41 s left",
    signals=SIGNALS,
)
STATE = LiveState(
    samples=tuple(a_story()),
    policy=POLICY,
    events=EVENTS,
    last=REFUSED,
    title="trio-gateway demo",
    note="cooldowns shortened for the demo",
)


def draw(view: RenderableType, width: int = 80, encoding: str = "utf-8") -> list[str]:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict", newline="")
    console = Console(width=width, height=24, file=out, record=True)
    console.print(view)
    return console.export_text().splitlines()


def test_the_view_in_80_columns() -> None:
    assert draw(live_view(STATE)) == VIEW_80.splitlines()[1:]


def test_in_120_columns_the_workers_stand_beside_the_signals() -> None:
    lines = draw(live_view(STATE), 120)
    narrow = VIEW_80.splitlines()[1:]
    assert [line[:80] for line in lines[1:11]] == narrow[1:11], "the signals as in 80 columns"
    assert [line[80:] for line in lines[1:5]] == [
        "╭─ workers: busy, frames held ─────────╮",
        "│ ● 1           ━━━─────  35 %  1 held │",
        "│ ● 2           ━━━─────  35 %  1 held │",
        "│ ● 3 draining  ━━━─────  35 %  1 held │",
    ]
    assert all(len(line) == 120 for line in lines[:-1])


def test_eight_workers_fit_an_ordinary_terminal() -> None:
    state = evolve(STATE, samples=tuple(a_story(workers=8)), events=(*EVENTS, *EVENTS))
    for width in (80, 110, 120, 200):
        lines = draw(live_view(state), width)
        assert len(lines) <= 24
        assert all(len(line) <= width for line in lines)


def test_many_workers_are_not_all_listed() -> None:
    lines = draw(live_view(evolve(STATE, samples=tuple(a_story(workers=40)))))
    assert any("24 more" in line for line in lines)


@pytest.mark.parametrize("width", [20, 40, 60])
def test_a_narrow_terminal_breaks_nothing(width: int) -> None:
    assert all(len(line) <= width for line in draw(live_view(STATE), width))


def test_a_terminal_without_unicode_gets_ascii() -> None:
    lines = draw(live_view(STATE), encoding="ascii")
    assert any("2 -> 6" in line for line in lines)
    assert "\n".join(lines).isascii()


def test_before_the_second_sample_there_is_nothing_to_say() -> None:
    state = LiveState(samples=tuple(a_story(1)), policy=POLICY)
    assert draw(live_view(state)) == [" trio-gateway: measuring ..."]


def test_without_sessions_or_events() -> None:
    state = LiveState(samples=(a_sample(0.0), a_sample(1.0)), policy=POLICY)
    lines = "\n".join(draw(live_view(state)))
    assert "sessions" not in lines
    assert "no change yet" in lines


def test_text_from_elsewhere_is_not_taken_for_markup() -> None:
    state = evolve(STATE, events=(an_event(1.0, 2, 3, "[bold]not markup[/nothing]"),))
    assert any("[bold]not markup[/nothing]" in line for line in draw(live_view(state)))


def coloured(view: RenderableType) -> list[tuple[str, str]]:
    console = Console(width=10, color_system="standard", force_terminal=True, file=io.StringIO())
    return [
        (segment.text, segment.style.color.name)
        for segment in console.render(view)
        if segment.style is not None and segment.style.color is not None
    ]


def test_a_graph_says_by_colour_what_is_good() -> None:
    graph = Graph([0.0, 30.0, 71.0, 200.0], UNICODE, top=100.0, levels=(30.0, 70.0))
    assert coloured(graph) == [
        ("▁", "green"),
        ("▂", "yellow"),
        ("▃", "red"),
        ("█", "red"),
    ]
    assert coloured(Graph([1.0], UNICODE)) == [("█", "cyan")]


def test_a_graph_shows_the_latest_that_fit() -> None:
    values = [float(value) for value in range(100)]
    assert draw(Graph(values, ASCII, bottom=90.0), width=8) == [".:-=+*##"]


def test_a_bar_is_filled_by_its_share() -> None:
    assert draw(Bar(0.5, ASCII), width=8) == ["####...."]
    assert draw(Bar(1.7, ASCII), width=8) == ["########"]
    assert draw(Bar(0.0, ASCII), width=8) == ["........"]


async def test_the_runner_draws_until_it_is_cancelled() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, height=24, force_terminal=True)
    calls = 0
    with trio.fail_after(10), trio.CancelScope() as scope:

        def state() -> LiveState:
            nonlocal calls
            calls += 1
            if calls == 3:
                scope.cancel()
            return evolve(STATE, title=f"picture {calls}")

        await run_live(state, console=console, interval=0.001)
    assert scope.cancelled_caught
    assert calls == 3
    text = out.getvalue()
    assert "picture 1" in text
    assert "picture 2" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is back"


VIEW_80 = """
 trio-gateway demo                                                      22:13:59
╭─ now ────────────────────────────────────────────────────────────────────────╮
│ sessions           24 ███▇▇▆▆▅▄▄▃▃▂▂▁▁▁▁▁▁▁▁▂▂▃▃▄▅▅ lost 1,041, dropped 0    │
│ frames          365/s ████▇▆▆▅▄▄▃▃▂▁▁▁▁▁▁▁▁▁▂▂▃▃▄▅▅ dropped 0, late 12       │
│ workers             2 ▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃▃ 2 to 8 threads           │
│ load             73 % ████▇▆▆▅▄▄▃▃▂▁▁▁▁▁▁▁▁▁▂▂▃▃▄▅▅ up > 70 %, down < 30 %   │
│ queue               1 ▇▇▆▆▅▃▃▂▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▂ up > 6, down at 0        │
│ latency max   36.5 ms ████▇▆▆▅▄▄▃▃▂▁▁▁▁▁▁▁▁▁▂▂▃▃▄▅▅ p50 0.88 ms, p99 1.26 ms │
│ CPU              49 % ▇▇▆▆▆▅▅▄▄▃▃▂▂▁▁▁▁▁▁▁▁▁▁▂▂▃▃▄▄ of 2 cores               │
│ memory       50.0 MiB █████████████████████████████ event loop 0.30 ms late  │
╰──────────────────────────────────────────────────────────────────────────────╯
╭─ workers: busy, frames held ─────────────────────────────────────────────────╮
│ ● 1           ━━━───────  35 %  1 held ● 2           ━━━──────  35 %  1 held │
│ ● 3 draining  ━━━───────  35 %  1 held                                       │
╰──────────────────────────────────────────────────────────────────────────────╯
╭─ scaling ────────────────────────────────────────────────────────────────────╮
│       now  5         would scale down, cooldown 41 s left                    │
│   9 s ago  6 → 5     load 12 % < 30 %                                        │
│  27 s ago  2 → 6     spike: queue 12 > 6, latency 61.2 ms > 50 ms; 3.8 work… │
╰──────────────────────────────────────────────────────────────────────────────╯
 cooldowns shortened for the demo
"""
