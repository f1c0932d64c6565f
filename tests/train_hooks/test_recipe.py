import hashlib
import json
import pickle
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

from train_hooks.errors import RecipeError
from train_hooks.fingerprint import FREE
from train_hooks.recipe import Recipe
from train_hooks.recipe_files import _ALIASES, explain, known_recipes, load_recipe

FULL = ["modelscope", "zeroscope_576w", "zeroscope_xl", "videocrafter", "lavie", "svd_t2v", "svd_i2v"]
FINGERPRINTS = {
    "lavie": "4c5e8716f973bc5c",
    "modelscope": "dedeef18fdc25f08",
    "svd_i2v": "e6d74f0394b9f7b1",
    "svd_t2v": "683e69e0d1aa63d7",
    "tiny": "44bdbe83091bdc23",
    "tiny_lavie": "b70c442fc55726c2",
    "tiny_modelscope": "284372b744e971fd",
    "tiny_svd_i2v": "1b30b31b9512d734",
    "tiny_svd_t2v": "83496b9d47a22570",
    "tiny_videocrafter": "4810e2dbb5ad84ad",
    "tiny_zeroscope_576w": "86304f83f5b08157",
    "videocrafter": "8194db6d6bdb96fa",
    "zeroscope_576w": "d43d832a69c0ce18",
    "zeroscope_xl": "b211fb03cd7319e4",
}


