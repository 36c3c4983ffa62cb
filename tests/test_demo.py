"""The demo's parts, and it is honest when nothing scales. All of it takes half a minute."""

from __future__ import annotations

import io
import json
import sys

import attrs
import pytest
from attrs import evolve
from rich.console import Console

from trio_gateway import Settings, demo
from trio_gateway.core.fates import DownlinkStatistics, UplinkStatistics
from trio_gateway.core.scaling import ScalingEvent, Signals
from trio_gateway.core.window import Summary
from trio_gateway.demo_summary import Outcome
from trio_gateway.settings import (
    Address,
    AudioSettings,
    BrokerUrl,
    MqttSettings,
    PoolSettings,
    ScalingSettings,
    Secret,
    UdpSettings,
)
from trio_gateway.simulator.report import Failure, Report
from trio_gateway.tally import SessionsStatistics

SIGNALS = Signals(workers=2, load=99.0, cpu=10.0, latency=0.001, queue=0, offered=1.0)


def event(before: int, after: int) -> ScalingEvent:
    reason = f"because of {before} [and] {after}"
    return ScalingEvent(
        time=1.0, wall=1.0, before=before, after=after, reason=reason, signals=SIGNALS
    )


def report(devices: int = 4, failures: tuple[Failure, ...] = ()) -> Report:
    fields = attrs.fields(Report)
    zeros = {field.name: 0 for field in fields if field.name != "failures"}
    times = {name: Summary() for name in ("hello", "response", "round_trip")}
    return Report(
        **{
            **zeros,
            **times,
            "devices": devices,
            "heard_back": devices - len(failures),
            "failures": failures,
            "mode": "manual",
        }  # type: ignore[arg-type]
    )


SESSIONS = SessionsStatistics(
    active=0, leaving=0, opened=4, refused={}, closed={}, stale=0,
    messages_dropped=0, reserved_cores=0.0,
    up=UplinkStatistics(received=10, decoded=10, lost=3, concealed=2, dropped=1),
    down=DownlinkStatistics(framed=10, sent=10),
)  # fmt: skip

GOOD = Outcome(
    reports=(report(),),
    errors=(),
    samples=(),
    events=(event(2, 3), event(3, 2)),
    sessions=SESSIONS,
    elapsed=25.0,
)


def shown(outcome: Outcome) -> str:
    file = io.StringIO()
    Console(file=file, width=120).print(outcome.table())
    return file.getvalue()


def test_all_as_it_should_be() -> None:
    assert GOOD.passed
    text = shown(GOOD)
    assert "4/4 devices" in text
    assert "3 lost, 2 concealed, 1 dropped" in text
    assert "2 -> 3  because of 2 [and] 3" in text
    assert "all as it should be" in text


@pytest.mark.parametrize(
    ("outcome", "problem"),
    [
        (evolve(GOOD, events=(event(3, 2),)), "no worker was added"),
        (evolve(GOOD, events=(event(2, 3),)), "no worker was retired"),
        (evolve(GOOD, reports=()), "no device reported"),
        (evolve(GOOD, errors=("it [broke]",)), "it [broke]"),
        (
            evolve(GOOD, reports=(report(), report(9, (Failure(7, "id", "heard nothing"),)))),
            "device 7: heard nothing",
        ),
    ],
)
def test_what_is_not_as_it_should_be_fails_and_is_told(outcome: Outcome, problem: str) -> None:
    assert not outcome.passed
    text = shown(outcome)
    assert problem in text
    assert "not as it should be" in text
    assert "all as it should be" not in text


def test_the_settings_stay_but_for_addresses_and_times() -> None:
    mine = Settings(
        mqtt=MqttSettings(url=BrokerUrl.parse("mqtt://somewhere")),
        udp=UdpSettings(listen=Address("::", 8884), public_host="voice"),
        pool=PoolSettings(max_workers=5),
    )
    theirs = demo._demo_settings(mine)
    here = Address("127.0.0.1", 0)
    assert (theirs.mqtt.url, theirs.mqtt.listen, theirs.udp.listen) == (None, here, here)
    assert theirs.udp.public_host is None
    assert theirs.signature_key is not None, "passwords are checked in the demo as well"
    assert theirs.pool == mine.pool
    defaults = ScalingSettings()
    changed = {
        field.name
        for field in attrs.fields(ScalingSettings)
        if getattr(theirs.scaling, field.name) != getattr(defaults, field.name)
    }
    assert changed == set(demo.SHORTENED), "thresholds are the defaults"
    for name, seconds in demo.SHORTENED.items():
        assert seconds < getattr(defaults, name)
    key = Secret("mine")
    assert demo._demo_settings(evolve(mine, signature_key=key)).signature_key == key


def test_the_note_tells_the_shortened_times_in_one_line() -> None:
    assert all(f"{seconds:g} s" in demo.NOTE for seconds in demo.SHORTENED.values() if seconds < 4)
    assert "4 and 2 s" in demo.NOTE
    assert len(demo.NOTE) < 80


def test_the_crowd_fits_the_machine() -> None:
    easy = demo._crowd_size(AudioSettings(complexity=0))
    hard = demo._crowd_size(AudioSettings(complexity=10))
    assert 40 <= hard < easy <= 300


async def test_a_simulator_that_breaks_is_told() -> None:
    audience = demo._Audience()
    await audience.attend([sys.executable, "-c", "raise SystemExit('no [way]')"])
    assert audience.reports == []
    assert audience.errors == ["the simulator ended with 1: no [way]"]


async def test_a_simulator_that_reports_failures_is_heard() -> None:
    said = report(2, (Failure(1, "id", "why"),)).to_json()
    audience = demo._Audience()
    await audience.attend([sys.executable, "-c", f"print({said!r}); raise SystemExit(1)"])
    assert audience.errors == []
    assert audience.reports[0].heard_back == 1
    assert json.loads(said)["passed"] is False
