from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from trio_gateway.core.cipher import AudioCipher
from trio_gateway.core.control import (
    AudioParams,
    alert,
    encode,
    goodbye,
    hello_answer,
    parse_hello_untrusted,
    tts,
)
from trio_gateway.core.packet import header, parse_datagram_untrusted
from trio_gateway.core.sealing import Sealer
from trio_gateway.errors import BadMessage, BadPacket
from trio_gateway.simulator.device import Device, State

if TYPE_CHECKING:
    from trio_gateway.core.control import Message

KEY = bytes(range(16))
SSRC = 0x01020304


def answer(session_id: str = "s1") -> Message:
    return hello_answer(
        session_id, AudioParams(rate=24000), "127.0.0.1", 8884, key=KEY, nonce=header(SSRC)
    )


def tell(device: Device, message: Message, now: float = 0.0) -> Message | None:
    return device.receive_message_untrusted(encode(message), now)


@pytest.fixture
def device() -> Device:
    device = Device("G@@@02_00_00_00_00_01@@@u")
    device.hello()
    tell(device, answer())
    return device


@pytest.fixture
def sealer() -> Sealer:
    return Sealer(KEY, SSRC)


def test_its_hello_is_one_that_gateways_understand() -> None:
    hello = Device("d").hello()
    assert (hello["type"], hello["version"], hello["transport"]) == ("hello", 3, "udp")
    assert parse_hello_untrusted(hello).audio == AudioParams("opus", 16000, 1, 60)


def test_the_answer_opens_a_channel(device: Device) -> None:
    assert device.channel is not None
    assert device.channel.server == ("127.0.0.1", 8884)
    assert device.channel.audio.rate == 24000
    assert device.session_id == "s1"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("transport",), "websocket"),
        (("session_id",), None),
        (("udp",), None),
        (("udp", "server"), 5),
        (("udp", "port"), 0),
        (("udp", "port"), "8884"),
        (("udp", "key"), "00"),
        (("udp", "nonce"), "zz" * 16),
        (("audio_params", "sample_rate"), 44100),
    ],
)
def test_one_bad_field_and_there_is_no_channel(path: tuple[str, ...], value: object) -> None:
    device = Device("d")
    message: Any = answer()
    *folders, name = path
    place = message
    for folder in folders:
        place = place[folder]
    place[name] = value
    with pytest.raises(BadMessage):
        tell(device, message)
    assert device.channel is None
    assert "hello answer" in device.refusal


def test_its_datagrams_are_as_the_byte_table_says(device: Device) -> None:
    for number, opus in enumerate([b"one", b"second"], 1):
        packet = parse_datagram_untrusted(device.seal(opus))
        assert (packet.ssrc, packet.flags, packet.timestamp_ms) == (SSRC, 0, 0)
        assert packet.sequence == number
        assert AudioCipher(KEY).apply(packet.iv, packet.payload) == opus
    assert device.counters.up == 2


def test_a_new_hello_starts_the_sequence_again(device: Device) -> None:
    device.seal(b"x")
    device.hello()
    assert device.session_id == ""
    tell(device, answer("s2"))
    assert parse_datagram_untrusted(device.seal(b"x")).sequence == 1


def test_audio_is_heard_between_tts_start_and_stop_only(device: Device, sealer: Sealer) -> None:
    assert not device.receive_datagram_untrusted(sealer.seal(b"early", 0), 0)
    device.listen_start("manual")
    assert not device.receive_datagram_untrusted(sealer.seal(b"too", 0), 0)
    tell(device, tts("s1", "start"))
    assert device.state is State.SPEAKING
    for word in (b"hello", b"world"):
        assert device.receive_datagram_untrusted(sealer.seal(word, 0), 0)
    tell(device, tts("s1", "stop"), now=0.12)
    assert not device.receive_datagram_untrusted(sealer.seal(b"late", 0), 0.2)
    assert device.playback is not None
    assert device.playback.ended
    assert device.playback.sequence() == [b"hello", b"world"]
    assert (device.counters.down, device.counters.unexpected) == (2, 3)
    assert device.counters.lost == 0, "what came at the wrong time was not lost"


def test_a_stop_before_play_out_cuts_the_tail(device: Device, sealer: Sealer) -> None:
    tell(device, tts("s1", "start"))
    for word in (b"a", b"b", b"c"):
        device.receive_datagram_untrusted(sealer.seal(word, 0), 0)
    tell(device, tts("s1", "stop"), now=0.05)
    assert device.playback is not None
    assert device.playback.sequence() == [b"a"]
    assert device.speaker.cuts == 2


