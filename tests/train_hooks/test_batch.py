"""What a step trains on: stills in the place of videos or behind them, a first frame, tagged frames."""

from collections import Counter
from dataclasses import replace

import fsspec
import pytest
import torch

from tests.train_hooks.test_feed import feed
from train_hooks.base import load_base
from train_hooks.batch import Batch, Encoder, shows_images
from train_hooks.conditioning import MotionBuckets, encode_text
from train_hooks.errors import TrainError
from train_hooks.net import Conditions
from train_hooks.objectives import Noised
from train_hooks.optim import update_ema
from train_hooks.recipe_files import load_recipe
from train_hooks.rng import Rng
from train_hooks.shard_index import by_tag
from train_hooks.tiny_base import build_base, save_base

SMALL = {
    "width_px": "32",
    "height_px": "32",
    "frames": "4",
    "caption_dropout": "0",
    "image_dropout": "0",
    "heldout_share": "0",
}


@pytest.mark.parametrize("world", [1, 2, 3, 4, 8])
def test_one_in_eight_rank_steps_shows_stills(world):
    seen = Counter(shows_images(step, rank, world, 1 / 8) for step in range(64) for rank in range(world))
    assert seen[True] * 8 == 64 * world
    assert not any(shows_images(step, 0, 1, 0.0) for step in range(64))
    if world == 8:
        assert {rank for step in range(64) for rank in range(8) if shows_images(step, rank, 8, 1 / 8)} == {0}


@pytest.fixture(scope="module")
def lavie(tmp_path_factory):
    recipe = load_recipe("tiny_lavie", SMALL).plan()[0]
    folder = tmp_path_factory.mktemp("base")
    save_base(build_base(recipe), folder)
    return recipe, load_base(folder, recipe)


def test_stills_follow_the_video_with_their_own_captions(lavie, make_shards, square_rows):
    recipe, base = lavie
    made = feed(make_shards(square_rows), frames=4, width_px=32, height_px=32, batch=2)
    samples, stills = made.samples(0), made.stills(0, 2)
    assert [s.clip_id for s in made.stills(0, 2)] == [s.clip_id for s in stills]
    assert [s.clip_id for s in made.stills(1, 2)] != [s.clip_id for s in stills]
    encoder = Encoder(base, MotionBuckets(()))
    batch = encoder.batch(recipe, samples, stills, Rng(0, 0, [0, 1]))
    assert batch.latents_BCFhw.shape == (2, 4, 6, 8, 8)
    assert batch.conditions.images == 2
    assert batch.conditions.text.shape == (2, 6, 77, 64)
    alone = encoder.batch(recipe, samples, [], Rng(0, 0, [0, 1]))
    assert torch.equal(batch.latents_BCFhw[:, :, :4], alone.latents_BCFhw)
    for clip in range(2):
        assert torch.equal(batch.conditions.text[clip, 3], encode_text(base, [samples[clip].caption])[0])
        for still in range(2):
            own = encode_text(base, [stills[2 * clip + still].caption])[0]
            assert (batch.conditions.text[clip, 4 + still] - own).abs().max() < 1e-6


def test_the_loss_of_stills_counts_alpha(lavie):
    recipe, _ = lavie
    nothing, one = torch.zeros(1, 1, 6, 1, 1), torch.ones(1)
    answer = torch.arange(6.0).sqrt().reshape(nothing.shape)  # squared errors 0 to 5, the last two of stills
    batch = Batch(["a"], nothing, Conditions(one, one, one, images=2))
    loss = batch.loss(replace(recipe, image_loss_weight=0.5), Noised(nothing, one, nothing, one, one), answer)
    assert loss.item() == pytest.approx(1.5 + 0.5 * 4.5)


def test_each_tagged_frame_is_a_sample_with_its_prompt(make_shards, square_rows):
    tags = [{"frame_index": 2, "prompt": "early"}, {"frame_index": 23, "prompt": "late"}]
    rows = [{**row, "tagged_frames_vlm": tags if i == 0 else []} for i, row in enumerate(square_rows[:2])]
    made = feed(make_shards(rows), tagged=True)
    assert len(made.train) == 1 + 2
    early, late, untagged = sorted(made.train, key=lambda clip: (clip.clip_id, clip.first_frame or 0))
    assert untagged.first_frame is None
    assert (early.caption, late.caption) == ("early", "late")
    assert [made.read(clip, 3).caption for clip in (early, late)] == ["early", "late"]
    plain = feed(make_shards(rows))
    assert len(plain.train) == 2
    assert by_tag(replace(early, tagged=()))[0].first_frame == 2


def test_a_sample_says_its_true_rate_and_motion(make_shards, square_rows):
    made = feed(make_shards([{**square_rows[0], "motion": 2.5}]), fps=5.0)  # 12 fps at 5: frames 0, 2, 5, 7
    sample = made.samples(0)[0]
    assert sample.fps == pytest.approx(12 * 3 / 7)
    assert sample.motion == 2.5


def test_shards_are_read_from_a_url(make_shards, square_rows):
    shards = make_shards(square_rows)
    memory = fsspec.filesystem("memory")
    for path in shards.iterdir():
        memory.pipe_file(f"/feed/{path.name}", path.read_bytes())
    near, far = feed(shards), feed("memory://feed")
    assert [s.clip_id for s in near.samples(0)] == [s.clip_id for s in far.samples(0)]
    assert torch.equal(near.samples(0)[0].video_CTHW, far.samples(0)[0].video_CTHW)
    with pytest.raises(TrainError, match=r"memory://nothing is not a shards folder"):
        feed("memory://nothing")


def test_the_average_follows_the_weights():
    net = torch.nn.Linear(1, 1, bias=False)
    ema: dict[str, torch.Tensor] = {}
    torch.nn.init.zeros_(net.weight)
    update_ema(ema, net, 0.5, 100)
    torch.nn.init.ones_(net.weight)
    seen = []
    for step in range(3):
        update_ema(ema, net, 0.5, 100 + step)
        seen.append(ema["weight"].item())
    assert seen == [0.5, 0.75, 0.875]
    update_ema(ema, net, 0.9999, 0)  # in the first step nearly all of the new
    assert ema["weight"].item() == pytest.approx(1 - 0.125 * 0.1)
    nothing: dict[str, torch.Tensor] = {}
    update_ema(nothing, net, 0.0, 0)
    assert nothing == {}


def test_random_numbers_are_a_function_of_seed_step_and_place():
    def numbers(*of):
        return Rng(of[0], of[1], [of[2]]).uniform(4)[0].tolist()

    assert numbers(1, 2, 3) == numbers(1, 2, 3)
    others = [(1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4), (1, 23, 0), (12, 3, 0)]
    assert len({tuple(numbers(*of)) for of in others}) == 6


def test_a_batch_in_pieces_has_the_same_numbers():
    whole = Rng(3, 5, range(4))
    first, second = whole.normal(2, 3), whole.uniform()
    parts = [Rng(3, 5, [0, 1]), Rng(3, 5, [2, 3])]
    assert torch.equal(first, torch.cat([part.normal(2, 3) for part in parts]))
    assert torch.equal(second, torch.cat([part.uniform() for part in parts]))
