"""What the driver does when Ray Data falls over a worker; no Ray is started."""

from collections.abc import Iterator
from typing import Any

import pytest

from curate import runner
from curate.errors import RunError
from curate.pool import Pool, Resources


@pytest.fixture
def died(monkeypatch: pytest.MonkeyPatch) -> type[Exception]:
    """Ray's exception; nothing of Ray itself is begun."""
    from ray.exceptions import ActorDiedError

    monkeypatch.setattr(runner, "start", lambda: None)
    monkeypatch.setattr(runner, "_quiet", lambda ray: None)
    monkeypatch.setattr(runner, "_pool", lambda *_: Pool(1, 2, 8, 8))
    return ActorDiedError


class Nothing:
    def setup(self) -> None: ...

    def work(self, unit: dict[str, Any]) -> dict[str, Any]:
        return unit


@pytest.mark.parametrize("falls_at", [0, 3, 5])
def test_what_is_left_is_done_by_a_pool_of_one_size(
    falls_at: int, died: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    pools: list[Pool] = []

    def in_pool(_: Any, job: Nothing, left: dict[int, Any], __: Resources, pool: Pool) -> Iterator[dict[str, Any]]:
        pools.append(pool)
        for n in list(left):
            if len(pools) == 1 and n == falls_at:
                break
            yield left.pop(n)
        if len(pools) == 1:
            raise died()

    monkeypatch.setattr(runner, "_in_pool", in_pool)
    units = [{"i": i} for i in range(5)]
    assert list(runner.run_units(Nothing(), units, Resources(workers=(1, 8)))) == units
    assert pools[0] == Pool(1, 2, 8, 8)
    assert pools[1] in (Pool(2, 2, 2, 2), Pool(1, 1, 1, 1))


def test_a_second_time_it_is_one_sentence(died: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def in_pool(*_: Any) -> Iterator[dict[str, Any]]:
        raise died()
        yield {}

    monkeypatch.setattr(runner, "_in_pool", in_pool)
    with pytest.raises(RunError, match=r"^Ray could not go on: ActorDiedError"):
        list(runner.run_units(Nothing(), [{}, {}], Resources()))
