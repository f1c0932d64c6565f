import json
from dataclasses import replace
from importlib.metadata import version

import cv2
import numpy as np
import pytest

from curate.clip import ThumbnailError
from filters import OpenClip
from filters.models.openclip import checkpoint_in, config_of, model_picture, unit, vector_type
from filters.open_clip import GPU_FRAMES
from tests.filters import tiny_openclip

COLUMNS = ("openclip_first", "openclip_middle", "openclip_last", "openclip")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_openclip.build(tmp_path_factory.mktemp("openclip") / "tiny")


@pytest.fixture(scope="module")
def stage(tiny):
    file, _ = tiny
    made = OpenClip(model=str(file), weights=str(file.with_suffix("")), device="cpu")
    made.setup()
    return made


@pytest.fixture(scope="module")
def clips(make_clip, textured):
    views = [textured[20 * i :, 37 * i :][:360, :640] for i in range(9)]
    return [make_clip(views[i : i + 1 + i % 4], clip_id=f"c{i}") for i in range(6)]


def same(row, other):
    return all(np.array_equal(row[name], other[name]) for name in COLUMNS)


@pytest.mark.parametrize("shape", [(360, 640), (640, 360), (375, 500), (361, 333), (50, 90), (64, 64), (360, 2000)])
def test_picture_equals_open_clips_preprocessing(tiny, stage, textured, shape):
    import open_clip
    from PIL import Image

    frame = (
        np.ascontiguousarray(textured[: shape[0], : shape[1]]) if shape[1] < 1280 else np.zeros((*shape, 3), np.uint8)
    )
    net = stage._encoder.net
    transform = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(**net.visual.preprocess_cfg), is_train=False
    )
    wanted = transform(Image.fromarray(frame)).numpy()
    seen = stage._encoder.picture(frame)
    mean, std = (np.array(v, np.float32) for v in (stage._encoder.mean, stage._encoder.std))
    assert np.allclose(wanted, ((seen / np.float32(255) - mean) / std).transpose(2, 0, 1), atol=1e-6)


def test_vectors_equal_the_bare_models(tiny, stage, make_clip, textured):
    import torch

    _, net = tiny
    frames = [textured[:360, 100 * i :][:, :640] for i in range(5)]
    clip = make_clip(frames)
    (row,) = stage([clip])
    mean, std = (np.array(v, np.float32) for v in (stage._encoder.mean, stage._encoder.std))
    pixels = np.stack([(stage._encoder.picture(f) / np.float32(255) - mean) / std for f in clip.frames_THWC[[0, 2, 4]]])
    with torch.inference_mode():
        wanted = unit(net.encode_image(torch.from_numpy(pixels.transpose(0, 3, 1, 2))).numpy())
    for name, vector in zip(COLUMNS[:3], wanted, strict=True):
        assert np.allclose(row[name], vector, atol=1e-5)
    assert np.allclose(row["openclip"], unit(wanted.mean(axis=0)), atol=1e-5)


def test_columns_have_the_models_length_and_unit_norm(stage, clips):
    (row,) = stage(clips[:1])
    assert set(row) == {"clip_id", *stage.columns} == {"clip_id", *COLUMNS}
    for name, kind in stage.columns.items():
        assert row[name].shape == (kind.list_size,) == (48,)
        assert row[name].dtype == np.float32
        assert np.linalg.norm(row[name]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("model", "dim"), [("ViT-L-14", 768), ("ViT-B-32", 512), ("ViT-H-14", 1024)])
def test_named_models_are_known_without_importing_torch(model, dim):
    assert vector_type(model).list_size == dim
    assert OpenClip(model=model).columns["openclip"].list_size == dim


def test_value_depends_on_neither_order_nor_batch_to_the_bit(stage, clips):
    together = {row["clip_id"]: row for row in stage(clips)}
    alone = {row["clip_id"]: row for clip in reversed(clips) for row in stage([clip])}
    assert all(same(together[name], alone[name]) for name in alone)
    assert len({row["openclip"].tobytes() for row in alone.values()}) == len(clips)


