"""The whole gateway and devices that its authors did not write, over real MQTT and real UDP."""

from __future__ import annotations

import base64
import hashlib
import hmac
import random
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soxr
import trio
from attrs import evolve
from opus_reference import ReferenceDecoder, ReferenceEncoder
from opus_reference import packets as packets_of_clip
from wire_device import WireDevice, open_device

from trio_gateway import Settings, open_gateway
from trio_gateway.backends.echo import echo
from trio_gateway.settings import (
    Address,
    AudioSettings,
    MqttSettings,
    PoolSettings,
    Secret,
    SessionSettings,
    UdpSettings,
)
from trio_gateway.workers.interpreter import interpreters_work

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from numpy.typing import NDArray

    from trio_gateway import Gateway, Session

ANY_PORT = Address("127.0.0.1", 0)
KINDS = ["thread", *(["interpreter"] if interpreters_work() else [])]


@pytest.fixture(params=KINDS)
def settings(request: pytest.FixtureRequest) -> Settings:
    return make_settings(pool=PoolSettings(kind=request.param))


def make_settings(**sections: Any) -> Settings:
    settings = Settings(
        mqtt=MqttSettings(listen=ANY_PORT),
        udp=UdpSettings(listen=ANY_PORT),
        pool=PoolSettings(kind="thread"),
        grace=1.0,
    )
    return evolve(settings, **sections)


@asynccontextmanager
async def balanced_gateway(settings: Settings) -> AsyncIterator[Gateway]:
    """A gateway whose counts must add up in the end."""
    async with open_gateway(settings) as gateway:
        yield gateway
    statistics = gateway.statistics()
    assert not statistics.unaccounted()
    up = statistics.sessions.up
    assert up.waiting == up.decoding == up.readable == statistics.sessions.down.queued == 0


def name(number: int) -> str:
    return f"GID_test@@@aa_bb_cc_00_00_{number:02x}@@@uuid-{number}"


def mqtt_of(gateway: Gateway) -> tuple[str, int]:
    address = gateway.addresses.mqtt
    assert address is not None
    return address.host, address.port


def spoken(seconds: float = 1.5) -> list[bytes]:
    """Opus packets of 60 ms at 16 kHz, as a device makes them."""
    return packets_of_clip(16000, round(seconds / 0.06))


def echoed(packets: Sequence[bytes], decoder: ReferenceDecoder) -> NDArray[np.int16]:
    """What a device must hear: one decoder, one resampler, one encoder, one thread."""
    pcm = np.concatenate([decoder.decode(packet) for packet in packets])
    resampled = soxr.resample(pcm.astype(np.float32), 16000, 24000, quality="HQ")
    pcm = np.rint(np.clip(resampled, -32768, 32767)).astype(np.int16)
    pcm = np.concatenate([pcm, np.zeros(-len(pcm) % 1440, np.int16)])
    encoder = ReferenceEncoder(24000, complexity=AudioSettings().complexity)
    ear = ReferenceDecoder(24000)
    return np.concatenate(
        [
            ear.decode(encoder.encode(pcm[start : start + 1440]))
            for start in range(0, len(pcm), 1440)
        ]
    )


def heard(device: WireDevice) -> NDArray[np.int16]:
    assert [sequence for sequence, _, _ in device.heard] == list(range(1, len(device.heard) + 1))
    ear = ReferenceDecoder(24000)
    return np.concatenate([ear.decode(packet) for _, _, packet in device.heard])


async def converse(device: WireDevice, packets: Sequence[bytes], frame_s: float = 0.0) -> None:
    """Speak with the button held, and listen to the end of the answer."""
    device.listen("start")
    await device.speak(packets, frame_s)
    device.listen("stop")
    await device.wait_for("tts", state="start")
    await device.wait_for("tts", state="stop")


