"""A person's clips as they come: real mp4s, of every size and state."""

import pytest
import torch

pytest.importorskip("av", reason="clips need the extra: pip install 'labtop[video]'")

from video_recycle import clips
from video_recycle.clips import ClipError, Size, encode_all, read_cached, read_clip, write_video

SIZE = Size(9, 32, 48)


def ramp(frames, height, width):
    """Bright at the right, and brighter with every frame."""
    return torch.linspace(-0.8, 0.4, width).expand(3, 1, height, width) + torch.arange(frames).reshape(1, -1, 1, 1) / 40


def encode(pixels, caption):
    return {"x0": pixels.clone(), "length": torch.tensor(len(caption))}


@pytest.fixture
def folder(tmp_path):
    for name, frames in (("a", 12), ("b", 9), ("short", 4)):
        write_video(tmp_path / f"{name}.mp4", iter([ramp(frames, 32, 48)]))
    (tmp_path / "a.txt").write_text("a boat\n")
    whole = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "damaged.mp4").write_bytes(whole[: len(whole) // 3])
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("height", "width"), [(32, 48), (64, 64), (50, 30), (16, 200)], ids=["same", "square", "tall", "wide"]
)
def test_a_clip_of_any_shape_fills_the_frame_undistorted(height, width, tmp_path):
    write_video(tmp_path / "a.mp4", iter([ramp(6, height, width), ramp(6, height, width)]))
    pixels = read_clip(tmp_path / "a.mp4", SIZE)
    assert pixels.shape == (3, 9, 32, 48) and pixels.abs().max() <= 1
    # Cropped about the middle: what was bright in the middle is so still.
    middle = ramp(1, height, width)[:, 0, :, width // 2 - 1 : width // 2 + 1].mean()
    assert abs(pixels[:, 0, :, 23:25].mean() - middle) < 0.05


def test_frames_are_taken_at_the_wanted_rate(tmp_path):
    write_video(tmp_path / "fast.mp4", iter([ramp(40, 32, 48)]), fps=32)
    pixels = read_clip(tmp_path / "fast.mp4", SIZE, fps=16)
    steps = pixels.mean((0, 2, 3)).diff()
    assert (steps - 2 / 40).abs().max() < 0.02


def test_what_cannot_be_used_is_named_and_left_out_and_the_rest_is_encoded_once(folder):
    told, cache = [], folder / "cache"
    ready = encode_all(folder, cache, SIZE, encode, model="m", tell=told.append)
    left_out = {line.split()[2] for line in told if line.startswith("left out")}
    assert left_out == {"short.mp4", "damaged.mp4", "text.mp4", "empty.mp4"}
    assert any("short.mp4 is too short: 4 of 9 frames" in line for line in told)
    assert [int(read_cached(path)["length"]) for path in ready] == [6, 0]

    def never(pixels, caption):
        raise AssertionError("encoded again")

    assert encode_all(folder, cache, SIZE, never, model="m", tell=told.append) == ready
    # Another model's latents are others, and so are those of a clip with another caption.
    assert not set(encode_all(folder, cache, SIZE, encode, model="n", tell=told.append)) & set(ready)
    (folder / "b.txt").write_text("b")
    assert len(set(encode_all(folder, cache, SIZE, encode, model="m", tell=told.append)) & set(ready)) == 1


def test_latents_that_are_not_finite_are_never_kept(folder):
    told = []

    def broken(pixels, caption):
        return {"x0": pixels * (float("nan") if caption else 1)}

    (ready,) = encode_all(folder, folder / "cache", SIZE, broken, model="m", tell=told.append)
    assert "left out: a.mp4 has latents that are not finite" in told and read_cached(ready)["x0"].isfinite().all()
    with pytest.raises(ClipError, match="none of the 6 clips"):
        encode_all(folder, folder / "none", SIZE, lambda pixels, _: {"x0": pixels / 0}, model="m", tell=told.append)


def test_a_damaged_cache_says_which_file_to_delete(folder):
    (path, _) = encode_all(folder, folder / "cache", SIZE, encode, model="m", tell=lambda _: None)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ClipError, match=rf"{path.name} is damaged.*delete it"):
        clips.drawing([path], lambda kept: kept)(torch.Generator())


def test_a_video_that_breaks_off_leaves_no_half_file(tmp_path):
    def frames():
        yield ramp(4, 32, 48)
        raise RuntimeError("stopped")

    (tmp_path / "a.mp4").write_text("before")
    with pytest.raises(RuntimeError, match="stopped"):
        write_video(tmp_path / "a.mp4", frames())
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"] and (tmp_path / "a.mp4").read_text() == "before"


def test_a_full_disk_keeps_what_was_encoded_and_says_what_was_not(folder, full_after):
    full_after(1)
    with pytest.raises(ClipError, match=r"the latents of b.mp4 could not be kept in .*No space"):
        encode_all(folder, folder / "cache", SIZE, encode, model="m", tell=lambda _: None)
    (kept,) = (folder / "cache").iterdir()
    assert int(read_cached(kept)["length"]) == 6
