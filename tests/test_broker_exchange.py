"""Messages between clients: subscriptions, retained messages, wills, and who may do what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from mqtt_peer import open_running

from trio_gateway.core.mqtt_packet import (
    Connect,
    Disconnect,
    PingReq,
    PingResp,
    PubAck,
    Publish,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
    Will,
    encode,
)

if TYPE_CHECKING:
    from trio.testing import MockClock

DEVICE = "GID_test@@@aa_bb_cc_dd_ee_ff@@@uuid"
OTHER = "GID_test@@@11_22_33_44_55_66@@@uuid"
REFUSED = 0x80


# Subscriptions


async def test_wildcards_and_one_copy_for_overlapping_filters(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        reader, writer = await run.client("reader"), await run.client("writer")
        filters = ("room/+/light", "room/#", "room/1/light")
        granted = SubAck(1, (0, 0, 0))
        assert await reader.ask(Subscribe(1, tuple((each, 0) for each in filters))) == granted
        await writer.send(Publish("room/1/light", b"on"), Publish("room"), Publish("hall/1/light"))
        assert await reader.receive() == Publish("room/1/light", b"on")
        assert await reader.receive() == Publish("room")
        assert await reader.is_silent()


async def test_a_publisher_that_has_subscribed_hears_itself(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        client = await run.client("client")
        await client.ask(Subscribe(1, (("news", 0),)))
        assert await client.ask(Publish("news", b"1")) == Publish("news", b"1")


async def test_everything_is_granted_and_sent_at_qos_0(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        reader, writer = await run.client("reader"), await run.client("writer")
        assert await reader.ask(Subscribe(1, (("a", 2), ("b", 1)))) == SubAck(1, (0, 0))
        assert await writer.ask(Publish("a", b"1", 1, packet_id=9)) == PubAck(9)
        assert await reader.receive() == Publish("a", b"1")


async def test_unsubscribing_takes_one_filter_back(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        client = await run.client("client")
        await client.ask(Subscribe(1, (("a", 0), ("b", 0))))
        assert await client.ask(Unsubscribe(2, ("a", "c"))) == UnsubAck(2)
        assert await client.ask(Publish("a"), Publish("b")) == Publish("b")
        assert run.broker.statistics().subscriptions == 1


async def test_subscriptions_are_limited_and_repeating_one_costs_none(
    autojump_clock: MockClock,
) -> None:
    async with open_running(max_subscriptions=2) as run:
        client = await run.client("client")
        filters = ["a", "a", "b", "a", "c", "b"]
        answer = await client.ask(Subscribe(1, tuple((each, 0) for each in filters)))
        assert answer == SubAck(1, (0, 0, 0, 0, REFUSED, 0))
        assert run.broker.statistics().denied == {"subscribe": 1}
        assert await client.ask(Subscribe(4, (("b", 0),))) == SubAck(4, (0,))
        assert await client.ask(Unsubscribe(2, ("a",))) == UnsubAck(2)
        assert await client.ask(Subscribe(3, (("c", 0),))) == SubAck(3, (0,))


# Retained messages


async def test_the_retained_message_is_the_last_one(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        writer = await run.client("writer")
        await writer.send(Publish("a/1", b"old", retain=True), Publish("a/1", b"new", retain=True))
        await writer.send(Publish("a/1", b"not retained"), Publish("a/2", b"2", retain=True))
        assert await writer.ask(PingReq()) == PingResp()
        reader = await run.client("reader")
        assert await reader.ask(Subscribe(1, (("a/+", 0),))) == SubAck(1, (0,))
        assert await reader.receive() == Publish("a/1", b"new", retain=True)
        assert await reader.receive() == Publish("a/2", b"2", retain=True)
        # To those who have subscribed already it comes like any other (MQTT-3.3.1-9).
        await writer.send(Publish("a/1", b"newest", retain=True))
        assert await reader.receive() == Publish("a/1", b"newest")


async def test_an_empty_message_clears_the_retained_one(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        client = await run.client("client")
        await client.send(Publish("a", b"1", retain=True), Publish("a", retain=True))
        assert await client.ask(Subscribe(1, (("a", 0),))) == SubAck(1, (0,))
        assert await client.is_silent()
        assert run.broker.statistics().retained == 0
        assert run.broker.statistics().retained_bytes == 0


async def test_retained_messages_are_limited_in_number(autojump_clock: MockClock) -> None:
    async with open_running(max_retained=2) as run:
        client = await run.client("client")
        await client.send(*[Publish(f"t/{n}", b"x", retain=True) for n in range(4)])
        await client.send(Publish("t/0", b"replaced", retain=True))
        assert await client.ask(PingReq()) == PingResp()
        statistics = run.broker.statistics()
        assert statistics.retained == 2
        assert statistics.dropped == {"retained_full": 2}
        await client.ask(Subscribe(1, (("t/0", 0),)))
        assert await client.receive() == Publish("t/0", b"replaced", retain=True)


async def test_retained_messages_are_limited_in_bytes(autojump_clock: MockClock) -> None:
    async with open_running(max_retained_bytes=1000) as run:
        client = await run.client("client")
        await client.send(Publish("a", bytes(600), retain=True))
        await client.send(Publish("b", bytes(600), retain=True))  # does not fit beside it
        await client.send(Publish("a", bytes(1200), retain=True))  # does not fit at all
        assert await client.ask(PingReq()) == PingResp()
        statistics = run.broker.statistics()
        assert (statistics.retained, statistics.retained_bytes) == (0, 0)  # not the outdated one
        assert statistics.dropped == {"retained_full": 2}


async def test_what_is_retained_does_not_overfill_an_outbox(autojump_clock: MockClock) -> None:
    async with open_running(max_outbox_bytes=64 * 1024, max_retained_bytes=1 << 20) as run:
        writer, reader = await run.client("writer"), run.lockstep_peer()
        await writer.send(*[Publish(f"t/{n}", bytes(1000), retain=True) for n in range(100)])
        assert await writer.ask(PingReq()) == PingResp()
        await reader.connect("reader")
        assert await reader.ask(Subscribe(1, (("t/+", 0),))) == SubAck(1, (0,))
        assert 60 <= run.broker.statistics().dropped["slow_reader"] <= 70
        assert run.broker.send("reader", b"{}")


# Wills

WILL = Will("last/words", b"farewell", retain=True)


@pytest.mark.parametrize("how", ["close", "broken packet", "keepalive", "takeover", "crash"])
async def test_a_will_is_published_without_disconnect(how: str, autojump_clock: MockClock) -> None:
    async with open_running() as run:
        watcher = await run.client("watcher")
        await watcher.ask(Subscribe(1, (("last/words", 0),)))
        device = await run.client(DEVICE, will=WILL, keepalive=10)
        match how:
            case "close":
                await device.close()
            case "broken packet":
                await device.send(b"\xff")
            case "keepalive":
                await trio.sleep(15)
            case "takeover":
                await run.client(DEVICE)
            case "crash":
                await device.send(Publish("device-server", b'{"raise":"oh"}'))
        assert await watcher.receive() == Publish("last/words", b"farewell")
        assert await watcher.is_silent()


async def test_a_will_is_taken_back_by_disconnect(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        watcher = await run.client("watcher")
        await watcher.ask(Subscribe(1, (("last/words", 0),)))
        device = await run.client(DEVICE, will=WILL)
        assert await device.ask(Disconnect(), Publish("last/words", b"after it")) is None
        assert await watcher.is_silent()
        assert run.broker.statistics().closed == {"disconnect": 1}


async def test_shutdown_publishes_no_wills(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        await run.client(DEVICE, will=Will("device-server", b'{"type":"goodbye"}'))
    assert run.sink.events == [("connected", DEVICE), ("disconnected", DEVICE)]


async def test_a_will_for_the_gateway_comes_before_the_end(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        device = await run.client(DEVICE, will=Will("device-server", b'{"type":"goodbye"}'))
        await device.close()
        await trio.testing.wait_all_tasks_blocked()
        assert run.sink.events[1:] == [
            ("message", DEVICE, {"type": "goodbye"}),
            ("disconnected", DEVICE),
        ]


async def test_a_will_needs_the_right_to_its_topic(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        victim = await run.client(OTHER)
        device = await run.client(DEVICE, will=Will(f"devices/p2p/{OTHER}", b"forged"))
        await device.close()
        assert await victim.is_silent()
        assert run.broker.statistics().denied == {"publish": 1}


async def test_a_refused_client_leaves_no_will(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        watcher = await run.client("watcher")
        await watcher.ask(Subscribe(1, (("last/words", 0),)))
        attacker = run.peer()
        await attacker.send(encode(Connect(DEVICE, will=WILL, username="u", password=b"wrong")))
        await attacker.close()
        assert await watcher.is_silent()


# Rights


@pytest.mark.parametrize(
    "topic",
    [
        f"devices/p2p/{OTHER}",
        "devices/p2p/11_22_33_44_55_66",
        f"devices/p2p/{DEVICE}",
        f"devices/{OTHER}/hello",
        f"devices/{OTHER}/data",
        f"devices/{OTHER}/anything/else",
        "internal/server-ingest",
        "$SYS/broker",
        "toys/11/up",
        "x" * 513,
        "/".join("x" * 9),
    ],
)
async def test_topics_that_a_client_cannot_publish_to(
    topic: str, autojump_clock: MockClock
) -> None:
    templates = ("device-server", "devices/{client_id}/hello", "toys/{client_id}/up")
    async with open_running(publish_topics=templates) as run:
        victim = await run.client(OTHER)
        device = await run.client(DEVICE)
        forged = Publish(topic, b"{}", qos=1, retain=True, packet_id=5)
        assert await device.ask(forged) == PubAck(5)  # MQTT-3.3.5-2
        assert await victim.is_silent()
        statistics = run.broker.statistics()
        assert statistics.denied == {"publish": 1}
        assert statistics.retained == 0
        assert len(run.sink.events) == 2  # both connected, nothing heard


@pytest.mark.parametrize(
    "topic_filter",
    [
        "#",
        "+/#",
        "+/+/+",
        "devices/#",
        "devices/+/hello",
        "devices/p2p/#",
        "devices/p2p/+",
        f"devices/p2p/{OTHER}",
        "devices/p2p/11_22_33_44_55_66",
        f"devices/{OTHER}/data",
        f"+/{OTHER}/data",
        f"+/p2p/{OTHER}",
        "internal/#",
        "internal/+",
        "+/server-ingest",
        "$SYS/#",
        f"$share/group/devices/p2p/{OTHER}",
        "x" * 513,
        "/".join("x" * 9),
    ],
)
async def test_filters_that_a_client_cannot_have(
    topic_filter: str, autojump_clock: MockClock
) -> None:
    async with open_running() as run:
        device = await run.client(DEVICE)
        asked = Subscribe(1, ((topic_filter, 0), ("fine", 0)))
        assert await device.ask(asked) == SubAck(1, (REFUSED, 0))
        assert run.broker.statistics().subscriptions == 1


@pytest.mark.parametrize(
    "topic_filter",
    [
        f"devices/p2p/{DEVICE}",
        "devices/p2p/aa_bb_cc_dd_ee_ff",
        f"devices/{DEVICE}/#",
        f"devices/{DEVICE}/data",
        "+",
        "app/p2p/aa:bb:cc:dd:ee:ff",
        "room/#",
    ],
)
async def test_filters_that_a_client_can_have(topic_filter: str, autojump_clock: MockClock) -> None:
    async with open_running() as run:
        device = await run.client(DEVICE)
        assert await device.ask(Subscribe(1, ((topic_filter, 0),))) == SubAck(1, (0,))


async def test_what_a_device_tells_the_gateway_nobody_else_hears(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        listener = await run.client(OTHER)
        assert await listener.ask(Subscribe(1, (("device-server", 0), ("+", 0)))) is not None
        device = await run.client(DEVICE)
        await device.send(Publish("device-server", b'{"secret":1}', retain=True))
        assert await listener.is_silent()
        assert run.broker.statistics().retained == 0
        assert run.sink.events[-1] == ("message", DEVICE, {"secret": 1})


async def test_a_device_may_use_its_own_folder(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        device = await run.client(DEVICE)
        await device.ask(Subscribe(1, ((f"devices/{DEVICE}/#", 0),)))
        status = Publish(f"devices/{DEVICE}/status", b"ok")
        assert await device.ask(status) == status


async def test_the_beginning_of_anothers_id_opens_nothing(autojump_clock: MockClock) -> None:
    async with open_running() as run:
        device = await run.client("GID_test")
        assert await device.ask(Subscribe(1, ((f"devices/{DEVICE}/data", 0),))) == SubAck(
            1, (REFUSED,)
        )
