"""The channel between the load and what it measures."""

import pytest

from runtime.bench.frames import Frames, Kind, frame

SENT = [(Kind.ASK, 7, b"an order"), (Kind.DONE, 2**32 - 1, b""), (Kind.ANSWER, 0, b"x" * 1_000)]


@pytest.mark.parametrize("size", [1, 9, 10, 500, 5_000])
def test_frames_come_out_as_they_went_in_however_they_are_cut(size: int) -> None:
    sent = b"".join(frame(*one) for one in SENT)
    frames = Frames()
    pieces = (sent[start : start + size] for start in range(0, len(sent), size))
    assert [one for piece in pieces for one in frames.feed(piece)] == SENT
