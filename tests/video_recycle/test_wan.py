"""Wan's own classes, tiny and random: train, record, save, resume, and roll out three clips."""

import itertools

import pytest
import torch

pytest.importorskip("diffusers", reason="Wan needs the extra: pip install 'labtop[video]'")
pytest.importorskip("av", reason="Wan needs the extra: pip install 'labtop[video]'")

from video_recycle import wan
from video_recycle.train import Settings, Trainer

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path):
    from diffusers import AutoencoderKLWan, WanTransformer3DModel

    torch.manual_seed(0)
    stages = {"dim_mult": [1, 1, 1, 1], "num_res_blocks": 1, "temperal_downsample": [False, True, True]}
    AutoencoderKLWan(base_dim=3, z_dim=16, **stages).save_pretrained(tmp_path / "wan" / "vae")
    WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=36,
        out_channels=16,
        text_dim=32,
        freq_dim=256,
        ffn_dim=32,
        num_layers=2,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        image_dim=4,
        added_kv_proj_dim=24,
        rope_max_seq_len=32,
    ).save_pretrained(tmp_path / "wan" / "transformer")
    return tmp_path / "wan"


def test_wan_trains_records_resumes_and_goes_on_for_three_clips(folder, tmp_path):
    told = {"text": torch.randn(512, 32), "image": torch.randn(257, 4)}

    def trainer():
        parts = wan.load(folder, dtype=torch.float32)
        kept = {"x0": wan.encode(parts.vae, torch.rand(3, 9, 32, 48)), "padding": wan.gray(parts.vae, 9, 32, 48)}
        settings = Settings(steps=4, capacity=4, save_every=2, rate=1e-2)
        model = wan.trainable(parts.model, 2, checkpointing=False)
        return Trainer(model, lambda _: wan.batch({**kept, **told}), settings=settings, folder=tmp_path), parts

    first, _ = trainer()
    list(itertools.islice(first.run(), 2))
    again, parts = trainer()
    assert again.resume() == 2 and again.bank.shape == (16, 3, 4, 6)
    assert all(torch.equal(value, again.weights()[name]) for name, value in first.weights().items())
    list(again.run())
    assert all("lora" in name for name in again.weights())

    prompt = wan.Prompt(text=told["text"][None], image=told["image"][None])
    clips = wan.endless(parts, torch.rand(3, 1, 32, 48), [prompt] * 3, frames=9, motion_frames=1, steps=2)
    assert [tuple(clip.shape) for clip in clips] == [(3, 9, 32, 48), (3, 8, 32, 48), (3, 8, 32, 48)]


def test_missing_weights_are_one_sentence_with_the_command(tmp_path):
    with pytest.raises(wan.WanError, match=r"no Wan .*hf download Wan-AI/.* --local-dir"):
        wan.load(tmp_path)
