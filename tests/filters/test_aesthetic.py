from dataclasses import replace

import numpy as np
import pytest

from curate.clip import Clip
from filters import Aesthetic, OpenClip
from filters.aesthetic import as_one_layer
from tests.filters import tiny_openclip

SAC = (1.66, 2.36, 3.07, 3.67, 4.24, 4.70, 5.07, 5.37, 5.58, 5.75)
HEADS = {"sac_logos_ava1_l14_linearMSE": "l_14", "sa_0_4_vit_l_14_linear": "l_14", "sa_0_4_vit_b_32_linear": "b_32"}


def with_vectors(first, middle, last, clip_id="c"):
    vectors = {"openclip_first": first, "openclip_middle": middle, "openclip_last": last}
    return Clip(clip_id, "s", 0.0, 1.0, 24.0, 24, 640, 360, (), (), vectors)


@pytest.fixture(scope="module")
def heads(shared_dir):
    return shared_dir / "assets" / "laion_heads"


@pytest.fixture(scope="module")
def scores(heads):
    def of(head):
        stage = Aesthetic(weights=str(heads / f"{head}.pth"))
        stage.setup()
        vectors = [np.load(heads / f"vit_{HEADS[head]}_rating{i}.npy")[0] for i in range(10)]
        rows = stage([with_vectors(v, v, v, f"c{i}") for i, v in enumerate(vectors)])
        assert all(row["aesthetic"] == pytest.approx(row["aesthetic_first"]) for row in rows)
        return [row["aesthetic_middle"] for row in rows]

    return of


def test_sac_head_gives_the_published_values(scores):
    assert scores("sac_logos_ava1_l14_linearMSE") == pytest.approx(SAC, abs=1e-2)


@pytest.mark.parametrize(
    ("head", "lowest", "highest"),
    [("sa_0_4_vit_l_14_linear", -2.46, 11.30), ("sa_0_4_vit_b_32_linear", -1.47, 11.01)],
)
def test_linear_heads_give_the_published_ends_and_order(scores, head, lowest, highest):
    found = scores(head)
    assert (found[0], found[-1]) == pytest.approx((lowest, highest), abs=1e-2)
    assert found == sorted(found)


def test_multiplied_layers_equal_the_five_layers(heads):
    import torch

    state = torch.load(heads / "sac_logos_ava1_l14_linearMSE.pth", map_location="cpu", weights_only=True)
    vector, number = as_one_layer({name: tensor.numpy() for name, tensor in state.items()})
    x = torch.nn.functional.normalize(torch.randn(50, 768, generator=torch.manual_seed(0)), dim=1)
    y = x
    for layer in (0, 2, 4, 6, 7):
        y = torch.nn.functional.linear(y, state[f"layers.{layer}.weight"], state[f"layers.{layer}.bias"])
    assert np.allclose(x.numpy() @ vector + number, y[:, 0].numpy(), atol=1e-4)


def test_safetensors_and_a_folder_load_the_same(heads, tmp_path):
    import torch
    from safetensors.torch import save_file

    state = torch.load(heads / "sac_logos_ava1_l14_linearMSE.pth", map_location="cpu", weights_only=True)
    save_file(state, tmp_path / "model.safetensors")
    vector = np.load(heads / "vit_l_14_rating4.npy")[0]
    found = []
    for weights in (heads / "sac_logos_ava1_l14_linearMSE.pth", tmp_path / "model.safetensors", tmp_path):
        stage = Aesthetic(weights=str(weights))
        stage.setup()
        found.append(stage.score(vector))
    assert found[0] == found[1] == found[2] == pytest.approx(4.24, abs=1e-2)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "holds nothing"),
        ({"layers.0.weight": np.ones((4, 8)), "layers.3.weight": np.ones((1, 4))}, "linear heads: it holds layers.0"),
        ({"weight": np.ones((2, 8)), "bias": np.ones(2)}, "has one output; this one has 2"),
    ],
    ids=["empty", "layers_of_a_head_with_activations", "two_numbers"],
)
def test_another_head_is_refused(state, message):
    with pytest.raises(ValueError, match=message):
        as_one_layer(state)


def test_missing_vectors_and_vectors_of_another_model_are_refused(heads):
    stage = Aesthetic(weights=str(heads / "sac_logos_ava1_l14_linearMSE.pth"))
    stage.setup()
    with pytest.raises(ValueError, match="vectors of 768 numbers, OpenClip stored 512"):
        stage([with_vectors(*[np.ones(512, np.float32)] * 3)])
    with pytest.raises(ValueError, match="clip bad has no openclip_first"):
        stage([with_vectors(None, None, None, "bad")])


def test_whole_path_through_a_small_model(heads, make_clip, textured, tmp_path):
    """Pictures to OpenClip to the head: the same value in any batch, to the bit."""
    file, _ = tiny_openclip.build(tmp_path / "wide", {**tiny_openclip.TINY, "embed_dim": 512})
    encoder = OpenClip(model=str(file), weights=str(file.with_suffix("")), device="cpu")
    encoder.setup()
    head = Aesthetic(weights=str(heads / "sa_0_4_vit_b_16_linear.pth"))
    head.setup()
    clips = [make_clip([textured[40 * i :, 30 * j :][:180, :320] for j in range(3)], clip_id=f"c{i}") for i in range(4)]

    def run(batch):
        rows = encoder(batch)
        return head([replace(clip, columns=row) for clip, row in zip(batch, rows, strict=True)])

    together = {row["clip_id"]: row for row in run(clips)}
    assert together == {row["clip_id"]: row for clip in reversed(clips) for row in run([clip])}
    assert len({row["aesthetic"] for row in together.values()}) == 4
    assert all(set(row) == {"clip_id", *Aesthetic.columns} for row in together.values())
