"""Which datagrams to believe: the cipher authenticates nothing, and the ssrc travels in clear.

Rule 1: the address of the first believed packet is pinned. Uplink comes from there, downlink goes
    there.
Rule 2: a packet is believed at once if it comes from the pinned address and continues the stream,
    at most a few sequences ahead; before an address is pinned, if it is the very first, sequence 1.
Rule 3: any other packet that passed all checks is held. When a second one from the same address
    continues it, with nothing refused from there in between, both are believed: the stream jumps
    there, or the session moves there. A move further needs a pinned address that has fallen silent,
    and moves are rate-limited.
Rule 4: the stream that goes on by rule 2 refutes whatever is held.
Rule 5: the stream that begins with a jump or a move is on probation. Until it has been heard for
    `PROBATION` seconds of speech, the one that it took the place of may go on where it stopped: two
    packets in a row, at the pace of speech, take the session back, address and sequence; a few more
    while the new one is heard. What was undone has no such way back.
Rule 6: otherwise sequences never go back. A device starts again at 1 only with a new hello, which
    makes a new key and a new link; whoever sends old ones is replaying them.

So one forged packet redirects nothing and silences nothing: whatever its sequence is, it costs the
few frames of rule 2 at most. RFC 3550, A.1, asks for two in a row against the same trouble. Two in
a row, while the device says nothing, do move the session; when the device speaks again it has it
back, unless somebody has spoken in its place for as long as a probation lasts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from attrs import define, field

from trio_gateway.core.claims import Address, Claim
from trio_gateway.core.lines import Line, Lines
from trio_gateway.core.opus_packet import SAMPLE_RATE
from trio_gateway.errors import BadPacket

if TYPE_CHECKING:
    from trio_gateway.core.claims import Arrived
    from trio_gateway.core.jitter import UplinkFrame

__all__ = ["Address", "SourcePin"]

TRUSTED_LOSSES = 2
"""Frames lost in a row, beyond those that the reordering wait spans, before rule 3 asks for a
second packet. A guess: with the default wait, at 20 % random loss, one gap in 125 is longer. Being
held costs little: the second packet is due within the time that a gap waits anyway."""

MAX_SILENCE = 120.0
"""Seconds of audio that may be missing before the first packet: the device itself gives a channel
up after 120 s without hearing anything."""

MAX_LAG = 5.0
"""Seconds of audio that a later jump may skip, beyond those that have passed: no device sends
faster than it records. A guess: so long may the packet have been on its way that we heard last."""

QUIET_FRAMES = 3.5
"""Frames of silence from the pinned address before a move: who speaks is heard with every frame, or
three in a row are lost (at 10 % random loss one time in 1,000). A move loses nothing by waiting."""

MOVE_INTERVAL = 2.0
"""Seconds from a move to the next, and from what rule 5 has undone to the next jump. A guess: a
device that roams is nowhere for longer."""

PROBATION = 10.0
"""Seconds of speech. A guess: longer than anybody's answer waits for the next word, so that few can
speak so long in the place of a device that is silent."""

RETURN_FRAMES = 5
"""Packets in a row that undo a jump or a move whose stream is still heard. A guess: 0.3 s, in which
two streams cannot both be the device."""

MAX_CLAIMS = 4
"""Addresses of which packets are held. A guess: one is the device's, and some strangers'."""


@define
class SourcePin:
    """Decides for one session. Sequences are unrolled, times are seconds of the caller's clock.

    Attributes:
        frame_s: Seconds in a frame.
        reorder_wait: Seconds that a gap waits for its missing packets.
        address: The pinned address.
        moves: How often it changed.
        undone: How often a jump or a move was.
        unconfirmed: Packets that were held and given up, or copies and stragglers of held ones.
        reach: Sequences ahead that rule 2 believes at once.
        max_held: Packets held for one claim: so many that who waits out `MOVE_INTERVAL` loses none.
    """

    frame_s: float
    reorder_wait: float
    address: Address | None = field(default=None, init=False)
    moves: int = field(default=0, init=False)
    undone: int = field(default=0, init=False)
    unconfirmed: int = field(default=0, init=False)
    reach: int = field(init=False)
    max_held: int = field(init=False)
    _samples: int = field(init=False)  # of a frame as announced
    _samples_heard: int = field(default=0, init=False)  # of the last one believed
    _first: int = field(default=1, init=False)  # of the stream that is believed now
    _highest: int = field(default=0, init=False)
    _believed: int = field(default=0, init=False)  # its packets
    _heard: float | None = field(default=None, init=False)
    _ceiling: int = field(default=0, init=False)  # the highest sequence of all streams
    _ceiling_at: float = field(default=0.0, init=False)
    _moved: float = field(default=-math.inf, init=False)
    _undone_at: float = field(default=-math.inf, init=False)
    _jump: Claim | None = field(default=None, init=False)  # from the pinned address
    _moves: list[Claim] = field(factory=list, init=False)  # from others, or before there is one
    _left: Lines = field(init=False)  # rule 5

    def __attrs_post_init__(self) -> None:
        self.reach = 1 + TRUSTED_LOSSES + round(self.reorder_wait / self.frame_s)
        self.max_held = math.ceil((MOVE_INTERVAL + 1) / self.frame_s)
        self._samples = round(self.frame_s * SAMPLE_RATE)
        self._left = Lines(self.frame_s, MAX_LAG)

    @property
    def held(self) -> int:
        """Packets held now."""
        return sum(len(claim.held) for claim in self._claims()) + self._left.held

    @property
    def heard_at(self) -> float:
        """When the last packet came that was believed; -inf before any."""
        return -math.inf if self.address is None or self._heard is None else self._heard

    def knows(self, address: Address) -> bool:
        """Whether the stream comes from `address`, or may go on there; or nothing has come."""
        return address == self.address or self.address is None or self._left.know(address)

    def doubt(self, address: Address) -> None:
        """Something from `address` was refused: what is held of a move there was a lucky guess.

        In a row means in a row. Of random packets one in 40 looks good, two one after the other one
        in 1,600. Claims with an address that is known stay: anybody could end those.
        """
        for claim in self._moves:
            if claim.address == address:
                self.unconfirmed += len(claim.held)
                self._moves.remove(claim)
                return

    def is_replay(self, frame: UplinkFrame) -> bool:
        """Whether just this packet was believed before, in a stream that was left or undone."""
        return self._left.is_replay(frame)

    def check_jump_untrusted(self, sequence: int, now: float) -> None:
        """Refuse what no device can have sent, before anything is spent on it.

        Raises:
            BadPacket: `implausible`.
        """
        if self._heard is None:
            self._heard = self._ceiling_at = now
        slack = MAX_SILENCE if self.address is None else MAX_LAG
        skipped = (sequence - self._ceiling) * self.frame_s
        if sequence > self._highest + self.reach and skipped > slack + now - self._ceiling_at:
            raise BadPacket("implausible", f"{sequence - self._highest} sequences ahead")

    def line_of(self, sequence: int, address: Address, now: float) -> Line | None:
        """Return the line that a packet may be the next of (rule 5), if it was left."""
        if address == self.address and sequence >= self._first:
            return None  # of the stream that is believed
        return self._left.find(sequence, address, now)

    def admit_untrusted(
        self, frame: UplinkFrame, address: Address, *, ahead: int, samples: int, now: float
    ) -> list[Arrived]:
        """Take a packet that is well-formed, new and valid Opus.

        Args:
            frame: The packet, decrypted.
            address: Where it came from.
            ahead: Its sequence less the highest one believed; below 0 it fills a gap.
            samples: Its duration at 48 kHz.
            now: Time of arrival.

        Returns:
            What can be believed now, with sequences ascending: nothing, this one, or more.

        Raises:
            BadPacket: `implausible`.
        """
        pinned = self.address
        if pinned is None:
            trusted = frame.sequence == 1
        else:
            trusted = address == pinned and ahead <= self.reach
        if not trusted:
            return self._hold_untrusted(frame, address, ahead, samples, now)
        self.address = address
        believed = [(frame, now)]
        if ahead > 0 and (self._jump or self._moves):
            self._refute(believed, now)
        self._believe(believed, samples, now)
        return believed

    def _refute(self, believed: list[Arrived], now: float) -> None:
        """Rule 4; but what the stream reaches now was only overtaking, not jumping."""
        for claim in self._claims():
            own = claim.address == self.address
            for frame, arrived in claim.held:
                ahead = frame.sequence - believed[-1][0].sequence
                if own and 0 < ahead <= self.reach and now - arrived <= self.reorder_wait:
                    believed.append((frame, arrived))
                else:
                    self.unconfirmed += 1
        self._forget_claims()

    def _claims(self) -> list[Claim]:
        return self._moves if self._jump is None else [self._jump, *self._moves]

    def _forget_claims(self) -> None:
        self._jump = None
        self._moves.clear()

    def _hold_untrusted(
        self, frame: UplinkFrame, address: Address, ahead: int, samples: int, now: float
    ) -> list[Arrived]:
        """Rule 3."""
        self._check_duration_untrusted(samples)
        if ahead <= 0:
            raise BadPacket("implausible", "old, and from elsewhere")
        claim = next((each for each in self._claims() if each.address == address), None)
        if claim is None:
            claim = self._begin_claim(address)
        if not self._held_by(claim, frame, now):
            return []
        if len(claim.held) == 1 or not self._may_believe(claim, now):
            return []
        self._leave()
        return self._follow(claim, samples, now)

    def admit_return_untrusted(
        self, line: Line, frame: UplinkFrame, *, samples: int, now: float
    ) -> list[Arrived]:
        """Take a packet of a line that was left (rule 5); as `admit_untrusted`.

        What is believed now may have sequences below the highest: the stream goes back there.

        Raises:
            BadPacket: `implausible`.
        """
        self._check_duration_untrusted(samples)
        claim = line.claim
        if not self._held_by(claim, frame, now):
            return []
        # Stragglers that a route held back come all at once; who speaks takes his time.
        enough, frames = (2, 0.5) if self._is_quiet(now) else (RETURN_FRAMES, RETURN_FRAMES - 2)
        if len(claim.held) < enough or claim.span(now) < frames * self.frame_s:
            return []
        self.undone += 1
        self._undone_at = self._moved = now
        believed = self._follow(claim, samples, now)
        self.unconfirmed += self._left.clear(self._highest)
        return believed

    def _check_duration_untrusted(self, samples: int) -> None:
        if samples not in (self._samples, self._samples_heard):
            raise BadPacket("implausible", f"{samples} samples")

    def _held_by(self, claim: Claim, frame: UplinkFrame, now: float) -> bool:
        self.unconfirmed += claim.add(frame, now)
        return claim.held[-1][0] is frame

    def _begin_claim(self, address: Address) -> Claim:
        claim = Claim(address, self.reach, self.max_held)
        if address == self.address:
            self._jump = claim
            return claim
        if len(self._moves) == MAX_CLAIMS:  # the one that has shown least, and of those the first
            given_up = min(self._moves, key=lambda each: len(each.held))
            self._moves.remove(given_up)
            self.unconfirmed += len(given_up.held)
        self._moves.append(claim)
        return claim

    def _is_quiet(self, now: float) -> bool:
        return self._heard is None or now >= self._heard + QUIET_FRAMES * self.frame_s

    def _may_believe(self, claim: Claim, now: float) -> bool:
        if self.address is None:
            return True
        if claim.address == self.address:
            return now >= self._undone_at + MOVE_INTERVAL
        return self._is_quiet(now) and now >= self._moved + MOVE_INTERVAL

    def _leave(self) -> None:
        """Remember the stream that another one takes the place of."""
        if self.address is None or self._heard is None:
            return
        claim = Claim(self.address, self.reach, self.max_held)
        self.unconfirmed += self._left.leave(Line(self._highest, self._heard, claim))

    def _follow(self, claim: Claim, samples: int, now: float) -> list[Arrived]:
        """Go on with the stream that `claim` has shown."""
        believed, claim.held = claim.held, []
        self.unconfirmed += sum(len(other.held) for other in self._claims())
        self._forget_claims()
        if self.address is not None and claim.address != self.address:
            self.moves += 1
            self._moved = now
        self.address = claim.address
        self._first = believed[0][0].sequence
        self._highest = self._believed = 0
        self._believe(believed, samples, now)
        return believed

    def _believe(self, believed: list[Arrived], samples: int, now: float) -> None:
        last = believed[-1][0].sequence
        self._heard = now
        self._samples_heard = samples
        self._highest = max(self._highest, last)
        self._believed += len(believed)
        if last > self._ceiling:
            self._ceiling, self._ceiling_at = last, now
        self._left.hear(believed)
        if self._left and self._believed * self.frame_s >= PROBATION:
            self.unconfirmed += self._left.clear(self._highest)