async def test_a_device_hears_itself_sample_for_sample(settings: Settings) -> None:
    packets = spoken(1.2)
    with trio.fail_after(15):
        async with balanced_gateway(settings) as gateway, trio.open_nursery() as nursery:
            await nursery.start(gateway.serve)
            assert gateway.pool.kind == settings.pool.kind
            async with open_device(mqtt_of(gateway), name(1)) as device:
                answer = await device.hello()
                assert answer["transport"] == "udp"
                assert answer["audio_params"]["sample_rate"] == 24000
                await converse(device, packets, frame_s=0.005)
                expected = echoed(packets, ReferenceDecoder(16000))
                np.testing.assert_array_equal(heard(device), expected)
                timestamps = [timestamp for _, timestamp, _ in device.heard]
                assert timestamps == sorted(set(timestamps))
                assert timestamps[0] > 0
                statistics = gateway.statistics()
                assert statistics.sessions.frames_up == len(packets)
                assert statistics.sessions.frames_down == len(device.heard)
                assert statistics.pool.slots_used == 0
                device.publish({"type": "goodbye", "session_id": device.session_id})
                await device.wait_for("goodbye", session_id=device.session_id)
            nursery.cancel_scope.cancel()


async def test_many_devices_and_a_storm_of_scaling_leave_every_sample_right(
    settings: Settings,
) -> None:
    packets = spoken(0.9)
    expected = echoed(packets, ReferenceDecoder(16000))
    right: list[int] = []

    async def call(gateway: Gateway, number: int) -> None:
        async with open_device(mqtt_of(gateway), name(number)) as device:
            await device.hello()
            await converse(device, packets, frame_s=0.003)
            np.testing.assert_array_equal(heard(device), expected)
            right.append(number)

    async def storm(gateway: Gateway) -> None:
        while True:
            for workers in (3, 1, 4, 2):
                await gateway.pool.resize(workers)

    with trio.fail_after(20):
        async with balanced_gateway(settings) as gateway, trio.open_nursery() as nursery:
            await nursery.start(gateway.serve)
            nursery.start_soon(storm, gateway)
            async with trio.open_nursery() as calls:
                for number in range(10):
                    calls.start_soon(call, gateway, number)
            nursery.cancel_scope.cancel()
    assert sorted(right) == list(range(10))


async def fragile(session: Session) -> None:
    """Echo, except for device 66: its handler is broken."""
    if session.device.text == name(66):
        await session.audio.__anext__()
        raise ZeroDivisionError("the handler of this device is broken")
    await echo(session)


async def call_a_broken_handler(mqtt: tuple[str, int]) -> None:
    async with open_device(mqtt, name(66)) as device:
        await device.hello()
        await device.speak(spoken(0.06))
        await device.wait_for("goodbye", session_id=device.session_id)


async def talk_nonsense(mqtt: tuple[str, int]) -> None:
    async with open_device(mqtt, name(67)) as device:
        for payload in (b"\xff\xfe", b"{", b"[]", b"null", b'{"type": 7}', b"{}"):
            device.publish(payload)
        device.publish({"type": "hello", "audio_params": {"sample_rate": 11025}})
        refusal = await device.wait_for("alert")
        assert "sample_rate" in refusal["message"]
        await device.wait_for("goodbye")


async def connect_and_say_nothing(mqtt: tuple[str, int]) -> None:
    async with await trio.open_tcp_stream(*mqtt):
        await trio.sleep_forever()


def send_garbage(gateway: Gateway) -> None:
    """1,000 random datagrams; half of them aim at live calls."""
    rng = random.Random(1)
    ssrcs = [session.link.ssrc for session in gateway.sessions]
    to = gateway.addresses.udp
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for number in range(1000):
            data = bytearray(rng.randbytes(rng.randrange(200)))
            if number % 2 and len(data) >= 16:
                data[0] = 1
                data[4:8] = rng.choice(ssrcs).to_bytes(4, "big")
            sock.sendto(data, (to.host, to.port))


