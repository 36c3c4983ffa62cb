"""Which datagrams to believe: the cipher authenticates nothing, and the ssrc travels in clear.

Rule 1: the address of the first believed packet is pinned. Uplink comes from there, downlink goes
    there.
Rule 2: a packet is believed at once if it comes from the pinned address and continues the stream,
    at most a few sequences ahead; before an address is pinned, if it is the very first, sequence 1.
Rule 3: any other packet that passed all checks is held. When a second one from the same address
    continues it, both are believed: the stream jumps there, or the session moves there. A move
    further needs a pinned address that has fallen silent, and moves are rate-limited.
Rule 4: the stream that goes on by rule 2 refutes whatever is held.
Rule 5: sequences never go back. A device starts again at 1 only with a new hello, which makes a new
    key and a new link.

So one forged packet redirects nothing and silences nothing: whatever its sequence is, it costs the
few frames of rule 2 at most. RFC 3550, A.1, asks for two in a row against the same trouble.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

from attrs import define, field

from trio_gateway.core.opus_packet import SAMPLE_RATE
from trio_gateway.errors import BadPacket

if TYPE_CHECKING:
    from trio_gateway.core.jitter import UplinkFrame

__all__ = ["Address", "Arrived", "SourcePin"]

Address: TypeAlias = tuple[str, int]
Arrived: TypeAlias = "tuple[UplinkFrame, float]"
"""A frame and the time it came, in seconds of the caller's clock."""

TRUSTED_LOSSES = 2
"""Frames lost in a row, beyond those that the reordering wait spans, before rule 3 asks for a
second packet. A guess: with the default wait, at 20 % random loss, one gap in 125 is longer. Being
held costs little: the second packet is due within the time that a gap waits anyway."""

MAX_JUMP = 120.0
"""A jump of more seconds of audio than this, plus those since the last packet, is never believed:
the device itself gives a channel up after 120 s without hearing anything."""

QUIET_FRAMES = 1.5
"""Frames of silence from the pinned address before a move: who speaks is heard with every frame."""

MOVE_INTERVAL = 2.0
"""Seconds between two moves (a guess). The way back to the address before is free: if somebody does
lure a session away, its device has it back with its next packets, and they have to wait."""

MAX_HELD = 16
"""Packets held for one address (a guess: a second of audio). The oldest gives way."""


@define
class _Claim:
    """Packets from one address, each continuing the one before, held by rule 3."""

    address: Address
    held: list[Arrived]


@define
class SourcePin:
    """Decides for one session. Sequences are unrolled, times are seconds of the caller's clock.

    Attributes:
        frame_s: Seconds in a frame.
        reorder_wait: Seconds that a gap waits for its missing packets.
        address: The pinned address.
        moves: How often it changed.
        unconfirmed: Packets that were held and given up, or copies and stragglers of held ones.
        reach: Sequences ahead that rule 2 believes at once.
    """

    frame_s: float
    reorder_wait: float
    address: Address | None = field(default=None, init=False)
    moves: int = field(default=0, init=False)
    unconfirmed: int = field(default=0, init=False)
    reach: int = field(init=False)
    _samples: int = field(init=False)  # of a frame as announced
    _samples_heard: int = field(default=0, init=False)  # of the last one believed
    _heard: float | None = field(default=None, init=False)
    _moved: float = field(default=-math.inf, init=False)
    _before: Address | None = field(default=None, init=False)
    _jump: _Claim | None = field(default=None, init=False)  # from the pinned address
    _move: _Claim | None = field(default=None, init=False)  # from another, or before there is one

    def __attrs_post_init__(self) -> None:
        self.reach = 1 + TRUSTED_LOSSES + round(self.reorder_wait / self.frame_s)
        self._samples = round(self.frame_s * SAMPLE_RATE)

    @property
    def held(self) -> int:
        """Packets held now."""
        return sum(len(claim.held) for claim in (self._jump, self._move) if claim)

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
        if ahead > self.reach and ahead * self.frame_s > MAX_JUMP + now - self._heard:
            raise BadPacket("implausible", f"{ahead} sequences ahead")

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
                else:
                    self.unconfirmed += 1
        self._jump = self._move = None

    def _hold_untrusted(
        self, frame: UplinkFrame, address: Address, ahead: int, samples: int, now: float
    ) -> list[Arrived]:
        """Rule 3."""
        if samples not in (self._samples, self._samples_heard):
            raise BadPacket("implausible", f"{samples} samples")
        if ahead <= 0:
            raise BadPacket("implausible", "old, and from elsewhere")
        claim = self._jump if address == self.address else self._move
        if claim is None or claim.address != address:
            claim = self._begin_claim(address)
        step = frame.sequence - claim.held[-1][0].sequence if claim.held else 1
        if -self.reach <= step <= 0:
            self.unconfirmed += 1  # a copy or a straggler of what is held
            return []
        if step > self.reach or step < 0:
            claim = self._begin_claim(address)
        claim.held.append((frame, now))
        if len(claim.held) > MAX_HELD:
            del claim.held[0]
            self.unconfirmed += 1
        if len(claim.held) == 1 or not self._may_believe(claim, now):
            return []
        self._confirm(claim, samples, now)
        return claim.held

    def _begin_claim(self, address: Address) -> _Claim:
        claim = _Claim(address, [])
        if address == self.address:
            self._jump, given_up = claim, self._jump
        else:
            self._move, given_up = claim, self._move
        if given_up is not None:
            self.unconfirmed += len(given_up.held)
        return claim

    def _may_believe(self, claim: _Claim, now: float) -> bool:
        if self.address is None or claim.address == self.address:
            return True
        if self._heard is not None and now < self._heard + QUIET_FRAMES * self.frame_s:
            return False
        return claim.address == self._before or now >= self._moved + MOVE_INTERVAL

    def _confirm(self, claim: _Claim, samples: int, now: float) -> None:
        self.unconfirmed += self.held - len(claim.held)
        self._jump = self._move = None
        self._heard = now
        self._samples_heard = samples
        if self.address is not None and claim.address != self.address:
            self.moves += 1
            self._moved = now
            self._before = None if claim.address == self._before else self.address
        self.address = claim.address
