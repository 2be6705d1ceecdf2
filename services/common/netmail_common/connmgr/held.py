"""Which networks a replica holds when the whole table is too much for it."""

from collections import Counter, OrderedDict
from collections.abc import Iterable

__all__ = ["HeldPlaces"]


class HeldPlaces:
    """Places that the stream is asked to tell about, the longest unused first.

    A place counts as held when the last request for it was answered: before, what is known of it
    may have gaps.
    """

    def __init__(self) -> None:
        self._addresses: OrderedDict[bytes, bytes] = OrderedDict()
        self._pending: Counter[bytes] = Counter()

    def __len__(self) -> int:
        return len(self._addresses)

    def __contains__(self, place: bytes) -> bool:
        """Whether all about it is known."""
        return place in self._addresses and place not in self._pending

    def want(self, place: bytes, address: bytes) -> bool:
        """Asks for a place by an address of it; False: that was done before."""
        if place in self._addresses:
            return False
        self._addresses[place] = address
        self._pending[place] += 1
        return True

    def use(self, place: bytes) -> None:
        """It was of use: it goes last."""
        if place in self._addresses:
            self._addresses.move_to_end(place)

    def answered(self, place: bytes) -> bool:
        """A request was answered; whether the place is held now."""
        self._pending[place] -= 1
        if self._pending[place] <= 0:
            del self._pending[place]
        return place in self

    def let_go(self, place: bytes) -> None:
        """Forgets a place; an answer to a request for it may still come."""
        self._addresses.pop(place, None)

    def oldest(self) -> tuple[bytes, bytes]:
        """The place, with its address, that was unused for longest; it is forgotten."""
        return self._addresses.popitem(last=False)

    def begin_anew(self) -> Iterable[bytes]:
        """A stream has begun that knows nothing: the addresses to ask it for."""
        self._pending = Counter(dict.fromkeys(self._addresses, 1))
        return self._addresses.values()
