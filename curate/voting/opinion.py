"""What the votes of a contest say, by group and question: ratings, who is told apart, votes still needed, and how far voters agree."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from curate.voting import elo, voters, votes

WORDS = {"quality": "visual quality", "prompt": "prompt following"}
"""What voters are asked, as in SVD (appendix E)."""
LEAST = 0.005
"""Elo points by which somebody leads; less is of the random orders alone. Ours."""


def opinions(folder: Path, groups: Sequence[str]) -> list[dict[str, Any]]:
    """Plain values for every group and question that somebody answered; what is wrong with votes and voters is told in `said`."""
    found = votes.read(folder / votes.FILE)
    standing = votes.standing(found.votes)
    flags = voters.flags((vote.voter, vote.choice) for vote in standing)
    told = []
    for group in groups:
        for question, words in WORDS.items():
            own = [vote for vote in standing if (vote.group, vote.question) == (group, question)]
            if own:
                seen = {vote.voter for vote in own}
                flagged = [f"{voter}: {why}." for voter, why in flags.items() if voter in seen]
                told.append({"group": group, "question": words, **_opinion(own, [*found.troubles, *flagged])})
    return told


def _opinion(own: Sequence[votes.Vote], troubles: Sequence[str]) -> dict[str, Any]:
    """Of the votes of one group by one question."""
    games = [elo.Game(*game) for game in votes.games(own)]
    found, needed, agreed = elo.ratings(games), elo.votes_needed(games), voters.agreement(games)
    strength = {one.contestant: one.bradley_terry for one in found}
    pairs = [one for one in elo.differences(games) if one.apart]
    apart = [asdict(one) for one in pairs if not _behind(strength[one.a], strength[one.b])]
    if apart:
        said = "; ".join(f"{one['a']} is preferred to {one['b']}" for one in apart)
    else:
        leads = found[0].elo - found[1].elo > LEAST
        said = "nobody is told apart yet" + (f", {found[0].contestant} leads" if leads else "")
        said += f"; about {needed} more votes between the two leaders would" if needed else ""
    n_voters = len({game.voter for game in games})
    said = f"{len(games)} votes of {n_voters} voter{'s' if n_voters > 1 else ''}: {said}."
    if len(apart) < len(pairs):
        said += " Elo and Bradley-Terry disagree on the rest: some pairs were compared much more often than others."
    if agreed.alpha is not None:
        said += f" Where voters saw the same pair, {agreed.equal:.0%} of their answers agree (Krippendorff's alpha {agreed.alpha:.2f})."
    return {
        "ratings": [asdict(one) for one in found],
        "apart": apart,
        "needed": needed,
        "said": " ".join([said, *troubles]),
    }


def _behind(one: float | None, other: float | None) -> bool:
    """Whether Bradley-Terry, where it is known, puts the one behind the other."""
    return one is not None and other is not None and one < other
