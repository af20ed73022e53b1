"""How many jobs of each queue one consumer may hold."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Slots", "half_of", "halves"]

#: A consumer may hold this many jobs of a queue beyond its threads, as long as they are so short that they are done within AHEAD_S.
AHEAD_MAX = 128
AHEAD_S = 0.010

Groups = Sequence[tuple[int, Sequence[str]]]


def half_of(most: int, half: int) -> int:
    """How many of *most* slots the first (0) or the second (1) of two consumers has."""
    return most // 2 if half else most - most // 2


def halves(groups: Groups) -> list[Groups]:
    """The groups shared out between two consumers; only one when no group has two slots."""
    second = [(half_of(most, 1), queues) for most, queues in groups if most > 1]
    return [[(half_of(most, 0), queues) for most, queues in groups], second] if second else [groups]


class Slots:
    """Budgets of claims, by group of queues. The consumer's thread takes and gives back; the rest may come from others.

    A group's budget is its concurrency. Where its jobs are very short (run time, a moving mean over about 30) it is as many as
    one thread finishes in 10 ms, at most 128: a round trip then brings work for a while. A job that waits is never more than that
    behind, and what waits longer is handed back.

    Args:
        groups: (concurrency, queues): jobs of those queues that run at once. By default each queue is a group of its own, so that
            a busy one cannot take another's threads.
        look_ahead: False holds the budgets at the concurrency.
    """

    def __init__(self, groups: Groups, *, look_ahead: bool = True) -> None:
        self._concurrency = [most for most, _ in groups]
        self._queues = [tuple(queues) for _, queues in groups]
        self._group = {queue: number for number, (_, queues) in enumerate(groups) for queue in queues}
        self._held = [0] * len(groups)
        self._asked = [0] * len(groups)  # slots of the last call, and what it brought
        self._brought = [0] * len(groups)
        self._typical_s = [0.0] * len(groups)
        self._look_ahead = look_ahead
        self._resting: set[int] = set()

    def _budget(self, number: int) -> int:
        most, typical_s = self._concurrency[number], self._typical_s[number]
        if not typical_s or not self._look_ahead or not 0 < most <= AHEAD_MAX:
            return most
        return max(most, min(AHEAD_MAX, int(AHEAD_S / typical_s)))

    def free(self) -> list[tuple[int | str, ...]]:
        """Groups with free slots, (slots, queue, queue …) as `store.calls.cycle` takes them; the queues of a group in turn.

        A group whose budget shrank below what it holds while the store still counts on it to sleep there comes with 0 slots, once.
        """
        wants: list[tuple[int | str, ...]] = []
        for number, held in enumerate(self._held):
            free = max(0, self._budget(number) - held) if number not in self._resting else 0
            if free or self._brought[number] < self._asked[number]:
                queues = self._queues[number]
                self._queues[number] = queues[1:] + queues[:1]
                wants.append((free, *queues))
            self._asked[number], self._brought[number] = free, 0
        return wants

    def none(self) -> list[tuple[int | str, ...]]:
        """Every group with 0 slots: the store is not to count on this consumer any more."""
        return [(0, *queues) for queues in self._queues]

    def resize(self, queue: str, most: int) -> bool:
        """Let *queue*'s group have *most* slots from now on, 0 or more; whether that is another number. What is held beyond it runs on."""
        number = self._group.get(queue)
        if number is None or self._concurrency[number] == most:
            return False
        self._concurrency[number] = most
        return True

    def take(self, queue: str) -> None:
        """A job of *queue* was claimed."""
        number = self._group[queue]
        self._held[number] += 1
        self._brought[number] += 1

    def give_back(self, queue: str) -> None:
        """A job of *queue* has ended here."""
        self._held[self._group[queue]] -= 1

    def rest(self, queue: str) -> None:
        """Ask for nothing of *queue*'s group until `resume`: what it had could not begin here, and would come straight back."""
        self._resting.add(self._group[queue])

    def resume(self, queue: str) -> bool:
        """Ask again; whether it rested."""
        number = self._group[queue]
        is_over = number in self._resting
        self._resting.discard(number)
        return is_over

    def ran(self, queue: str, seconds: float) -> None:
        """Note how long a job took, so that the budget can follow. A lost update does not matter."""
        number = self._group[queue]
        typical_s = self._typical_s[number]
        self._typical_s[number] = typical_s + (seconds - typical_s) / 32 if typical_s else max(seconds, 1e-6)

    def has(self, queue: str) -> bool:
        """Whether this consumer serves *queue*."""
        return queue in self._group

    def is_short(self, queue: str) -> bool:
        """Whether jobs of *queue* are so short that more are held than can run at once."""
        number = self._group[queue]
        return self._budget(number) > self._concurrency[number]
