"""The records that pass between the Trio thread and a worker.

Standard library only: both ends import this file, one of them inside an isolated interpreter.

    ticket, 24 bytes                        completion, 12 bytes
      0  state    u64  address of the codec   0  number    u32  of the ticket
      8  number   u32  counts up per worker   4  result    i32  samples, bytes, or libopus' error
     12  slot     u32  index in the slab      8  codec_ns  u32  time inside libopus
     16  length   u16  bytes of the packet
     18  samples  u16  per channel
     20  operation u8  see codec.py
     21  padding

Native byte order: both ends are one process.
"""

from __future__ import annotations

import struct
from typing import Final

__all__ = ["COMPLETION", "READY", "REQUEST_BYTES", "TICKET"]

TICKET: Final = struct.Struct("=QIIHHB3x")
COMPLETION: Final = struct.Struct("=IiI")

# A worker's first completion says that it has loaded libopus. Ticket numbers stay below it.
READY: Final = 0xFFFF_FFFF

# At most this much in one write or read of tickets: below PIPE_BUF (4,096 on Linux), a multiple of
# a ticket, so a record is never split there. Both ends handle split records all the same.
REQUEST_BYTES: Final = 4096 // TICKET.size * TICKET.size
