"""The booth: the next question for a voter, the answers given, and recording an answer. It is independent of HTTP and pages.

Order: first a comparison that the voter has started; then the comparisons with the lowest number of votes of all voters, so that votes spread
evenly; ties are in random order. Order and sides depend only on the contest's key and the voter, so a reload resumes at the same place.
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
    """The answers of one voter, and the sides and order of the comparisons for this voter."""

    sides: dict[Comparison, str]
    order: dict[Comparison, str]
    answers: dict[tuple[Comparison, Question], Vote] = field(default_factory=dict)
    """Valid votes, the newest last."""
    touched: dict[Comparison, Vote] = field(default_factory=dict)
    """The newest line on each comparison, including undone ones; the newest last."""


class Booth:
    """The booth of one contest. It reads votes that another process appends (an import, a second server) at the next question."""

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
        """Number of answers that a voter can give: two for each comparison."""
        return len(QUESTIONS) * len(self.comparisons)

    def done(self, voter: str) -> int:
        """Number of valid answers of a voter."""
        return len(self._of(voter).answers)

    def next(self, voter: str, skip: Set[str] = frozenset()) -> Task | None:
        """The next task for a voter, or None when all are answered or skipped. `skip` has ids of items."""
        self._refresh()
        of = self._of(voter)
        for c in reversed(of.touched):
            if (task := self._task(of, c)) and task.item.id not in skip:
                return task
        for c in sorted(self.comparisons, key=lambda c: (self._counts[c], of.order[c])):
            if (task := self._task(of, c)) and task.item.id not in skip:
                return task
        return None

    def vote(self, voter: str, item_id: str, question: Question, choice: Choice, id: str) -> None:
        """Records an answer. An id that was recorded before is ignored.

        Raises UsageError for an item of another contest, RunError when it cannot be written (a full disk).
        """
        item = self.blind.items.get(item_id)
        if item is None:
            raise UsageError("this comparison is no longer part of the contest; reload the page")
        self._record(votes.new_vote(voter, item.comparison, item.left, question, choice, id))

    def undo(self, voter: str, id: str) -> None:
        """Undoes the newest valid answer of a voter, if any."""
        self._refresh()
        answers = self._of(voter).answers
        if answers and id not in self._ids:
            (c, question), last = next(reversed(answers.items()))
            self._record(votes.new_vote(voter, c, last.left, question, "undone", id))

    def _record(self, vote: Vote) -> None:
        self._refresh()
        if not votes.is_id(vote.id):
            raise UsageError("an answer needs an id of up to 64 letters and digits")
        if vote.id not in self._ids:
            votes.append(self.path, [vote])
            self._refresh()

    def _task(self, of: _Voter, c: Comparison) -> Task | None:
        for question in QUESTIONS:
            if (c, question) not in of.answers:
                left = of.touched[c].left if c in of.touched else of.sides[c]  # both questions with the same sides
                return Task(self.blind.item(c, left), question)
        return None

    def _of(self, name: str) -> _Voter:
        if name not in self._voters:
            order = {c: self.blind.digest("order", name, c.group, c.prompt, c.seed, c.a, c.b) for c in self.comparisons}
            self._voters[name] = _Voter(self.blind.balanced(self.comparisons, name), order)
        return self._voters[name]

    def _refresh(self) -> None:
        """Reads the lines appended since the last call; a file that became shorter is read from the start."""
        size = self.path.stat().st_size if self.path.exists() else 0
        if size == self._offset:
            return
        if size < self._offset:
            self._forget()
        with self.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]  # an incomplete line is read at a later call
        self._offset += len(data)
        for vote in votes.from_lines(data, self.path.name).votes:
            if vote.id not in self._ids:
                self._ids.add(vote.id)
                self._count(vote)

    def _count(self, vote: Vote) -> None:
        c = self._by_what.get(vote.what)
        if c is None:
            return  # a comparison with a missing video
        of = self._of(vote.voter)
        self._counts[c] -= of.answers.pop((c, vote.question), None) is not None
        of.touched.pop(c, None)
        of.touched[c] = vote
        if vote.choice != "undone":
            of.answers[c, vote.question] = vote
            self._counts[c] += 1
