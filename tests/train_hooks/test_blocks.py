"""Temporal layers as identities: training.md, section 6, tests 19 and 20, and what each layer's paper says."""

import pytest
import torch
from diffusers.models.attention_processor import Attention

from tests.train_hooks.unets import ALL, STYLES, image_unet, inputs, stirred, video_unet
from train_hooks.blocks import (
    FrameAttention,
    RelativePosition,
    RotaryAttention,
    ShawAttention,
    bucket_of,
    rotate,
)
from train_hooks.image_context import DualCrossAttention, ImageTokens
from train_hooks.inflate import inflate
from train_hooks.joint import Layout
from train_hooks.net import Net
from train_hooks.trainable import is_temporal
from train_hooks.video_unet import Style, VideoUNet

JOINT = ["unet3d", "videocrafter", "videocrafter v1", "lavie"]


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_rotated_products_depend_on_the_distance_alone():
    q, k = seeded(1, 1, 1, 40), seeded(1, 1, 1, 40, seed=1)
    q, k = rotate(q.expand(1, 1, 12, 40), 32), rotate(k.expand(1, 1, 12, 40), 32)
    products = (q @ k.transpose(-1, -2))[0, 0]
    for distance in range(-11, 12):
        diagonal = products.diagonal(distance)
        assert (diagonal - diagonal[0]).abs().max() < 1e-4
    assert (products[0] - products[0, 0]).abs().max() > 0.1
    assert torch.equal(q[..., 32:], q[:, :, :1, 32:].expand_as(q[..., 32:]))
    assert q.norm(dim=-1).std() < 1e-5


def test_buckets_are_exact_when_near_and_widen():
    near = bucket_of(torch.arange(-7, 8))
    assert near.tolist() == [7, 6, 5, 4, 3, 2, 1, 0, 17, 18, 19, 20, 21, 22, 23]
    far = bucket_of(torch.arange(8, 60))
    assert far.tolist() == sorted(far.tolist())
    assert (far.min(), far.max()) == (24, 31)
    assert len(far.unique()) == 8


def test_shaw_positions_are_clipped_and_count_in_keys_and_values():
    position = RelativePosition(4, longest=2)
    vectors = position(6)
    assert torch.equal(vectors[0, 5], vectors[0, 2])
    assert not torch.equal(vectors[0, 1], vectors[1, 0])
    shaw, plain = ShawAttention(8, 2, 4, longest=16), FrameAttention(8, 2, 4)
    plain.load_state_dict({key: value for key, value in shaw.state_dict().items() if "relative" not in key})
    x = seeded(2, 5, 8)
    assert (shaw(x) - plain(x)).abs().max() > 1e-3
    for table in (shaw.relative_position_k, shaw.relative_position_v):
        torch.nn.init.zeros_(table.embeddings_table)
    assert (shaw(x) - plain(x)).abs().max() < 1e-6


@pytest.mark.parametrize(
    "make", [lambda: ShawAttention(8, 2, 4, 16), lambda: RotaryAttention(8, 2, 4)], ids=["shaw", "rotary"]
)
def test_attention_with_positions_knows_the_order(make):
    """Test 20: without positions, permuting frames permutes the answer."""
    torch.manual_seed(0)
    x, order = seeded(2, 5, 8), [3, 0, 4, 1, 2]
    plain, ordered = FrameAttention(8, 2, 4), make()
    assert (plain(x[:, order]) - plain(x)[:, order]).abs().max() < 1e-6
    assert (ordered(x[:, order]) - ordered(x)[:, order]).abs().max() > 1e-4


@pytest.mark.parametrize("kind", ALL)
def test_the_whole_net_knows_the_order_once_its_temporal_layers_do_something(kind):
    """Test 20."""
    fresh, net = Net(video_unet(kind).eval()), Net(stirred(video_unet(kind)).eval())
    x, t, conditions = inputs(frames=4)
    order = [2, 0, 3, 1]
    with torch.no_grad():
        still = fresh(x[:, :, order], t, conditions) - fresh(x, t, conditions)[:, :, order]
        moved = net(x[:, :, order], t, conditions) - net(x, t, conditions)[:, :, order]
    assert still.abs().max() < 1e-5
    assert moved.abs().max() > 1e-4


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("kind", JOINT)
def test_stills_and_video_do_not_see_each_other(kind, training):
    """Test 19: the video's answer is that without stills, bit by bit; gradients across are exactly zero; stills are alone too."""
    net = Net(stirred(video_unet(kind)).train(training))
    x, t, conditions = inputs(frames=3, images=2, per_frame=True)
    x.requires_grad_(True)
    torch.manual_seed(5)
    together = net(x, t, conditions)
    alone_x, _, alone_conditions = inputs(frames=3, images=2, per_frame=True)
    torch.manual_seed(5)
    alone = net(
        alone_x[:, :, :3],
        t,
        type(alone_conditions)(alone_conditions.text[:, :3], alone_conditions.fps_B, alone_conditions.motion_bucket_B),
    )
    assert (
        together[:, :, :3] - alone
    ).abs().max() < 1e-5  # to the bit on some CPUs: sums of other batches are taken in another order
    for asked, blind in ((slice(0, 3), [3, 4]), (slice(3, 4), [0, 1, 2, 4])):
        (grad,) = torch.autograd.grad(together[:, :, asked].square().sum(), x, retain_graph=True)
        assert grad[:, :, blind].abs().max() == 0.0
        assert grad[:, :, asked].abs().max() > 0


