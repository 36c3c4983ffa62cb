"""The buffer pool: what is put into a slot comes out of it, and nothing of it is anywhere else."""

from __future__ import annotations

import ctypes

import numpy as np

from trio_gateway.workers.slab import MAX_PACKET_BYTES, PCM_BYTES, SLOT_BYTES, Slab


def test_slots_are_given_out_once_each_and_the_last_used_first() -> None:
    slab = Slab(3)
    assert [slab.acquire() for _ in range(4)] == [0, 1, 2, None]
    assert slab.used == 3
    slab.release(1)
    slab.release(0)
    assert slab.used == 1
    assert [slab.acquire(), slab.acquire(), slab.acquire()] == [0, 1, None]


def test_full_slots_do_not_touch_their_neighbours() -> None:
    slab = Slab(3)
    rng = np.random.default_rng(1)
    packets = [rng.bytes(MAX_PACKET_BYTES) for _ in range(3)]
    sounds = [rng.integers(-32768, 32768, PCM_BYTES // 2).astype(np.int16) for _ in range(3)]
    for slot in (1, 0, 2):
        slab.put_packet(slot, packets[slot])
        slab.put_pcm(slot, sounds[slot])
    for slot in range(3):
        assert slab.packet(slot, MAX_PACKET_BYTES) == packets[slot]
        np.testing.assert_array_equal(slab.pcm(slot, PCM_BYTES // 2), sounds[slot])


def test_workers_find_the_slots_where_the_job_says() -> None:
    slab = Slab(2)
    slab.put_packet(1, b"packet")
    slab.put_pcm(1, np.array([1, -2, 3], np.int16))
    assert ctypes.string_at(slab.address + SLOT_BYTES, 6) == b"packet"
    pcm = slab.address + SLOT_BYTES + MAX_PACKET_BYTES
    assert list((ctypes.c_int16 * 3).from_address(pcm)) == [1, -2, 3]


def test_what_came_out_is_a_copy() -> None:
    slab = Slab(1)
    slab.put_pcm(0, np.ones(960, np.int16))
    pcm, packet = slab.pcm(0, 960), slab.packet(0, 4)
    slab.put_pcm(0, np.zeros(960, np.int16))
    slab.put_packet(0, b"next")
    assert pcm.all()
    assert packet == bytes(4)


def test_the_longest_opus_frame_fits() -> None:
    assert PCM_BYTES >= 48000 * 120 // 1000 * 2
    assert MAX_PACKET_BYTES <= 0xFFFF, "a ticket's length is 16 bits"