async def test_nobody_hurts_anybody_else() -> None:
    """A handler that raises, a malformed hello, garbage datagrams, a client that says nothing."""
    packets = spoken(1.2)
    expected = echoed(packets, ReferenceDecoder(16000))
    right: list[int] = []
    opens, opened = trio.open_memory_channel[int](4)

    async def victim(mqtt: tuple[str, int], number: int) -> None:
        async with open_device(mqtt, name(number)) as device:
            await device.hello()
            opens.send_nowait(number)
            await converse(device, packets, frame_s=0.03)
            np.testing.assert_array_equal(heard(device), expected)
            right.append(number)

    with trio.fail_after(20):
        async with balanced_gateway(make_settings()) as gateway, trio.open_nursery() as nursery:
            mqtt = mqtt_of(gateway)
            await nursery.start(gateway.serve, fragile)
            nursery.start_soon(connect_and_say_nothing, mqtt)
            async with trio.open_nursery() as calls:
                for number in range(4):
                    calls.start_soon(victim, mqtt, number)
                for _ in range(4):
                    await opened.receive()
                calls.start_soon(call_a_broken_handler, mqtt)
                calls.start_soon(talk_nonsense, mqtt)
                send_garbage(gateway)
            statistics = gateway.statistics()
            nursery.cancel_scope.cancel()
    assert sorted(right) == [0, 1, 2, 3]
    assert statistics.sessions.closed["backend_failed"] == 1
    assert statistics.sessions.refused == {"bad_sample_rate": 1}
    assert sum(statistics.udp.refused.values()) > 900


async def test_a_second_hello_replaces_the_session() -> None:
    packets = spoken(0.3)
    with trio.fail_after(10):
        async with balanced_gateway(make_settings()) as gateway, trio.open_nursery() as nursery:
            await nursery.start(gateway.serve)
            async with open_device(mqtt_of(gateway), name(1)) as device:
                first = await device.hello()
                second = await device.hello()
                assert [(m["type"], m["session_id"]) for m in device.passed] == [
                    ("goodbye", first["session_id"])
                ]
                assert first["udp"]["key"] != second["udp"]["key"]
                # What names the first session cannot hurt the second.
                device.publish({"type": "goodbye", "session_id": first["session_id"]})
                await converse(device, packets)
                np.testing.assert_array_equal(
                    heard(device), echoed(packets, ReferenceDecoder(16000))
                )
                assert gateway.statistics().sessions.closed == {"replaced": 1}
            nursery.cancel_scope.cancel()


async def test_abort_stops_the_answer_at_once() -> None:
    packets = spoken(3.0)
    with trio.fail_after(10):
        async with balanced_gateway(make_settings()) as gateway, trio.open_nursery() as nursery:
            await nursery.start(gateway.serve)
            async with open_device(mqtt_of(gateway), name(1)) as device:
                await device.hello()
                device.listen("start")
                await device.speak(packets)
                device.listen("stop")
                await device.wait_for("tts", state="start")
                await device.first_heard.wait()
                device.publish({"type": "abort", "session_id": device.session_id})
                await device.wait_for("tts", state="stop")
                assert len(device.heard) < 10, "fifty frames were waiting to be played"
                # The next answer is whole again.
                del device.heard[:]
                await converse(device, packets[:5])
                assert len(device.heard) == 5
            nursery.cancel_scope.cancel()


async def test_auto_mode_answers_when_the_voice_pauses_and_realtime_at_once() -> None:
    voice = spoken(1.2)
    settings = make_settings(audio=AudioSettings(voice_pause=0.3))
    encoder = ReferenceEncoder(16000)
    silence = [encoder.encode(np.zeros(960, np.int16)) for _ in range(12)]
    with trio.fail_after(15):
        async with balanced_gateway(settings) as gateway, trio.open_nursery() as nursery:
            await nursery.start(gateway.serve)
            async with open_device(mqtt_of(gateway), name(1)) as device:
                await device.hello()
                device.listen("start", "auto")
                await device.speak(voice)
                await device.speak(silence, frame_s=0.06)
                await device.wait_for("tts", state="stop")
                assert len(device.heard) >= len(voice)
                del device.heard[:]
                device.listen("start", "realtime")
                await device.speak(voice, frame_s=0.06)
                assert len(device.heard) > len(voice) // 2, "it answers while one still speaks"
                device.listen("stop", "realtime")
                await device.wait_for("tts", state="stop")
            nursery.cancel_scope.cancel()


