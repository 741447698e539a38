"""The way back: which steps may be undone now.  In reverse order of dependency; nothing here does I/O."""

from collections.abc import Callable, Iterable, Sequence


class Rollback:
    """Of a whole run, or of one item of a fan-out.  `before(index)` answers what the step depended on."""

    def __init__(self, touched: Iterable[int], before: Callable[[int], Iterable[int]]) -> None:
        self._before = before
        self._blockers = dict.fromkeys(touched, 0)
        for index in self._blockers:
            for earlier in before(index):
                if earlier in self._blockers:
                    self._blockers[earlier] += 1

    def ready(self) -> list[int]:
        """The steps that nothing which was started depends on."""
        return [index for index, count in self._blockers.items() if count == 0]

    def settled(self, index: int) -> Sequence[int]:
        """The step is undone, or left as it is; answers those that may be undone now."""
        del self._blockers[index]
        ready = []
        for earlier in self._before(index):
            if earlier in self._blockers:
                self._blockers[earlier] -= 1
                if self._blockers[earlier] == 0:
                    ready.append(earlier)
        return ready

    def __contains__(self, index: int) -> bool:
        return index in self._blockers

    @property
    def done(self) -> bool:
        return not self._blockers