@pytest.mark.parametrize(("mode", "state"), [("manual", State.IDLE), ("auto", State.LISTENING)])
def test_after_a_reply_the_mode_decides(device: Device, mode: Any, state: State) -> None:
    message = device.listen_start(mode)
    assert message == {"session_id": "s1", "type": "listen", "state": "start", "mode": mode}
    tell(device, tts("s1", "start"))
    tell(device, tts("s1", "stop"))
    assert device.state is state


def test_sequences_never_go_back(device: Device, sealer: Sealer) -> None:
    tell(device, tts("s1", "start"))
    one, two, three, four, five = (sealer.seal(bytes([n]), 0) for n in range(5))
    taken = [device.receive_datagram_untrusted(each, 0) for each in (one, four, two, four, five)]
    assert taken == [True, True, False, False, True]
    counters = device.counters
    assert (counters.late, counters.repeated, counters.lost) == (1, 1, 1)
    device.receive_datagram_untrusted(three, 0)
    assert (counters.late, counters.lost) == (2, 0)
    assert device.playback is not None
    assert device.playback.sequence() == [b"\0", None, None, b"\3", b"\4"]


def test_a_huge_jump_costs_neither_memory_nor_time(device: Device, sealer: Sealer) -> None:
    tell(device, tts("s1", "start"))
    device.receive_datagram_untrusted(sealer.seal(b"a", 0), 0)
    sealer.sequence = 2**31
    device.receive_datagram_untrusted(sealer.seal(b"b", 0), 0)
    assert device.counters.lost == 2**31 - 1
    assert device.playback is not None
    assert len(device.playback.sequence()) < 100
    assert len(device._missing) <= 1024


@pytest.mark.parametrize("spoil", [lambda d: d + b"!", lambda d: d[:-1], lambda d: b"\2" + d[1:]])
def test_a_datagram_of_another_length_or_type_is_refused(
    device: Device, sealer: Sealer, spoil: Any
) -> None:
    tell(device, tts("s1", "start"))
    with pytest.raises(BadPacket):
        device.receive_datagram_untrusted(spoil(sealer.seal(b"words", 0)), 0)


def test_goodbye_counts_with_the_live_id_only(device: Device) -> None:
    tell(device, goodbye("another"))
    assert (device.session_id, device.dismissed) == ("s1", False)
    tell(device, goodbye("s1"))
    assert (device.session_id, device.dismissed) == ("", True)
    assert not device.receive_datagram_untrusted(Sealer(KEY, SSRC).seal(b"x", 0), 0)


def test_an_alert_says_why(device: Device) -> None:
    tell(device, alert("full", "come back later", "sad"))
    assert device.refusal == "full: come back later"


def test_its_own_goodbye_names_the_session_and_closes_it(device: Device) -> None:
    assert device.goodbye() == {"session_id": "s1", "type": "goodbye"}
    assert device.channel is None


@pytest.mark.parametrize(
    ("method", "result"),
    [("initialize", "protocolVersion"), ("tools/list", "tools"), ("tools/call", "content")],
)
def test_mcp_requests_are_answered(device: Device, method: str, result: str) -> None:
    said = tell(
        device, {"type": "mcp", "payload": {"jsonrpc": "2.0", "id": 10000, "method": method}}
    )
    assert said is not None
    assert said["payload"]["id"] == 10000
    assert result in said["payload"]["result"]
    json.dumps(said)


def test_mcp_errors_have_a_message_and_no_code(device: Device) -> None:
    said = tell(device, {"type": "mcp", "payload": {"id": 1, "method": "nonsense"}})
    assert said is not None
    assert said["payload"]["error"] == {"message": "Method not implemented: nonsense"}


@pytest.mark.parametrize(
    "payload", [None, {}, {"method": "notifications/initialized"}, {"id": 1, "result": {}}]
)
def test_what_is_no_mcp_request_gets_no_answer(device: Device, payload: object) -> None:
    assert tell(device, {"type": "mcp", "payload": payload}) is None


def test_unknown_messages_do_no_harm(device: Device) -> None:
    for message in ({"type": "llm", "emotion": "happy"}, {"no": "type"}, {"type": ["list"]}):
        assert tell(device, message) is None
    with pytest.raises(BadMessage):
        device.receive_message_untrusted(b"not json", 0)
    assert device.channel is not None
