"""Which datagrams to believe: the cipher authenticates nothing, and the ssrc travels in clear.

Rule 1: the address of the first believed packet is pinned. Uplink comes from there, downlink goes
    there.
Rule 2: a packet is believed at once if it comes from the pinned address and continues the stream,
    at most a few sequences ahead; before an address is pinned, if it is the very first, sequence 1.
Rule 3: any other packet that passed all checks is held. When a second one from the same address
    continues it, both are believed: the stream jumps there, or the session moves there. A move
    further needs a pinned address that has fallen silent, and moves are rate-limited.
Rule 4: the stream that goes on by rule 2 refutes whatever is held.
Rule 5: a jump or a move can be undone. Where the stream was before, it may go on: two packets in a
    row take the session back, address and sequence; a few more while the new stream is heard.
Rule 6: otherwise sequences never go back. A device starts again at 1 only with a new hello, which
    makes a new key and a new link; whoever sends old ones is replaying them.

So one forged packet redirects nothing and silences nothing: whatever its sequence is, it costs the
few frames of rule 2 at most. RFC 3550, A.1, asks for two in a row against the same trouble. Two in
a row, while the device says nothing, do move the session; by rule 5 the device has it back when it
speaks again.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from attrs import define, field

from trio_gateway.core.claims import Address, Claim, Line
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

QUIET_FRAMES = 1.5
"""Frames of silence from the pinned address before a move: who speaks is heard with every frame."""

MOVE_INTERVAL = 2.0
"""Seconds between two moves (a guess). By rule 5 the way back is free, once: if somebody does lure
a session away, its device has it back with its next packets, and they have to wait."""

RETURN_FRAMES = 5
"""Packets in a row that undo a jump or a move whose stream is still heard. A guess: 0.3 s, in which
two streams cannot both be the device."""

STRAGGLING = 1.0
"""Seconds after a jump or a move in which a packet from before it is a straggler. A guess: longer
than a route holds packets back that are already on it."""


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
    """

    frame_s: float
    reorder_wait: float
    address: Address | None = field(default=None, init=False)
    moves: int = field(default=0, init=False)
    undone: int = field(default=0, init=False)
    unconfirmed: int = field(default=0, init=False)
    reach: int = field(init=False)
    _samples: int = field(init=False)  # of a frame as announced
    _samples_heard: int = field(default=0, init=False)  # of the last one believed
    _heard: float | None = field(default=None, init=False)
    _moved: float = field(default=-math.inf, init=False)
    _highest: int = field(default=0, init=False)
    _believed: int = field(default=0, init=False)
    _left: Line | None = field(default=None, init=False)
    _jump: Claim | None = field(default=None, init=False)  # from the pinned address
    _move: Claim | None = field(default=None, init=False)  # from another, or before there is one
    _return: Claim | None = field(default=None, init=False)  # by rule 5

    def __attrs_post_init__(self) -> None:
        self.reach = 1 + TRUSTED_LOSSES + round(self.reorder_wait / self.frame_s)
        self._samples = round(self.frame_s * SAMPLE_RATE)

    @property
    def held(self) -> int:
        """Packets held now."""
        claims = self._jump, self._move, self._return
        return sum(len(claim.held) for claim in claims if claim)

    def knows(self, address: Address) -> bool:
        """Whether the stream comes from `address`, or did before; or may, as nothing has come."""
        pinned, left = self.address, self._left
        return address == pinned or pinned is None or (left is not None and address == left.address)

    @property
    def heard_at(self) -> float:
        """When the last packet came that was believed; -inf before any."""
        return -math.inf if self.address is None or self._heard is None else self._heard

    def doubt(self, address: Address) -> None:
        """Something from `address` was refused: what is held of a move there was a lucky guess.

        In a row means in a row. Of random packets one in 40 looks good, two one after the other one
        in 1,600. Claims with an address that is known stay: anybody could end those.
        """
        if self._move is not None and self._move.address == address:
            self.unconfirmed += len(self._move.held)
            self._move = None

    def check_jump_untrusted(self, ahead: int, now: float) -> None:
        """Refuse what no device can have sent, before anything is spent on it.

        Args:
            ahead: The packet's sequence less the highest one believed.
            now: Time of arrival.

        Raises:
            BadPacket: `implausible`.
        """
        if self._heard is None:
            self._heard = now
        slack = MAX_SILENCE if self.address is None else MAX_LAG
        if ahead > self.reach and ahead * self.frame_s > slack + now - self._heard:
            raise BadPacket("implausible", f"{ahead} sequences ahead")

    def is_of_line_left(self, sequence: int, address: Address, now: float) -> bool:
        """Whether a packet may be the next of the stream that was left last (rule 5).

        Asked of what is from elsewhere, or not new to the stream that took its place.
        """
        line = self._left
        if line is None or address != line.address:
            return False
        if sequence < line.left_for:
            if now < line.left + STRAGGLING:
                return False
        elif address == self.address:
            return False  # a late one or a copy of the stream that jumped
        ahead = sequence - line.highest
        return ahead > 0 and ahead * self.frame_s <= MAX_LAG + now - line.heard

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
        self._heard = now
        self._samples_heard = samples
        self._highest = max(self._highest, frame.sequence)
        self._believed += 1
        believed = [(frame, now)]
        if ahead > 0 and (self._jump or self._move):
            self._refute(believed, now)
        return believed

    def _refute(self, believed: list[Arrived], now: float) -> None:
        """Rule 4; but what the stream reaches now was only overtaking, not jumping."""
        for claim in (claim for claim in (self._jump, self._move) if claim):
            own = claim.address == self.address
            for frame, arrived in claim.held:
                ahead = frame.sequence - believed[-1][0].sequence
                if own and 0 < ahead <= self.reach and now - arrived <= self.reorder_wait:
                    believed.append((frame, arrived))
                    self._highest = frame.sequence
                    self._believed += 1
                else:
                    self.unconfirmed += 1
        self._jump = self._move = None

    def _hold_untrusted(
        self, frame: UplinkFrame, address: Address, ahead: int, samples: int, now: float
    ) -> list[Arrived]:
        """Rule 3."""
        self._check_duration_untrusted(samples)
        if ahead <= 0:
            raise BadPacket("implausible", "old, and from elsewhere")
        claim = self._jump if address == self.address else self._move
        if claim is None or claim.address != address:
            claim = self._begin_claim(address)
        if not self._held_by(claim, frame, now):
            return []
        if len(claim.held) == 1 or not self._may_believe(claim, now):
            return []
        self._leave(claim, now, can_return=True)
        return self._follow(claim, samples, now)

    def admit_return_untrusted(
        self, frame: UplinkFrame, address: Address, *, samples: int, now: float
    ) -> list[Arrived]:
        """Take a packet of the line that was left (rule 5); as `admit_untrusted`.

        What is believed now may have sequences below the highest: the stream goes back there.

        Raises:
            BadPacket: `implausible`.
        """
        self._check_duration_untrusted(samples)
        line = self._left
        if line is None:
            raise BadPacket("implausible", "no line was left")
        claim = self._return
        if claim is None:
            claim = self._return = Claim(address)
        if not self._held_by(claim, frame, now):
            return []
        enough = 2 if self._is_quiet(now) else RETURN_FRAMES
        may = line.can_return or now >= self._moved + MOVE_INTERVAL
        if len(claim.held) < enough or not may:
            return []
        self.undone += 1
        self._leave(claim, now, can_return=False)
        self._believed = line.believed
        return self._follow(claim, samples, now)

    def _check_duration_untrusted(self, samples: int) -> None:
        if samples not in (self._samples, self._samples_heard):
            raise BadPacket("implausible", f"{samples} samples")

    def _held_by(self, claim: Claim, frame: UplinkFrame, now: float) -> bool:
        self.unconfirmed += claim.add(frame, now, self.reach)
        return claim.held[-1][0] is frame

    def _begin_claim(self, address: Address) -> Claim:
        claim = Claim(address)
        if address == self.address:
            self._jump, given_up = claim, self._jump
        else:
            self._move, given_up = claim, self._move
        if given_up is not None:
            self.unconfirmed += len(given_up.held)
        return claim

    def _is_quiet(self, now: float) -> bool:
        return self._heard is None or now >= self._heard + QUIET_FRAMES * self.frame_s

    def _may_believe(self, claim: Claim, now: float) -> bool:
        if self.address is None or claim.address == self.address:
            return True
        return self._is_quiet(now) and now >= self._moved + MOVE_INTERVAL

    def _leave(self, claim: Claim, now: float, *, can_return: bool) -> None:
        """Remember the line that `claim` takes the place of."""
        if self.address is None or self._heard is None:
            return
        line = Line(
            address=self.address,
            highest=self._highest,
            heard=self._heard,
            believed=self._believed,
            left=now,
            left_for=claim.held[0][0].sequence,
            can_return=can_return,
        )
        # Of two it is the longer one: else two jumps in a row would make the device's forgotten.
        if self._left is None or not can_return or line.believed >= self._left.believed:
            self._left = line
        self._believed = 0

    def _follow(self, claim: Claim, samples: int, now: float) -> list[Arrived]:
        self.unconfirmed += self.held - len(claim.held)
        self._jump = self._move = self._return = None
        self._heard = now
        self._samples_heard = samples
        self._highest = claim.held[-1][0].sequence
        self._believed += len(claim.held)
        if self.address is not None and claim.address != self.address:
            self.moves += 1
            self._moved = now
        self.address = claim.address
        return claim.held
