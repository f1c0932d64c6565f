"""The contest of an ablation: RUN/ablate/NAME/contest.json, written by `rushes ablate` and read by `rushes vote`.

{"version": 1, "name": "NAME", "prompts": ["a red ball", ...],
 "groups": [{"name": "motion", "contestants": ["all", "motion-25", ...]}, ...],
 "videos": {"all": [["samples/all-s0/00.mp4", ...], ...], "motion-25": [...]}}

A contestant has a list for each training seed, with a path for each prompt, relative to the folder. A comparison shows two contestants of one
group on one prompt and one training seed. There is no comparison when one of the two videos is missing (a training failed).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from curate.errors import RunError, UsageError, nearest, printable
from curate.tables import store

FILE = "contest.json"
VERSION = 1


@dataclass(frozen=True)
class Group:
    """Contestants to compare with each other, such as the levels of one axis."""

    name: str
    contestants: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Two contestants of a group on one prompt (its number) and one training seed (its number); `a` comes before `b` in the group."""

    group: str
    prompt: int
    seed: int
    a: str
    b: str


@dataclass(frozen=True)
class Contest:
    """The contest in `folder`."""

    folder: Path
    name: str
    prompts: tuple[str, ...]
    groups: tuple[Group, ...]
    videos: dict[str, tuple[tuple[str | None, ...], ...]]
    """For each contestant, training seed and prompt: a path relative to the folder, or None."""

    def video(self, contestant: str, seed: int, prompt: int) -> Path | None:
        """The path of a video, or None when it is missing or a link leads out of the folder."""
        seeds = self.videos.get(contestant, ())
        names = seeds[seed] if seed < len(seeds) else ()
        name = names[prompt] if prompt < len(names) else None
        found = None if name is None else self.folder / name
        if found is None or not found.is_file() or not found.resolve().is_relative_to(self.folder.resolve()):
            return None
        return found

    def comparisons(self, missing: bool = False) -> Iterator[Comparison]:
        """All comparisons with two existing videos, group by group; with `missing`, the others too."""
        for group in self.groups:
            existing = {
                (name, seed, prompt)
                for name in group.contestants
                for seed in range(len(self.videos.get(name, ())))
                for prompt in range(len(self.prompts))
                if missing or self.video(name, seed, prompt)
            }
            for a, b in combinations(group.contestants, 2):
                for _, seed, prompt in sorted(one for one in existing if one[0] == a):
                    if (b, seed, prompt) in existing:
                        yield Comparison(group.name, prompt, seed, a, b)


def find(run: str, name: str | None = None) -> Path:
    """The folder of an ablation of a run: the one called `name`, or the one with the newest contest.

    Raises UsageError when it does not exist, or for a run on object storage, which cannot append votes to a file.
    """
    if not store.is_local(run):
        raise UsageError(
            f"{run} is on object storage, which cannot append votes to a file; copy its ablate/ to a disk and vote there"
        )
    root = store.local_path(run) / "ablate"
    if not root.parent.is_dir():
        raise UsageError(
            f"there is no folder '{run}'; make a run directory with  rushes run  and an ablation of it with  rushes ablate"
        )
    found = names(run)
    if not found:
        raise UsageError(f"{run} has no ablation yet; make one with  rushes ablate {run}")
    if name is not None and name not in found:
        raise UsageError(f"{run} has no ablation '{name}'{nearest(name, found)}")
    return root / (name or found[-1])


def names(run: str) -> list[str]:
    """The names of the ablations of a run on a disk, the one with the newest contest last."""
    found = [path for path in (store.local_path(run) / "ablate").glob(f"*/{FILE}") if path.parent.name[0] != "."]
    return [path.parent.name for path in sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.parent.name))]


def read(folder: Path) -> Contest:
    """Reads the contest of an ablation's folder. Raises RunError for a file that `rushes ablate` did not write."""
    path = folder / FILE
    content = store.get_json(str(path))
    if content is None:
        raise UsageError(f"{folder} has no {FILE}; make it with  rushes ablate")
    if isinstance(content, dict) and isinstance(content.get("version"), int) and content["version"] > VERSION:
        raise RunError(
            f"{path} has version {content['version']}, from a newer rushes (this one reads up to {VERSION}); install the newer rushes"
        )
    try:
        return _contest(folder, content)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else printable(error)
        raise RunError(f"{path} was not written by rushes ablate ({reason}); restore it from a copy") from error


def _contest(folder: Path, content: dict[str, Any]) -> Contest:
    prompts = tuple(_text(prompt, "a prompt") for prompt in content["prompts"])
    groups = tuple(
        Group(_text(group["name"], "a group"), tuple(_text(name, "a contestant") for name in group["contestants"]))
        for group in content["groups"]
    )
    videos = {
        name: tuple(tuple(None if path is None else _inside(path) for path in paths) for paths in seeds)
        for name, seeds in content["videos"].items()
    }
    names = [group.name for group in groups]
    if len(set(names)) < len(names) or any(len(set(group.contestants)) < len(group.contestants) for group in groups):
        raise ValueError("a group or a contestant appears twice")
    if any(len(paths) > len(prompts) for seeds in videos.values() for paths in seeds):
        raise ValueError("a contestant has more videos than there are prompts")
    return Contest(folder, _text(content["name"], "the name"), prompts, groups, videos)


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} is not text: {value!r:.80}")
    return value


def _inside(path: Any) -> str:
    """The path, checked to stay inside the folder, because a run directory may be untrusted."""
    if "\x00" in _text(path, "a video") or Path(path).is_absolute() or ".." in Path(path).parts:
        raise ValueError(f"a video is outside of the folder: {path!r:.80}")
    return str(path)