@pytest.mark.parametrize("name", known_recipes())
def test_every_shipped_recipe_loads_and_says_where_each_value_is_from(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    rows = {row.key: row for row in explain(name)}
    assert all(row.source for row in rows.values()), [row for row in rows.values() if not row.source]
    plain = {field.name for field in fields(Recipe)} - {"name", "stage", "stages"}
    explained = {key for key in rows if not key.startswith("stage ")}
    assert explained <= plain
    if not recipe.base:
        assert explained == plain
    again = load_recipe(name, {key: rows[key].value for key in explained})  # what is explained is what is used
    assert all(getattr(again, key) == getattr(recipe, key) for key in explained)


def test_the_recipes_of_the_five_papers_are_there():
    assert set(FULL) <= set(known_recipes())
    assert {f"tiny_{name}" for name in FULL if name != "zeroscope_xl"} <= set(known_recipes())


@pytest.mark.parametrize(
    ("name", "values"),
    [
        pytest.param("modelscope", {"inherited_grad_scale": 0.5, "image_rank_share": 0.125, "caption_dropout": 0.1}, id="ms"),
        pytest.param("zeroscope_576w", {"frames": 24, "width_px": 576, "height_px": 320, "tagged_frames": True}, id="zs"),
        pytest.param("zeroscope_xl", {"frames": 24, "width_px": 1024, "height_px": 576, "offset_noise": 0.1}, id="xl"),
        pytest.param("videocrafter", {"fps_condition": True, "signal_scale": 0.7, "lr": 5e-5}, id="vc"),
        pytest.param("lavie", {"images_per_video": 4, "frame_positions": "rotary", "beta_end": 0.02, "family": "sd1"}, id="lavie"),
        pytest.param("svd_t2v", {"prediction": "edm", "caption_dropout": 0.15, "image_condition": "none"}, id="t2v"),
        pytest.param("svd_i2v", {"image_noise_log_mean": -3.0, "image_noise_log_std": 0.5, "guidance": 2.5}, id="i2v"),
    ],
)  # fmt: skip
def test_values_that_the_papers_give(name, values):
    recipe = load_recipe(name)
    assert {key: getattr(recipe, key) for key in values} == values


def test_stages_are_those_of_the_papers():
    stages = [(s.steps, s.width_px, s.lr, s.sigma_log_mean, s.sigma_log_std) for s in load_recipe("svd_t2v").plan()]
    assert stages == [(150000, 384, 1e-4, -1.2, 1.0), (100000, 576, 1e-4, 0.0, 1.0), (50000, 1024, 3e-5, 0.5, 1.4)]
    videos, pictures = load_recipe("videocrafter").plan()
    assert (videos.trainable, videos.frames) == ("all", 16)
    assert (pictures.trainable, pictures.frames, pictures.height_px) == ("spatial", 1, 512)
    assert load_recipe("videocrafter").shown() == videos


@pytest.mark.parametrize("steps", [3, 4, 5, 7, 100, 299_999, 300_000])
def test_steps_are_shared_out_in_proportion(steps):
    plan = load_recipe("svd_t2v", {"steps": str(steps)}).plan()
    parts = [stage.steps for stage in plan]
    assert sum(parts) == steps
    assert min(parts) >= 1
    assert parts == sorted(parts, reverse=True)
    with pytest.raises(RecipeError, match="2 steps are too few for the 3 stages"):
        load_recipe("svd_t2v", {"steps": "2"})


def test_overrides_are_parsed_by_the_type_of_the_key_and_hold_in_every_stage():
    recipe = load_recipe("tiny", {"steps": "7", "lr": "1e-4", "unet_channels": "[16, 32]", "prediction": "epsilon"})
    assert (recipe.steps, recipe.lr, recipe.unet_channels, recipe.prediction) == (7, 1e-4, (16, 32), "epsilon")
    assert replace(
        recipe, **{k: getattr(load_recipe("tiny"), k) for k in ("steps", "lr", "unet_channels", "prediction")}
    ) == (load_recipe("tiny"))
    assert {stage.lr for stage in load_recipe("svd_t2v", {"lr": "1e-6"}).plan()} == {1e-6}
    assert load_recipe("tiny", {"zero_terminal_snr": "false", "base": "some/folder"}).base == "some/folder"


def test_a_recipe_of_ones_own(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "extends: tiny_lavie\nsteps: 6   # ours: short\nstages:\n  - {steps: 2}\n  - {steps: 4, lr: 1.0e-4}\n"
    )
    recipe = load_recipe(str(path))
    assert (recipe.name, [s.steps for s in recipe.plan()], recipe.plan()[1].lr) == ("mine", [2, 4], 1e-4)
    assert recipe.architecture == "lavie"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("- a", "not a recipe", id="list"),
        pytest.param("a: [", "is not YAML", id="not yaml"),
        pytest.param("extends: nope", "no recipe 'nope'", id="extends nothing"),
        pytest.param("frames: 4", "missing .*architecture", id="half"),
        pytest.param("extends: tiny\nstep: 3", "unknown key 'step'; did you mean 'steps'", id="unknown key"),
        pytest.param(
            "extends: tiny\nstages:\n  - {lr: 1}", "stage 1: expected .*steps among them", id="stage without steps"
        ),
        pytest.param("extends: tiny\nstages:\n  - {steps: 1, lrr: 1}", "stage 1: unknown key 'lrr'", id="stage's key"),
        pytest.param(
            "extends: tiny\nstages:\n  - {steps: 1}", "stages have 1 steps, and steps is 80", id="sums differ"
        ),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, text, says):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(RecipeError, match=says) as caught:
        load_recipe(str(tmp_path / "mine.yaml"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "overrides", "says"),
    [
        pytest.param("tinny", {}, r"no recipe 'tinny'; the known ones are: .*tiny", id="unknown recipe"),
        pytest.param("tiny", {"step": "4"}, r"unknown key 'step'; did you mean 'steps'\?", id="unknown key"),
        pytest.param("tiny", {"learning_rate": "1e-5"}, r"--set: unknown key 'learning_rate'; did you mean 'lr'\?", id="learning_rate"),
        pytest.param("tiny", {"batch_size": "4"}, r"unknown key 'batch_size'; did you mean 'batch'\?", id="batch_size"),
        pytest.param("tiny", {"num-steps": "4"}, r"unknown key 'num-steps'; did you mean 'steps'\?", id="num_steps"),
        pytest.param("tiny", {"unet_channels": "16,0"}, r"unet_channels must be above 0", id="zero in a list"),
        pytest.param("tiny", {"zzz": "4"}, r"unknown key 'zzz'; the keys are: architecture, ", id="nothing near"),
        pytest.param("tiny", {"steps": "many"}, r"steps must be a whole number, got 'many'", id="not a number"),
        pytest.param("tiny", {"steps": "2.5"}, r"steps must be a whole number, got '2.5'", id="not whole"),
        pytest.param("tiny", {"steps": "0"}, r"steps must be above 0", id="zero"),
        pytest.param("tiny", {"lr": "nan"}, r"lr must be above 0", id="nan"),
        pytest.param("tiny", {"prediction": "v"}, r"prediction must be one of epsilon, v_prediction", id="choice"),
        pytest.param("tiny", {"tagged_frames": "maybe"}, r"tagged_frames must be true or false", id="flag"),
        pytest.param("tiny", {"unet_channels": "a,b"}, r"unet_channels must be a list", id="list"),
        pytest.param("tiny", {"width_px": "83"}, r"width_px must be a multiple of 8", id="size"),
        pytest.param("tiny", {"head_dim": "24"}, r"multiples of head_dim, 24", id="heads"),
        pytest.param("tiny", {"caption_dropout": "1"}, r"caption_dropout must be below 1", id="share"),
        pytest.param("tiny", {"name": "x"}, r"unknown key 'name'", id="name is not a key"),
        pytest.param("tiny", {"prediction": "epsilon", "zero_terminal_snr": "true"}, "does not go with .*'epsilon'", id="snr"),
        pytest.param("tiny_svd_t2v", {"min_snr_gamma": "5"}, "does not go with prediction 'edm'", id="min snr"),
        pytest.param("tiny_svd_t2v", {"sampler": "ddim"}, "'edm' is sampled with 'euler', got 'ddim'", id="sampler"),
        pytest.param("tiny", {"image_condition": "concatenate"}, "needs architecture 'spatiotemporal'", id="image"),
        pytest.param("tiny", {"image_condition": "attention"}, "needs architecture 'videocrafter'", id="image tokens"),
        pytest.param("tiny", {"frame_positions": "rotary"}, "'rotary' and architecture 'lavie' need each other", id="rotary"),
        pytest.param("tiny_lavie", {"temporal_convs": "true"}, "architecture 'lavie' has no temporal_convs", id="lavie"),
        pytest.param("tiny_lavie", {"image_rank_share": "0.5"}, "both add stills", id="images twice"),
        pytest.param("tiny_videocrafter", {"sampler": "dpm++"}, "signal_scale needs sampler 'ddim'", id="scale"),
        pytest.param("tiny_svd_t2v", {"unet_channels": "16,32"}, "must be multiples of 32", id="groups"),
        pytest.param("modelscope", {"base": ""}, "base is empty", id="no base"),
    ],
)  # fmt: skip
def test_a_wrong_recipe_is_one_sentence(name, overrides, says):
    with pytest.raises(RecipeError, match=says) as caught:
        load_recipe(name, overrides)
    assert "\n" not in str(caught.value)


def test_a_changed_recipe_is_checked_again():
    recipe = load_recipe("tiny")
    with pytest.raises(RecipeError, match="lr must be above 0, got -1"):
        replace(recipe, lr=-1)
    assert pickle.loads(pickle.dumps(recipe)) == recipe
    with pytest.raises(TypeError, match="recipe key lrr"):
        replace(recipe, lrr=1)
    with pytest.raises(TypeError, match="recipe key frames"):
        Recipe(name="no frames")


def test_every_alias_names_a_key_and_is_none():
    keys = {field.name for field in fields(Recipe)}
    assert set(_ALIASES) <= keys
    assert not keys & {alias for aliases in _ALIASES.values() for alias in aliases}


@pytest.mark.parametrize("name", known_recipes())
def test_the_fingerprint_of_a_recipe_is_the_one_in_saved_checkpoints(name):
    """A change of a shipped recipe's values belongs into this table; a change of how recipes are read does not."""
    kept = {key: value for key, value in asdict(load_recipe(name)).items() if key not in FREE}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
    assert FINGERPRINTS.get(name) == digest[:16], (
        f'a new recipe, or changed values: put  "{name}": "{digest[:16]}"  into FINGERPRINTS'
    )
