"""The polling booth: what a voter is asked next, what was said already, and taking an answer down. Knows neither HTTP nor pages.

Order: a comparison that the voter has begun comes first; then those with the fewest votes of all voters, so that votes spread evenly; among
equals the order is drawn by lot. Lots and sides depend on the contest's key and the voter alone: a reload goes on where it was.
"""

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field

from curate.errors import UsageError
from curate.voting import votes
from curate.voting.blind import Blind, Item
from curate.voting.contest import Comparison, Contest
from curate.voting.votes import QUESTIONS, Choice, Question, Vote


@dataclass(frozen=True)
class Task:
    """One question about one comparison."""

    item: Item
    question: Question


@dataclass
class _Voter:
    """What one voter has said and where the contestants stand for this voter."""

    sides: dict[Comparison, str]
    lots: dict[Comparison, str]
    said: dict[tuple[Comparison, Question], Vote] = field(default_factory=dict)
    """Standing votes, the last one last."""
    touched: dict[Comparison, Vote] = field(default_factory=dict)
    """The last line about a comparison, even one that takes an answer back; the last one last."""


class Booth:
    """The booth of one contest. Votes that another process appends (an import, a second server) are seen at the next question."""

    def __init__(self, contest: Contest) -> None:
        self.contest, self.blind = contest, Blind(contest)
        self.path = contest.folder / votes.FILE
        self.comparisons = list(contest.comparisons())
        self._by_what = {(c.group, c.prompt, c.seed, *sorted((c.a, c.b))): c for c in self.comparisons}
        self._forget()

    def _forget(self) -> None:
        self._offset, self._voters, self._ids = 0, dict[str, _Voter](), set[str]()
        self._counts: Counter[Comparison] = Counter()

    @property
    def total(self) -> int:
        """Answers that a voter can give: two for each comparison."""
        return len(QUESTIONS) * len(self.comparisons)

    def done(self, voter: str) -> int:
        """Answers of a voter that stand."""
        return len(self._of(voter).said)

    def next(self, voter: str, skip: Set[str] = frozenset()) -> Task | None:
        """What to ask a voter now, or None when everything is answered or skipped (ids of items)."""
        self._refresh()
        of = self._of(voter)
        for c in reversed(of.touched):
            if (task := self._task(of, c)) and task.item.id not in skip:
                return task
        for c in sorted(self.comparisons, key=lambda c: (self._counts[c], of.lots[c])):
            if (task := self._task(of, c)) and task.item.id not in skip:
                return task
        return None

    def vote(self, voter: str, item_id: str, question: Question, choice: Choice, id: str) -> None:
        """Takes an answer down; one that arrives again is passed over.

        Raises UsageError for an item of another contest, RunError when it cannot be written (a full disk).
        """
        item = self.blind.items.get(item_id)
        if item is None:
            raise UsageError("this comparison is not part of the contest any more; reload the page")
        self._take(votes.new_vote(voter, item.comparison, item.left, question, choice, id))

    def undo(self, voter: str, id: str) -> None:
        """Takes back the last answer of a voter that still stands, if there is one."""
        self._refresh()
        said = self._of(voter).said
        if said and id not in self._ids:
            (c, question), last = next(reversed(said.items()))
            self._take(votes.new_vote(voter, c, last.left, question, "undone", id))

    def _take(self, vote: Vote) -> None:
        self._refresh()
        if not votes.is_id(vote.id):
            raise UsageError("an answer needs an id of plain letters and digits")
        if vote.id not in self._ids:
            votes.append(self.path, [vote])
            self._refresh()

    def _task(self, of: _Voter, c: Comparison) -> Task | None:
        for question in QUESTIONS:
            if (c, question) not in of.said:
                left = of.touched[c].left if c in of.touched else of.sides[c]  # both questions with the same sides
                return Task(self.blind.item(c, left), question)
        return None

    def _of(self, name: str) -> _Voter:
        if name not in self._voters:
            lots = {c: self.blind.digest("order", name, c.group, c.prompt, c.seed, c.a, c.b) for c in self.comparisons}
            self._voters[name] = _Voter(self.blind.balanced(self.comparisons, name), lots)
        return self._voters[name]

    def _refresh(self) -> None:
        """Reads what was appended since the last look; a file that became shorter is read anew."""
        size = self.path.stat().st_size if self.path.exists() else 0
        if size == self._offset:
            return
        if size < self._offset:
            self._forget()
        with self.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]  # a line that is being written is read when it is whole
        self._offset += len(data)
        for vote in votes.from_lines(data, self.path.name).votes:
            if vote.id not in self._ids:
                self._ids.add(vote.id)
                self._count(vote)

    def _count(self, vote: Vote) -> None:
        c = self._by_what.get(vote.what)
        if c is None:
            return  # a comparison whose videos are gone
        of = self._of(vote.voter)
        self._counts[c] -= of.said.pop((c, vote.question), None) is not None
        of.touched.pop(c, None)
        of.touched[c] = vote
        if vote.choice != "undone":
            of.said[c, vote.question] = vote
            self._counts[c] += 1
