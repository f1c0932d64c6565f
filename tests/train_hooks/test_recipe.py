from dataclasses import replace

import pytest

from train_hooks.errors import RecipeError
from train_hooks.recipe import known_recipes, load_recipe


def test_every_shipped_recipe_loads():
    assert "tiny" in known_recipes()
    for name in known_recipes():
        assert load_recipe(name).name == name


def test_overrides_are_parsed_by_the_type_of_the_key():
    recipe = load_recipe("tiny", {"steps": "7", "lr": "1e-4", "unet_channels": "[16, 32]", "prediction": "epsilon"})
    assert (recipe.steps, recipe.lr, recipe.unet_channels, recipe.prediction) == (7, 1e-4, (16, 32), "epsilon")
    assert replace(
        recipe, **{k: getattr(load_recipe("tiny"), k) for k in ("steps", "lr", "unet_channels", "prediction")}
    ) == (load_recipe("tiny"))


@pytest.mark.parametrize(
    ("name", "overrides", "says"),
    [
        pytest.param("tinny", {}, r"no recipe 'tinny'; the known ones are: .*tiny", id="unknown recipe"),
        pytest.param("tiny", {"step": "4"}, r"unknown key 'step'; did you mean 'steps'\?", id="unknown key"),
        pytest.param("tiny", {"zzz": "4"}, r"unknown key 'zzz'; the keys are: batch, ", id="nothing near"),
        pytest.param("tiny", {"steps": "many"}, r"steps must be a whole number, got 'many'", id="not a number"),
        pytest.param("tiny", {"steps": "2.5"}, r"steps must be a whole number, got '2.5'", id="not whole"),
        pytest.param("tiny", {"steps": "0"}, r"steps must be above 0", id="zero"),
        pytest.param("tiny", {"lr": "nan"}, r"lr must be above 0", id="nan"),
        pytest.param("tiny", {"prediction": "v"}, r"prediction must be one of epsilon, v_prediction", id="choice"),
        pytest.param("tiny", {"unet_channels": "a,b"}, r"unet_channels must be a list", id="list"),
        pytest.param("tiny", {"width_px": "83"}, r"width_px must be a multiple of 8", id="size"),
        pytest.param("tiny", {"head_dim": "24"}, r"multiples of head_dim, 24", id="heads"),
        pytest.param("tiny", {"caption_dropout": "1"}, r"caption_dropout must be below 1", id="share"),
        pytest.param("tiny", {"name": "x"}, r"unknown key 'name'", id="name is not a key"),
    ],
)
def test_a_wrong_recipe_is_one_sentence(name, overrides, says):
    with pytest.raises(RecipeError, match=says) as caught:
        load_recipe(name, overrides)
    assert "\n" not in str(caught.value)
