"""Wan's own classes, tiny and random, through the command line: real mp4s, training, a full disk, resume, rollout."""

import json
import re

import pytest
import torch

pytest.importorskip("diffusers", reason="Wan needs the extra: pip install 'labtop[video]'")
pytest.importorskip("av", reason="Wan needs the extra: pip install 'labtop[video]'")

from video_recycle import clips, wan
from video_recycle.__main__ import main
from video_recycle.train import read_weights

pytestmark = pytest.mark.slow
SIZE = ["--frames", "9", "--height", "32", "--width", "48"]


def save_tiny(folder, *, second):
    """The parts of Wan 2.1, or of 2.2 with its second transformer and without an image encoder."""
    import diffusers
    import tokenizers
    import transformers

    torch.manual_seed(0)
    stages = {"dim_mult": [1, 1, 1, 1], "num_res_blocks": 1, "temperal_downsample": [False, True, True]}
    diffusers.AutoencoderKLWan(base_dim=3, z_dim=16, **stages).save_pretrained(folder / "vae")
    shape = {"patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 32}
    shape |= {"in_channels": 36, "out_channels": 16, "text_dim": 32, "num_layers": 2, "rope_max_seq_len": 32}
    if not second:
        shape |= {"image_dim": 4, "added_kv_proj_dim": 24}
    for name in ("transformer", "transformer_2")[: 1 + second]:
        diffusers.WanTransformer3DModel(**shape).save_pretrained(folder / name)
    words = tokenizers.models.WordLevel({"<pad>": 0, "<unk>": 1, "boat": 2}, unk_token="<unk>")
    plain = tokenizers.Tokenizer(words)
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", unk_token="<unk>")
    fast.save_pretrained(folder / "tokenizer")
    text = transformers.UMT5Config(vocab_size=8, d_model=32, d_kv=16, d_ff=32, num_layers=1, num_heads=2)
    transformers.UMT5EncoderModel(text).save_pretrained(folder / "text_encoder")
    if second:
        (folder / "model_index.json").write_text(json.dumps({"boundary_ratio": 0.95}))
        return
    seen = {"hidden_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    vision = transformers.CLIPVisionConfig(image_size=32, patch_size=2, **seen)
    transformers.CLIPVisionModel(vision).save_pretrained(folder / "image_encoder")
    sides = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    transformers.CLIPImageProcessor(**sides).save_pretrained(folder / "image_processor")


@pytest.fixture
def own_clips(tmp_path):
    """Two clips that can be used, the larger of another shape, and two that cannot."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for name, frames, height, width in (("a", 12, 32, 48), ("b", 12, 64, 64), ("short", 3, 32, 48)):
        clips.write_video(folder / f"{name}.mp4", iter([torch.rand(3, frames, height, width) * 2 - 1]))
    (folder / "a.txt").write_text("a boat")
    (folder / "damaged.mp4").write_bytes((folder / "a.mp4").read_bytes()[:200])
    return folder


@pytest.mark.parametrize("second", [False, True], ids=["wan21", "wan22"])
def test_a_person_trains_on_own_clips_and_lets_it_go_on(second, own_clips, tmp_path, monkeypatch, full_after, capsys):
    save_tiny(tmp_path / "wan", second=second)
    monkeypatch.chdir(tmp_path)
    train = ["train", "--clips", "clips", "--steps", "4", "--save-every", "2", "--rank", "2", "--rate", "1e-2", *SIZE]

    full_after(3)  # Two clips and step 2 fit on the disk, step 4 does not.
    assert main([*train, "--held-out", "0"]) == 1
    said = capsys.readouterr()
    assert "left out: short.mp4 is too short: 3 of 9 frames" in said.out
    assert "left out: damaged.mp4 cannot be read as a video" in said.out
    assert "2 clips to train on" in said.out and "GiB when full" in said.out
    assert "step 4 could not be saved" in said.err and "the checkpoint before is whole: tuned/last.pt" in said.err
    full_after(10**6)
    assert main([*train, "--held-out", "0"]) == 0
    said = capsys.readouterr().out
    assert "goes on from step 2" in said and "encoded" not in said

    weights = read_weights(tmp_path / "tuned/adapter.safetensors")
    assert all(".lora_" in name for name in weights) and any(value.any() for value in weights.values())
    assert second == any(name.startswith("low.") for name in weights)
    assert (tmp_path / "tuned/diffusers/transformer_2").exists() == second

    clips.read_clip(own_clips / "a.mp4", clips.Size(9, 32, 48))
    from PIL import Image

    Image.new("RGB", (60, 40), "teal").save("start.png")
    go_on = ["rollout", "--image", "start.png", "--adapter", "tuned/adapter.safetensors", "--sampling", "2", *SIZE]
    assert main([*go_on, "--clips", "3", "--prompt", "a boat", "--prompt", "no boat"]) == 0
    assert clips.read_clip(tmp_path / "rollout.mp4", clips.Size(25, 32, 48)).shape == (3, 25, 32, 48)
    assert main([*train, "--rank", "4"]) == 1
    assert "is of another model or adapter" in capsys.readouterr().err


def test_wan_22_uses_each_transformer_for_its_noise_levels(tmp_path):
    save_tiny(tmp_path, second=True)
    model = wan.load(tmp_path, dtype=torch.float32).model
    x, mask = torch.randn(1, 16, 3, 4, 6), torch.zeros(1, 1, 3, 4, 6)
    told = wan.Prompt(text=torch.randn(1, 512, 32))
    with torch.no_grad():
        before = [model(x, torch.tensor([level]), x, mask, told) for level in (0.94, 0.96)]
        for value in model.low.parameters():
            value.zero_()
        after = [model(x, torch.tensor([level]), x, mask, told) for level in (0.94, 0.96)]
    assert before[0].any() and not after[0].any() and torch.equal(before[1], after[1])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--clips", "none"], r"there are no clips \(.mp4.*in none"),
        (["train", "--clips", "."], r"no Wan image-to-video weights in wan; .*hf download Wan-AI/.* --local-dir wan"),
        (["train", "--clips", ".", "--frames", "80"], r"4n \+ 1 frames"),
        (["train", "--clips", ".", "--height", "100"], "multiples of 16"),
        (["train", "--clips", ".", "--motion-frames", "30"], "81 frames are 21 latents"),
        (["rollout", "--image", "no.png"], "cannot be read as an image"),
    ],
    ids=["no-clips", "no-weights", "frames", "height", "motion", "no-image"],
)
def test_what_cannot_be_done_is_one_sentence_that_says_why(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mp4").touch()
    assert main(words) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert re.search(said, lines[0]), lines[0]
