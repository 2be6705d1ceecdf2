"""Logins by the place that they come from."""

from collections.abc import Iterator

from netmail_common.connmgr.model import Login, UserKey

__all__ = ["Places"]


class Places:
    """Who is logged in from a place; most places have one user, who costs no dictionary."""

    def __init__(self) -> None:
        self._places: dict[bytes, Login | dict[UserKey, Login]] = {}

    def __contains__(self, place: bytes) -> bool:
        return place in self._places

    def __iter__(self) -> Iterator[Login]:
        for place in self._places:
            yield from self.at(place)

    def at(self, place: bytes) -> tuple[Login, ...]:
        """The logins of a place."""
        found = self._places.get(place)
        if found is None:
            return ()
        return (found,) if isinstance(found, Login) else tuple(found.values())

    def get(self, place: bytes, user: UserKey) -> Login | None:
        """The login of a user from a place."""
        found = self._places.get(place)
        if isinstance(found, dict):
            return found.get(user)
        return found if found is not None and found.user == user else None

    def put(self, login: Login) -> None:
        """Adds a login, or puts it in the place of the user's earlier one."""
        found = self._places.get(login.place)
        if isinstance(found, dict):
            found[login.user] = login
        elif found is None or found.user == login.user:
            self._places[login.place] = login
        else:
            self._places[login.place] = {found.user: found, login.user: login}

    def remove(self, login: Login) -> None:
        """Takes a login away that is there."""
        found = self._places[login.place]
        if isinstance(found, dict):
            del found[login.user]
            if len(found) == 1:
                (self._places[login.place],) = found.values()
        else:
            del self._places[login.place]
