"""One session's audio plane without the socket: datagrams in, frames in order out, and back.

    datagram -> header -> new? -> plausible? -> decrypt -> Opus? -> believed? -> in order -> frames

Each step is a file of its own; this one puts them in a row and counts what each refused.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from trio_gateway.core.cipher import AudioCipher
from trio_gateway.core.claims import Address
from trio_gateway.core.jitter import JitterBuffer, UplinkFrame
from trio_gateway.core.opus_packet import SAMPLE_RATE, duration_untrusted
from trio_gateway.core.packet import header, parse_datagram_untrusted
from trio_gateway.core.pinning import SourcePin
from trio_gateway.core.rate_limit import TokenBucket
from trio_gateway.core.replay import ReplayWindow, Seen
from trio_gateway.core.sealing import Sealer
from trio_gateway.core.serial import unrolled
from trio_gateway.errors import BadPacket

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trio_gateway.core.claims import Arrived

__all__ = ["Address", "AudioLink", "LinkStatistics", "UplinkFrame"]

PACE = 1.25
"""Seconds of audio a device may send in a second, on average. A guess: no clock is so wrong."""

BURST = 10.0
"""Seconds of audio at once. A guess: so much may a network hold back and then deliver."""

LONGEST = 0.120
"""Seconds in the longest Opus packet (RFC 6716, R5)."""


@frozen
class LinkStatistics:
    """Counts since the link began; `received` is the sum of those marked with +, and of `bad`.

    Attributes:
        received: Datagrams given to the link.
        delivered: + Frames that left with their payload.
        lost: Frames that left as lost.
        skipped: Missing frames of long gaps that were not named.
        duplicate: + Datagrams with a sequence that had been here.
        late: + Datagrams whose place in the stream had passed.
        unconfirmed: + Datagrams that were held and given up: see pinning.py.
        cut_off: + Datagrams that waited or were held when the link was closed.
        waiting: + Datagrams behind a gap now.
        held: + Datagrams held now until another confirms them.
        bad: Datagrams refused, by reason.
        moves: Changes of the device's address.
        undone: Jumps and moves that were taken back: somebody forges packets.
        sealed: Datagrams made for the device.
    """

    received: int
    delivered: int
    lost: int
    skipped: int
    duplicate: int
    late: int
    unconfirmed: int
    cut_off: int
    waiting: int
    held: int
    bad: Mapping[str, int]
    moves: int
    undone: int
    sealed: int


@define
class AudioLink:
    """Both directions of one session. Times are seconds of the caller's clock.

    Attributes:
        key: AES-128 key, 16 bytes, made for one hello.
        ssrc: The session's number on the wire.
        frame_s: Seconds in a frame, as the device announced.
        reorder_wait: Seconds to wait for a missing packet. Default: a frame's length, in which the
            next packet comes anyway.
        max_gap_frames: Frames of one gap to name as lost. Default: a guess, 0.6 s.
    """

    key: bytes = field(repr=False)
    ssrc: int
    frame_s: float = 0.060
    reorder_wait: float = 0.060
    max_gap_frames: int = 10

    _cipher: AudioCipher = field(init=False, repr=False)
    _window: ReplayWindow = field(init=False, factory=ReplayWindow)
    _pin: SourcePin = field(init=False)
    _jitter: JitterBuffer = field(init=False)
    _sealer: Sealer = field(init=False)
    _pace: TokenBucket = field(init=False, factory=lambda: TokenBucket(PACE, BURST))  # seconds
    _received: int = field(init=False, default=0)
    _duplicate: int = field(init=False, default=0)
    _late: int = field(init=False, default=0)
    _closed: bool = field(init=False, default=False)
    _bad: Counter[str] = field(init=False, factory=Counter)

    def __attrs_post_init__(self) -> None:
        self._cipher = AudioCipher(self.key)
        self._pin = SourcePin(self.frame_s, self.reorder_wait)
        self._jitter = JitterBuffer(self.reorder_wait, self.max_gap_frames)
        self._sealer = Sealer(self.key, self.ssrc)

    @property
    def nonce(self) -> bytes:
        """The header template for the hello answer, 16 bytes."""
        return header(self.ssrc)

    @property
    def remote(self) -> Address | None:
        """Where the device is, once it has spoken."""
        return self._pin.address

    @property
    def heard_at(self) -> float:
        """When the last packet came that was believed; -inf before any."""
        return self._pin.heard_at

    def knows(self, addr: Address) -> bool:
        """Whether the device is at `addr`, or was before it moved; until it has spoken, it may."""
        return self._pin.knows(addr)

    def receive_datagram_untrusted(
        self, data: bytes, addr: Address, now: float
    ) -> list[UplinkFrame]:
        """Take a datagram; return the frames that can leave now, in order.

        A datagram that is well-formed but late, a duplicate or held returns nothing and is counted.

        Raises:
            BadPacket: `short`, `bad_type`, `bad_length`, `wrong_ssrc`, `too_fast`, `implausible` or
                `not_opus`. It is counted here, too.
        """
        self._received += 1
        try:
            return self._receive_untrusted(data, addr, now)
        except BadPacket as bad:
            self._bad[bad.reason] += 1
            self._pin.doubt(addr)
            raise

    def _receive_untrusted(self, data: bytes, addr: Address, now: float) -> list[UplinkFrame]:
        packet = parse_datagram_untrusted(data)
        if packet.ssrc != self.ssrc:
            raise BadPacket("wrong_ssrc")
        highest = self._window.highest
        sequence = unrolled(packet.sequence, highest)
        ahead = sequence - highest
        over = self._over(sequence) if ahead <= 0 else None
        left = self._pin.line_of(sequence, addr, now)
        if over and left is None:
            if not self._pin.knows(addr):
                raise BadPacket("implausible", "old, and from elsewhere")
            self._duplicate += over is Seen.DUPLICATE
            self._late += over is Seen.TOO_OLD
            return []
        if self._pace.ready_at(LONGEST) > now:
            raise BadPacket("too_fast")
        if left is None:
            self._pin.check_jump_untrusted(sequence, now)
        opus = self._cipher.apply(packet.iv, packet.payload)
        samples = duration_untrusted(opus)
        frame = UplinkFrame(sequence, opus, packet.timestamp_ms)
        if self._pin.is_replay(frame):
            self._duplicate += 1
            return []
        if left is not None:
            admitted = self._pin.admit_return_untrusted(left, frame, samples=samples, now=now)
            ready = self._go_back(admitted)
        else:
            admitted = self._pin.admit_untrusted(frame, addr, ahead=ahead, samples=samples, now=now)
            ready = []
        for _ in admitted:
            self._pace.take(now, samples / SAMPLE_RATE)
        ready += self._order(admitted)
        if len(admitted) > 1 and self._jitter.waiting:
            # What was held has had part of its wait. Else the timer decides: after a stall, what is
            # missing may lie in the socket behind this one.
            ready += self._jitter.handle_timer(now)
        return ready

    def _go_back(self, admitted: Sequence[Arrived]) -> list[UplinkFrame]:
        """Make room for packets with sequences that have passed; return what was waiting."""
        if not admitted or (first := admitted[0][0].sequence) > self._window.highest:
            return []
        self._window.restart(first - 1)
        return self._jitter.restart(first)

    def _order(self, admitted: Sequence[Arrived]) -> list[UplinkFrame]:
        ready: list[UplinkFrame] = []
        for frame, arrived in admitted:
            self._window.mark(frame.sequence)
            ready += self._jitter.push(frame, arrived)
        return ready

    def _over(self, sequence: int) -> Seen | None:
        """Whether a sequence was here before, or its place has passed; None if it is due."""
        seen = self._window.look(sequence)
        if seen is Seen.NEW:
            return Seen.TOO_OLD if self._jitter.is_late(sequence) else None
        return seen

    def get_timer(self) -> float | None:
        """Return when `handle_timer` wants to be called, or None."""
        return self._jitter.get_timer()

    def handle_timer(self, now: float) -> list[UplinkFrame]:
        """Give up the gaps that were waited for long enough; return what can leave now."""
        return self._jitter.handle_timer(now)

    def flush(self) -> list[UplinkFrame]:
        """Wait for no gap any more (the device has stopped speaking); return what was behind it."""
        return self._jitter.flush()

    def close(self) -> None:
        """Nothing more comes: what still waits is given up."""
        self._closed = True

    def seal(self, opus: bytes, now: float) -> bytes:
        """Return the datagram that carries one Opus packet to the device.

        Raises:
            KeystreamExhausted: The session has to be renewed (by a new hello).
        """
        return self._sealer.seal(opus, now)

    def statistics(self) -> LinkStatistics:
        """Return the counts."""
        pin, jitter = self._pin, self._jitter
        open_ = not self._closed
        return LinkStatistics(
            received=self._received,
            delivered=jitter.delivered,
            lost=jitter.lost,
            skipped=jitter.skipped,
            duplicate=self._duplicate,
            late=self._late,
            unconfirmed=pin.unconfirmed,
            cut_off=0 if open_ else jitter.waiting + pin.held,
            waiting=jitter.waiting if open_ else 0,
            held=pin.held if open_ else 0,
            bad=dict(self._bad),
            moves=pin.moves,
            undone=pin.undone,
            sealed=self._sealer.sequence,
        )
