"""Training on some of the shards' clips, without copying them."""

from pathlib import Path

import pytest

from tests.train_hooks.trainings import SMALL
from train_hooks.errors import TrainError
from train_hooks.fingerprint import fingerprint
from train_hooks.recipe_files import load_recipe
from train_hooks.shard_index import read_clip_list, read_index
from train_hooks.train import train

SETTINGS = {**SMALL, "steps": "3", "sample_steps": "1"}


def listed(path: Path, *clip_ids: str) -> Path:
    path.write_text("".join(f"{clip_id}\n" for clip_id in clip_ids))
    return path


def test_only_the_listed_clips_are_trained_on_as_if_the_shards_held_no_other(
    square_rows, make_shards, tmp_path
) -> None:
    some = listed(tmp_path / "some.txt", "clip5", "clip1", "", "clip2")
    shards = make_shards(square_rows)
    chosen = train("tiny_modelscope", shards, tmp_path / "chosen", SETTINGS, lambda line: None, clips=some)
    rows = [row for row in square_rows if row["clip_id"] in ("clip1", "clip2", "clip5")]
    alone = train("tiny_modelscope", make_shards(rows), tmp_path / "alone", SETTINGS, lambda line: None)
    assert (chosen.first_loss, chosen.last_loss) == (alone.first_loss, alone.last_loss)
    assert chosen.n_clips_used == 3


def test_another_list_is_another_training(square_rows, make_shards, tmp_path) -> None:
    shards, out = make_shards(square_rows), tmp_path / "out"
    train(
        "tiny_modelscope", shards, out, SETTINGS, lambda line: None, clips=listed(tmp_path / "a.txt", "clip1", "clip2")
    )
    with pytest.raises(TrainError, match=r"holds another training \(shards.chosen: "):
        train(
            "tiny_modelscope",
            shards,
            out,
            SETTINGS,
            lambda line: None,
            clips=listed(tmp_path / "a.txt", "clip1", "clip3"),
        )


def test_the_order_of_a_list_does_not_matter_and_no_list_changes_no_fingerprint(square_rows, make_shards) -> None:
    index, recipe = read_index(make_shards(square_rows)), load_recipe("tiny_modelscope", SETTINGS)
    one, other = index.only(["clip1", "clip2"]), index.only(["clip2", "clip1", "clip1"])
    assert one == other
    assert "chosen" not in fingerprint(recipe, index, [])["shards"]


@pytest.mark.parametrize(
    ("clip_ids", "reason"),
    [(["clip1", "nobody"], "names 1 clips that are not in these shards, such as 'nobody'"), ([], "names no clip")],
)
def test_a_list_that_does_not_fit_is_one_sentence(square_rows, make_shards, tmp_path, clip_ids, reason) -> None:
    with pytest.raises(TrainError, match=reason):
        train(
            "tiny_modelscope",
            make_shards(square_rows),
            tmp_path / "out",
            SETTINGS,
            clips=listed(tmp_path / "l.txt", *clip_ids),
        )


def test_a_list_that_cannot_be_read_is_one_sentence(tmp_path) -> None:
    with pytest.raises(TrainError, match=r"the list of clips .*nowhere\.txt cannot be read: No such file"):
        read_clip_list(tmp_path / "nowhere.txt")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TrainError, match="cannot be read"):
        read_clip_list(tmp_path / "bytes")
