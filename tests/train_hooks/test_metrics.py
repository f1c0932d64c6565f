"""What a training tells of itself."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.train_hooks.evaluators import write_features, write_tiny_clip
from tests.train_hooks.trainings import SMALL, run
from tests.train_hooks.unets import ALL, inputs, stirred, video_unet
from tests.train_hooks.worlds import write_shards
from train_hooks import plan as plans
from train_hooks.errors import TrainError
from train_hooks.evaluate import ClipSim, Fvd, colour_drift, frechet_distance
from train_hooks.flops import Saved, counted
from train_hooks.heldout import temporal_share
from train_hooks.metrics import COLUMNS, Metrics, level_means
from train_hooks.net import Net
from train_hooks.plan import plan, preflight, trials
from train_hooks.prepare import prepare
from train_hooks.recipe_files import load_recipe
from train_hooks.train import train


def test_every_step_has_its_row(square_rows, tmp_path):
    shards = write_shards(tmp_path / "shards", square_rows)
    settings = {
        **SMALL, "steps": "6", "log_every": "3", "heldout_every": "3", "heldout_share": "0.2", "sample_every": "3",
        "sample_steps": "1", "sample_prompts": "one, two", "vae_fit_steps": "0",
    }  # fmt: skip
    result = train("tiny_modelscope", shards, tmp_path / "out", settings, lambda line: None)
    import pandas as pd

    table = pd.read_parquet(result.out / "metrics.parquet")
    assert table["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert table["loss"].notna().all()
    assert table["lr"].notna().all()
    assert table["samples_per_s"].notna().tolist() == [False, False, True] * 2
    third = table.iloc[2]
    assert third["epoch"] == pytest.approx(3 * 2 / 7)
    assert 0 <= third["wait_share"] <= 1
    assert third["norm_spatial"] > 0
    assert third["norm_temporal"] > 0
    assert third["memory_gb"] > 0.1
    assert 0 < third["temporal_share"] < 1
    assert table["heldout_loss"].iloc[5] == pytest.approx(result.last_loss)
    assert 0 <= third["colour_drift"] <= 1
    assert math.isnan(third["clipsim"])
    losses = [third[f"loss_{i}"] for i in range(4)]
    assert any(not math.isnan(loss) for loss in losses)
    assert sorted(p.name for p in (result.out / "samples").iterdir()) == [
        "step-00000003.mp4", "step-00000003.png", "step-00000006.mp4", "step-00000006.png",
    ]  # fmt: skip
    assert list((result.out / "tensorboard").glob("events*"))


def test_metrics_resume_at_a_checkpoint():
    from train_hooks.metrics import as_parquet

    one, two = Metrics(), Metrics()
    for metrics in (one, two):
        metrics.step("a", 1.5, 0.1)
        metrics.log(1, {"epoch": 0.5, "mfu": None})
    again = Metrics()
    again.restore(as_parquet(one.table()))
    for metrics in (again, two):
        metrics.step("b", None, 0.2)
    assert again.table() == two.table()
    assert again.losses == [1.5, None]
    assert set(again.table().column_names) == {"step", "stage", "loss", *COLUMNS}


def test_losses_by_noise_level():
    assert level_means([0.1, 0.2, 0.99, 1.0], [1.0, 3.0, 5.0, 7.0]) == {"loss_0": 2.0, "loss_3": 6.0}


@pytest.mark.parametrize("kind", ALL)
def test_temporal_layers_have_no_share_at_first_and_one_when_stirred(kind):
    for unet, least, most in ((video_unet(kind), 0.0, 1e-6), (stirred(video_unet(kind)), 1e-3, 5.0)):
        net = Net(unet.eval())
        x, t, conditions = inputs(frames=4)
        with torch.no_grad(), temporal_share(unet) as shares:
            net(x, t, conditions)
        assert len(shares) > 1
        mean = sum(shares) / len(shares)
        assert least <= mean <= most, (kind, mean)
        with torch.no_grad():
            net(x, t, conditions)  # the hooks are gone
        assert sum(shares) / len(shares) == mean


def test_what_is_kept_for_the_way_back_and_what_is_computed():
    layer = torch.nn.Linear(10, 20)
    x = torch.randn(5, 10)
    with Saved(layer.parameters()) as kept:
        flops = counted(lambda: torch.tanh(layer(x)).sum().backward())
    assert flops == 2 * 5 * 10 * 20 * 2  # forward, and the weight's gradient; the input needs none
    assert kept.bytes == 5 * 20 * 4 + 5 * 10 * 4  # tanh's answer and the input, not the weights
    assert FlopCounterMode is not None


def test_the_plan_is_printed_before_anything_starts(square_rows, tmp_path):
    rows = [{**row, "n_frames": 24 if i else 2} for i, row in enumerate(square_rows)]
    shards = write_shards(tmp_path / "shards", rows)
    lines: list[str] = []
    plan("tiny_modelscope", shards, {**SMALL, "steps": "2", "buckets": "32x32x3"}, lines.append)
    text = "\n".join(lines)
    assert "2 steps of 2 clips, 3.5 steps an epoch, 0.571 epochs" in text
    assert "clips: 4 used, 0 held out, 1 left out, 3 not reached" in text
    assert "1 left out, as here: too short: 2 frames at 12 fps, and 3 at 4 fps need 7" in text
    assert "weights, gradients and optimizer: 0.0" in text
    assert [line.split(":")[0] for line in lines if line.startswith("bucket ")] == ["bucket 32x32x3"]
    assert not (tmp_path / "out").exists()


def test_the_plan_counts_what_training_does(square_rows, tmp_path):
    """Checkpointing makes the activations less, stills make them more, and nothing is left behind."""
    shards = write_shards(tmp_path / "shards", square_rows)
    small = {
        "frames": "3",
        "width_px": "32",
        "height_px": "32",
        "vae_fit_steps": "0",
        "threads": "1",
        "heldout_share": "0",
    }

    def trial(**changes):
        made = prepare(load_recipe("tiny_lavie", small | changes), shards, None, None, lambda line: None)
        (found,) = trials(made, made.plan[0], made.feeds[0])
        assert all(weight.grad is None for weight in made.net.unet.parameters())
        return found

    plain, again, videos = trial(), trial(checkpointing="blocks"), trial(images_per_video="0")
    assert again.activations_bytes < 0.7 * plain.activations_bytes
    assert videos.activations_bytes < 0.7 * plain.activations_bytes
    assert videos.tflop_per_clip < 0.7 * plain.tflop_per_clip


def test_memory_that_runs_out_before_the_first_step_leaves_no_gradient(square_rows, tmp_path, monkeypatch):
    made = prepare(
        load_recipe("tiny_modelscope", {**SMALL, "vae_fit_steps": "0"}),
        write_shards(tmp_path / "shards", square_rows), None, None, lambda line: None,
    )  # fmt: skip
    real = plans.backward

    def backward(*args):
        real(*args)
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(plans, "backward", backward)
    lines: list[str] = []
    assert preflight(made, lines.append) == {}
    assert lines == ["memory runs out on 2 clips at once; training will use smaller micro-batches"]
    assert all(weight.grad is None for weight in made.net.unet.parameters())


def test_frechet_distance_of_known_distributions():
    """Between N(0, 1) and N(3, 4) in one dimension: 9 + 1 + 4 - 2 * 2 = 10; and 0 of a set to itself."""
    rng = torch.Generator().manual_seed(0)
    a = torch.randn(200_000, 1, generator=rng)
    assert frechet_distance(a, 3 + 2 * torch.randn(200_000, 1, generator=rng)) == pytest.approx(10.0, abs=0.1)
    b = torch.randn(500, 6, generator=rng)
    assert abs(frechet_distance(b, b)) < 1e-6


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_fvd_on_a_torchscript_and_clipsim_on_a_folder(tmp_path):
    write_features(tmp_path / "i3d.pt")
    fvd = Fvd(str(tmp_path / "i3d.pt"))
    videos = [torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(6)]
    assert abs(fvd(videos, videos)) < 1e-6
    assert fvd([video * 0.5 for video in videos], videos) == pytest.approx(3 * 0.25**2, rel=0.1)
    assert fvd(videos[:1], videos) is None
    with pytest.raises(TrainError, match="there is no file"):
        Fvd(str(tmp_path / "nothing.pt"))
    (tmp_path / "text.pt").write_text("x")
    with pytest.raises(TrainError, match="is no TorchScript"):
        Fvd(str(tmp_path / "text.pt"))
    with pytest.raises(TrainError, match=r"clip_weights: .* cannot be read"):
        ClipSim(str(tmp_path))


def test_clipsim_is_the_cosine_of_clip(tmp_path):
    write_tiny_clip(tmp_path)
    measure = ClipSim(str(tmp_path))
    videos = [torch.rand(3, 3, 16, 16), torch.rand(3, 3, 16, 16)]
    both = measure(videos, ["a cat", "a dog"])
    alone = [measure([video], [prompt]) for video, prompt in zip(videos, ["a cat", "a dog"], strict=True)]
    assert both == pytest.approx(sum(alone) / 2)
    assert all(-1 <= score <= 1 for score in alone)


def test_colours_that_drift():
    grey = torch.full((2, 3, 4, 4), 0.5)
    red = grey.clone()
    red[:, 0] = 0.8
    assert colour_drift([red], grey.mean(dim=(0, 2, 3))) == pytest.approx(0.3)
    assert colour_drift([grey, grey], grey.mean(dim=(0, 2, 3))) == 0


def test_an_image_folder_gives_the_stills(square_rows, tmp_path):
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    from train_hooks.image_folder import ImageFolder
    from train_hooks.size import Size

    def png(colour):
        buffer = io.BytesIO()
        Image.new("RGB", (40, 30), colour).save(buffer, format="png")
        return buffer.getvalue()

    (tmp_path / "images").mkdir()
    pictures = [{"bytes": png((250, 0, 0))}, {"bytes": b"no"}, {"bytes": png((0, 0, 250))}]
    pq.write_table(pa.table({"image": pictures, "text": ["red", "broken", "blue"]}), tmp_path / "images" / "a.parquet")
    folder = ImageFolder(str(tmp_path / "images"))
    assert len(folder) == 3
    name, caption, pixels = folder.picture(0, Size(16, 16, 3))
    assert (name, caption, tuple(pixels.shape)) == ("a.parquet:0:0", "red", (3, 1, 16, 16))
    assert folder.picture(1, Size(16, 16, 3))[1] == "blue"  # the next one
    shards = write_shards(tmp_path / "shards", square_rows)
    settings = {
        "frames": "3",
        "width_px": "16",
        "height_px": "16",
        "vae_fit_steps": "0",
        "threads": "1",
        "heldout_share": "0",
    }
    recipe = load_recipe("tiny_lavie", {**settings, "steps": "2", "image_folder": str(tmp_path / "images")})
    done = run(recipe, shards, tmp_path / "out")
    loaded = done.training.feeds[0].load(done.training.feeds[0].chunk(0, [0], n_stills=2))
    assert {still.caption for still in loaded.stills} <= {"red", "blue"}
    with pytest.raises(TrainError, match="holds no Parquet files"):
        ImageFolder(str(tmp_path / "nothing"))
    pq.write_table(pa.table({"x": [1]}), tmp_path / "images" / "b.parquet")
    with pytest.raises(TrainError, match="has no columns 'image' and 'caption'"):
        ImageFolder(str(tmp_path / "images"))
