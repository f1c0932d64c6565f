"""The voting page and its videos in one folder, for a disk or any file server. The browser stores the votes, and the voter downloads them.

FOLDER/
    index.html, *.js, style.css      the page (curate/voting/page/)
    packed.js                        the comparisons: ids, prompts, names of videos
    videos/<digits>.mp4              each video once, under a name derived from the contest's key

The folder does not contain the key, so it does not reveal the contestant of a video. A voter with the run directory can compare the files, and
the file names show when two comparisons have the same video.
"""

import json
import shutil
from pathlib import Path

from curate.errors import RunError, UsageError
from curate.tables import store
from curate.voting.booth import Booth
from curate.voting.page_files import PAGE, page_file

PACKED = "packed.js"


def pack(booth: Booth, folder: Path) -> int:
    """Writes the folder and returns its size in bytes. An earlier packed folder is overwritten.

    Raises UsageError for a folder with other contents, RunError for one that cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / PACKED).is_file())):
        raise UsageError(f"'{folder}' exists and is not a packed contest; give a new or an empty folder")
    contest, blind = booth.contest, booth.blind
    found: dict[str, Path] = {}

    def video(contestant: str, seed: int, prompt: int) -> str:
        path = contest.video(contestant, seed, prompt)
        if path is None:
            raise RunError(f"a video of prompt {prompt} was removed while packing; repeat the command")
        name = f"videos/{blind.file(contestant, seed, prompt)}{path.suffix.lower()}"
        found[name] = path
        return name

    items = []
    for c, left in blind.balanced(booth.comparisons, "packed").items():
        item, turned = blind.item(c, left), blind.item(c, c.b if left == c.a else c.a)
        items.append(
            {
                "id": item.id,
                "turned": turned.id,
                "prompt": c.prompt,
                "left": video(item.left, c.seed, c.prompt),
                "right": video(item.right, c.seed, c.prompt),
            }
        )
    items.sort(key=lambda item: str(item["id"]))  # so that the order reveals nothing
    packed = {"contest": blind.digest("packed"), "prompts": contest.prompts, "items": items}
    store.put(str(folder / PACKED), f'"use strict";\nconst packed = {json.dumps(packed)};\n'.encode())
    try:
        shutil.rmtree(folder / "videos", ignore_errors=True)
        (folder / "videos").mkdir(parents=True)
        for name in sorted(found):
            shutil.copyfile(found[name], folder / name)  # without the file's date
    except OSError as error:
        raise RunError(f"'{folder}' could not be written: {error.strerror or error}") from error
    for name in sorted(PAGE, reverse=True):
        store.put(str(folder / name), page_file(name))
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