def test_gpu_passes_of_one_size_agree_with_the_cpu(stage, clips):
    many = stage._on_gpu(stage._encoder, clips * (1 + GPU_FRAMES // 12))
    few = stage._on_gpu(stage._encoder, clips[::-1])
    assert len(many) * 2 > GPU_FRAMES
    for row in stage(clips):
        found = [other for other in (*many, *few) if other["clip_id"] == row["clip_id"]]
        assert all(np.allclose(row[name], other[name], atol=1e-5) for other in found for name in COLUMNS)


@pytest.mark.parametrize(("count", "runs"), [(1, 1), (2, 2), (3, 3), (9, 3)])
def test_frame_is_encoded_once(stage, make_clip, textured, monkeypatch, count, runs):
    seen = []
    real = stage._encoder.encode_images
    monkeypatch.setattr(stage._encoder, "encode_images", lambda pictures: seen.append(len(pictures)) or real(pictures))
    frames = [textured[:90, 20 * i :][:, :160] for i in range(count)]
    (row,) = stage([make_clip(frames)])
    assert seen == [runs]
    assert (count == 1) == np.array_equal(row["openclip_first"], row["openclip_last"])
    assert np.array_equal(row["openclip_middle"], row["openclip_last"]) == (count <= 2)


def test_black_frames_have_a_vector(stage, make_clip):
    (row,) = stage([make_clip([np.zeros((90, 160, 3), np.uint8)] * 3)])
    assert np.linalg.norm(row["openclip"]) == pytest.approx(1, abs=1e-6)


def test_nan_from_the_model_names_the_clip(stage, make_clip, monkeypatch):
    import torch

    monkeypatch.setattr(stage._encoder, "encode_images", lambda pictures: torch.full((len(pictures), 48), float("nan")))
    with pytest.raises(ValueError, match="clip bad: the model's output is zero or not finite"):
        stage([make_clip([np.zeros((90, 160, 3), np.uint8)], clip_id="bad")])


def test_broken_thumbnail_names_the_reason(stage, clips):
    broken = replace(clips[0], jpegs=(b"no picture",))
    with pytest.raises(ThumbnailError, match="cannot be decoded"):
        stage([broken])


def test_quick_gelu_comes_from_the_configuration_beside_the_weights(tiny, tmp_path, stage, clips):
    file, _ = tiny
    plain = tmp_path / "plain.json"
    plain.write_text(json.dumps({**json.loads(file.read_text()), "quick_gelu": False}))
    beside = OpenClip(model=str(plain), weights=str(file.with_suffix("")), device="cpu")
    beside.setup()
    assert same(beside(clips[:1])[0], stage(clips[:1])[0])
    bare = OpenClip(model=str(plain), weights=str(file.with_suffix("") / "open_clip_model.safetensors"), device="cpu")
    bare.setup()
    assert not same(bare(clips[:1])[0], stage(clips[:1])[0])


def test_weights_of_another_model_are_refused(tiny):
    file, _ = tiny
    with pytest.raises(ValueError, match="vectors of 48 numbers, model 'ViT-B-32' has 512"):
        OpenClip(model="ViT-B-32", weights=str(file.with_suffix("")), device="cpu").setup()


@pytest.mark.parametrize(
    ("model", "message"),
    [("ViT-L14", "no model 'ViT-L14'; did you mean ViT-L-14"), ("none.json", "does not exist")],
    ids=["misspelt", "no_file"],
)
def test_unknown_model_is_refused(model, message):
    with pytest.raises(ValueError, match=message):
        config_of(model)


def test_call_before_setup_is_refused(clips):
    with pytest.raises(RuntimeError, match="setup"):
        OpenClip()(clips)


def test_squash_changes_the_aspect_ratio():
    frame = np.zeros((100, 300, 3), np.uint8)
    frame[:, :75] = 255
    seen = model_picture(frame, 64, mode="squash")
    assert seen.shape == (64, 64, 3)
    assert cv2.cvtColor(seen, cv2.COLOR_RGB2GRAY).mean() == pytest.approx(64, abs=3)


def test_open_clip_is_a_release_that_was_checked():
    """`filters/models/openclip.py` uses undocumented names of open_clip: `visual.preprocess_cfg`, `logit_scale`, and of a CoCa `image_features`,
    `image_embs` and `image_latent`. The tests of this folder checked release 3.3."""
    found = version("open_clip_torch")
    assert found.startswith("3."), (
        f"open_clip_torch {found} is not checked; run the tests, then raise the bound in pyproject.toml"
    )


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (("b.safetensors", "a.bin"), "b.safetensors"),
        (("b.bin", "a.pth"), "a.pth"),
        (("a.safetensors", "open_clip_pytorch_model.bin"), "open_clip_pytorch_model.bin"),
        (("model.safetensors", "open_clip_model.safetensors"), "open_clip_model.safetensors"),
    ],
)
def test_checkpoint_in_a_folder_is_the_one_open_clip_would_load(tmp_path, files, chosen):
    for name in files:
        (tmp_path / name).touch()
    assert checkpoint_in(tmp_path).name == chosen


def test_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no checkpoint"):
        checkpoint_in(tmp_path)
