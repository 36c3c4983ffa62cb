"""What becomes of a frame when the worker that may have been at work on it is lost.

An encoder does it again, a decoder conceals it, both with a state that has heard nothing: what the
old one has heard is not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_gateway.core import opus_packet
from trio_gateway.errors import BadPacket, WorkerFailed
from trio_gateway.workers.codec import CONCEAL, DECODE, ENCODE
from trio_gateway.workers.opus import INVALID_PACKET, codec_error

if TYPE_CHECKING:
    from trio_gateway.workers.frame import Frame

__all__ = ["after_loss"]


def after_loss(frame: Frame) -> Exception | None:
    """Make the best of a frame that a lost worker may have begun, or say why there is none."""
    frame.stream.state = frame.stream.make_state()
    if frame.lost_workers > 1:
        return WorkerFailed("two workers were lost with this frame; it will not get a third")
    if frame.operation == DECODE:
        try:
            duration = opus_packet.duration_untrusted(frame.packet)
        except BadPacket:
            return codec_error(INVALID_PACKET)
        frame.samples = duration * frame.stream.rate // opus_packet.SAMPLE_RATE
    if frame.operation != ENCODE:
        frame.operation = CONCEAL
        frame.packet = b""
    return None