async def test_signed_devices_get_in_and_others_do_not() -> None:
    key = "a signature key"
    username = base64.b64encode(b'{"ip": "127.0.0.1"}').decode()
    text = f"{name(1)}|{username}".encode()
    password = base64.b64encode(hmac.digest(key.encode(), text, hashlib.sha256)).decode()
    settings = make_settings(signature_key=Secret(key))
    with trio.fail_after(10):
        async with balanced_gateway(settings) as gateway, trio.open_nursery() as nursery:
            await nursery.start(gateway.serve)
            mqtt = mqtt_of(gateway)
            async with open_device(mqtt, name(1), username=username, password=password) as device:
                await device.hello()
                async with open_device(mqtt, name(1), username=username, password="wrong") as thief:
                    thief.publish({"type": "hello"})
                    await converse(device, spoken(0.3))
                    assert gateway.statistics().sessions.opened == 1
            nursery.cancel_scope.cancel()


async def test_sessions_are_closed_when_silent_full_gone_or_not_served() -> None:
    settings = make_settings(sessions=SessionSettings(max_sessions=1, idle_timeout=0.2))
    ends, ended = trio.open_memory_channel[None](9)

    async def handler(session: Session) -> None:
        try:
            await echo(session)
        finally:
            ends.send_nowait(None)

    with trio.fail_after(10):
        async with balanced_gateway(settings) as gateway, trio.open_nursery() as nursery:
            async with open_device(mqtt_of(gateway), name(1)) as device:
                device.publish({"type": "hello"})
                await device.wait_for("alert")
                await device.wait_for("goodbye")
                await nursery.start(gateway.serve, handler)
                await device.hello()
                async with open_device(mqtt_of(gateway), name(2)) as other:
                    other.publish({"type": "hello"})
                    assert "busy" in (await other.wait_for("alert"))["message"]
                await device.wait_for("goodbye", session_id=device.session_id)
                await device.hello()
            await ended.receive()
            await ended.receive()
            statistics = gateway.statistics().sessions
            assert statistics.refused == {"not_serving": 1, "full": 1}
            assert statistics.closed == {"idle": 1, "disconnected": 1}
            nursery.cancel_scope.cancel()


async def test_drain_lets_a_live_call_end_and_takes_no_new_one() -> None:
    packets = spoken(0.6)
    with trio.fail_after(10):
        async with (
            balanced_gateway(make_settings(grace=5.0)) as gateway,
            trio.open_nursery() as nursery,
        ):
            await nursery.start(gateway.serve)
            async with (
                open_device(mqtt_of(gateway), name(1)) as device,
                open_device(mqtt_of(gateway), name(2)) as late,
            ):
                await device.hello()
                device.listen("start")
                await device.speak(packets)
                device.listen("stop")
                await device.wait_for("tts", state="start")
                nursery.start_soon(gateway.drain)
                while gateway.not_ready() == []:
                    await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()  # it has begun before anything can arrive
                late.publish({"type": "hello"})
                await late.wait_for("alert")
                await device.wait_for("tts", state="stop")
                await device.wait_for("goodbye", session_id=device.session_id)
                np.testing.assert_array_equal(
                    heard(device), echoed(packets, ReferenceDecoder(16000))
                )
    assert gateway.statistics().sessions.closed == {"shutdown": 1}


async def test_a_handler_sends_receives_and_calls_tools() -> None:
    said: list[object] = []

    async def handler(session: Session) -> None:
        said.append(await session.receive())
        session.send({"type": "custom", "n": 1})
        said.append(await session.call_tool("self.get", {"x": 1}, timeout=5))

    with trio.fail_after(10):
        async with balanced_gateway(make_settings()) as gateway, trio.open_nursery() as nursery:
            await nursery.start(gateway.serve, handler)
            async with open_device(mqtt_of(gateway), name(1)) as device:
                await device.hello()
                device.publish({"type": "new", "session_id": device.session_id, "a": [1, None]})
                await device.wait_for("custom", n=1)
                call = (await device.wait_for("mcp"))["payload"]
                assert call["method"] == "tools/call"
                assert call["params"] == {"name": "self.get", "arguments": {"x": 1}}
                answer = {"jsonrpc": "2.0", "id": call["id"], "result": {"ok": True}}
                device.publish({"type": "mcp", "session_id": device.session_id, "payload": answer})
                await device.wait_for("goodbye", session_id=device.session_id)
                assert said == [
                    {"type": "new", "session_id": device.session_id, "a": [1, None]},
                    {"ok": True},
                ]
            nursery.cancel_scope.cancel()