def test_svd_stills_are_spatial_alone_where_the_indicator_says_so():
    """diffusers fixes `image_only_indicator` at zero; `ImageOnly` sets it."""
    net = Net(stirred(video_unet("svd")).eval())
    x, t, conditions = inputs(frames=1, images=2, per_frame=True)
    with torch.no_grad():
        before = net(x, t, conditions)
        for key, parameter in net.unet.named_parameters():
            if is_temporal(key) and not key.startswith("add_embedding"):
                parameter.mul_(2)
        after = net(x, t, conditions)
    assert torch.equal(after[:, :, 1:], before[:, :, 1:])
    assert (after[:, :, :1] - before[:, :, :1]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ALL)
def test_each_frame_can_have_its_own_text(kind):
    net = Net(video_unet(kind).eval())
    x, t, conditions = inputs(batch=2, frames=3, per_frame=True)
    with torch.no_grad():
        together = net(x, t, conditions)
        for i in range(3):
            own = type(conditions)(conditions.text[:, i], conditions.fps_B, conditions.motion_bucket_B)
            assert (together[:, :, i] - net(x, t, own)[:, :, i]).abs().max() < 1e-5
        assert (
            together[:, :, 1] - net(x, t, type(conditions)(conditions.text[:, 0], *[conditions.fps_B] * 2))[:, :, 1]
        ).abs().max() > 1e-3


def test_an_image_beside_the_text_changes_nothing_at_first_and_something_after():
    """VideoCrafter's image-to-video: one query, keys and values of its own for the image."""
    torch.manual_seed(0)
    attention = Attention(query_dim=16, cross_attention_dim=12, heads=2, dim_head=8)
    x, text, image = seeded(2, 6, 16), seeded(2, 77, 12), seeded(2, 4, 12)
    before = attention(x, encoder_hidden_states=text)
    dual = DualCrossAttention(16, 12, Layout())
    attention.set_processor(dual)
    assert (attention(x, encoder_hidden_states=torch.cat([text, image], 1)) - before).abs().max() < 1e-6
    torch.nn.init.normal_(dual.to_v_ip.weight)
    both = attention(x, encoder_hidden_states=torch.cat([text, image], 1))
    assert (both - before).abs().max() > 1e-2
    assert (attention(x, encoder_hidden_states=text) - before).abs().max() < 1e-6


def test_a_first_frame_becomes_tokens_that_the_videos_text_stands_beside():
    torch.manual_seed(0)
    image = image_unet()
    video = inflate(image, lambda unet: VideoUNet.like(unet, Style("videocrafter", image=20)))[0].eval()
    x, text, tokens = seeded(2, 4, 3, 8, 12), seeded(2, 8, 32), seeded(2, 5, 20)
    with torch.no_grad():
        plain = video(x, 400, text).sample
        assert (video(x, 400, text, image_tokens=tokens).sample - plain).abs().max() < 1e-5
        stirred(video)
        plain = video(x, 400, text).sample
        assert (video(x, 400, text, image_tokens=tokens).sample - plain).abs().max() > 1e-3
    projector = ImageTokens(20, 32)
    assert projector(tokens).shape == (2, 16, 32)
    assert (projector(tokens.flip(1)) - projector(tokens)).abs().max() < 1e-5  # a set, not a row


def test_more_stills_than_frames_is_refused():
    video = video_unet("lavie")
    video.layout.images = 3
    with pytest.raises(ValueError, match="3 frames, 3 of which should be stills"):
        video(torch.zeros(1, 4, 3, 8, 12), 3, torch.zeros(1, 8, 32))


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_a_clip_is_not_mixed_with_its_neighbour(style):
    net = Net(stirred(video_unet(next(k for k, v in STYLES.items() if v == style))).eval())
    assert isinstance(net.unet, VideoUNet)
    x, t, conditions = inputs(batch=2, frames=3)
    with torch.no_grad():
        both = net(x, t, conditions)
        x2 = x.clone()
        x2[1] = 0
        assert (net(x2, t, conditions)[0] - both[0]).abs().max() < 1e-5
