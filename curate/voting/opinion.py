"""Summary of the votes of a contest by group and question: ratings, significant differences, votes still needed, agreement of voters."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from curate.voting import elo, voters, votes

WORDS = {"quality": "visual quality", "prompt": "prompt following"}
"""The questions to voters, as in SVD (appendix E)."""
LEAST = 0.005
"""Minimum lead in Elo points; a smaller one comes from the random orders. Our choice."""


def opinions(folder: Path, groups: Sequence[str]) -> list[dict[str, Any]]:
    """Plain values for each group and question with votes. `summary` is a text that also names problems with votes and voters."""
    found = votes.read(folder / votes.FILE)
    standing = votes.standing(found.votes)
    flags = voters.flags((vote.voter, vote.choice) for vote in standing)
    summaries = []
    for group in groups:
        for question, words in WORDS.items():
            own = [vote for vote in standing if (vote.group, vote.question) == (group, question)]
            if own:
                seen = {vote.voter for vote in own}
                flagged = [f"{voter}: {why}." for voter, why in flags.items() if voter in seen]
                summaries.append({"group": group, "question": words, **_opinion(own, [*found.troubles, *flagged])})
    return summaries


def _opinion(own: Sequence[votes.Vote], troubles: Sequence[str]) -> dict[str, Any]:
    """The summary of the votes of one group on one question."""
    games = [elo.Game(*game) for game in votes.games(own)]
    found, needed, agreed = elo.ratings(games), elo.votes_needed(games), voters.agreement(games)
    strength = {one.contestant: one.bradley_terry for one in found}
    pairs = [one for one in elo.differences(games) if one.apart]
    apart = [asdict(one) for one in pairs if not _behind(strength[one.a], strength[one.b])]
    if apart:
        outcome = "; ".join(f"{one['a']} is preferred to {one['b']}" for one in apart)
    else:
        leads = found[0].elo - found[1].elo > LEAST
        outcome = "no significant difference yet" + (f", {found[0].contestant} leads" if leads else "")
        outcome += f"; about {needed} more votes between the two leaders would show one" if needed else ""
    n_voters = len({game.voter for game in games})
    summary = f"{len(games)} votes of {n_voters} voter{'s' if n_voters > 1 else ''}: {outcome}."
    if len(apart) < len(pairs):
        summary += " Elo and Bradley-Terry disagree on other pairs, because some pairs were compared much more often than others."
    if agreed.alpha is not None:
        summary += f" When voters saw the same pair, {agreed.equal:.0%} of their answers agree (Krippendorff's alpha {agreed.alpha:.2f})."
    return {
        "ratings": [asdict(one) for one in found],
        "apart": apart,
        "needed": needed,
        "summary": " ".join([summary, *troubles]),
    }


def _behind(one: float | None, other: float | None) -> bool:
    """Whether one has the lower Bradley-Terry strength, if both are known."""
    return one is not None and other is not None and one < other
