"""Frames: a torn tail is told from damage, whatever is cut off and whatever bit is flipped."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_ai.core.frames import HEADER_BYTES, MAGIC, CorruptFrameError, encode_frame, scan_frames

PAYLOADS = st.lists(st.binary(max_size=40), min_size=1, max_size=6)


def log_of(payloads: list[bytes]) -> tuple[bytes, list[int]]:
    """The log, and where each frame ends."""
    frames = [encode_frame(payload) for payload in payloads]
    return b"".join(frames), list(accumulate(map(len, frames)))


def test_an_empty_log_holds_nothing() -> None:
    """No bytes are no frames and no damage."""
    scan = scan_frames(b"")
    assert (scan.payloads, scan.valid_bytes, scan.torn_bytes) == ([], 0, 0)


@given(PAYLOADS)
def test_a_sound_log_comes_back_whole(payloads: list[bytes]) -> None:
    """What was written is read, in order, empty payloads included."""
    data, _ = log_of(payloads)
    scan = scan_frames(data)
    assert scan.payloads == payloads
    assert (scan.valid_bytes, scan.torn_bytes) == (len(data), 0)


@given(PAYLOADS)
def test_every_truncation_is_a_torn_tail(payloads: list[bytes]) -> None:
    """Cut at any byte: all frames before the cut are there, the rest is torn, nothing is corrupt."""
    data, ends = log_of(payloads)
    for cut in range(len(data)):
        whole = sum(end <= cut for end in ends)
        scan = scan_frames(data[:cut])
        assert scan.payloads == payloads[:whole]
        assert scan.valid_bytes == (ends[whole - 1] if whole else 0)
        assert scan.valid_bytes + scan.torn_bytes == cut


@given(PAYLOADS, st.data())
def test_a_flipped_bit_never_passes_for_data(payloads: list[bytes], data: st.DataObject) -> None:
    """In the last frame it reads as a torn tail; before that it is refused, at the frame that holds it."""
    log, ends = log_of(payloads)
    bit = data.draw(st.integers(0, 8 * len(log) - 1))
    damaged = bytearray(log)
    damaged[bit // 8] ^= 1 << bit % 8
    frame = sum(end <= bit // 8 for end in ends)
    if frame == len(payloads) - 1:
        scan = scan_frames(bytes(damaged))
        assert scan.payloads == payloads[:-1]
        assert scan.torn_bytes == len(log) - scan.valid_bytes > 0
    else:
        with pytest.raises(CorruptFrameError) as caught:
            scan_frames(bytes(damaged))
        assert caught.value.offset == (ends[frame - 1] if frame else 0)


@given(PAYLOADS, PAYLOADS)
def test_logs_can_be_joined(first: list[bytes], second: list[bytes]) -> None:
    """Two logs one after the other are one log: objects of an interval each, rewritten frames behind older ones."""
    assert scan_frames(log_of(first)[0] + log_of(second)[0]).payloads == first + second


@given(PAYLOADS, PAYLOADS, st.data())
def test_a_log_that_goes_on_after_a_torn_frame_is_corrupt(
    first: list[bytes], second: list[bytes], data: st.DataObject
) -> None:
    """A writer that appends behind a torn frame would lose it in silence; the reader refuses instead."""
    log, ends = log_of(first)
    start = ends[-2] if len(ends) > 1 else 0
    cut = data.draw(st.integers(start + 1, len(log) - 1))
    with pytest.raises(CorruptFrameError):
        scan_frames(log[:cut] + log_of(second)[0])


@pytest.mark.parametrize(
    "tail",
    [
        b"\0",  # one byte of a block that was allocated but never written
        b"\0" * 4096,  # a whole such block
        MAGIC,  # a magic number and nothing else
        MAGIC * 100,  # many of them
        encode_frame(b"payload")[:HEADER_BYTES],  # a sound header that promises more than there is
    ],
)
def test_a_tail_without_a_frame_is_torn(tail: bytes) -> None:
    """Whatever the tail looks like: with no sound frame in it, it is what a crash left behind."""
    log = encode_frame(b"kept")
    scan = scan_frames(log + tail)
    assert (scan.payloads, scan.valid_bytes, scan.torn_bytes) == ([b"kept"], len(log), len(tail))
