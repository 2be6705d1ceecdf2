"""Logins that were renewed lately, so that one more that says the same costs little.

Nearly every registration is such a one: a client that looks for mail every few minutes. Of its
record only end, time of verification and session id move (netmail_common.connmgr.packed).
"""

from dataclasses import dataclass, field

from netmail_common.connmgr.model import Registration, UserKey
from netmail_common.connmgr.packed import RecordParts, assembled
from netmail_common.connmgr.records import LoginRecords

__all__ = ["KnownLogin", "Renewals"]


@dataclass(slots=True, eq=False)
class KnownLogin:
    """A login as it stands in the table.

    Attributes:
        slot: where its record is.
        said: the registration that its record was made of, but for times and session id.
    """

    slot: int
    record: bytes
    parts: RecordParts
    said: Registration
    verified: float
    expires: float
    session_id: str = field(init=False)

    def __post_init__(self) -> None:
        self.session_id = self.said.session_id


class Renewals:
    """Bounded; a login that is not here, or is more than one more of the same, is the table's.

    Args:
        most: logins that are known at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[tuple[bytes, UserKey], KnownLogin] = {}

    def __len__(self) -> int:
        return len(self._known)

    def learn(self, known: KnownLogin) -> None:
        """Keeps a login that was renewed; the oldest goes when there is no room."""
        whose = known.said.place, known.said.profile.user
        self._known.pop(whose, None)
        if len(self._known) >= self._most:
            del self._known[next(iter(self._known))]
        self._known[whose] = known

    def renewed(
        self,
        registration: Registration,
        verified: float,
        expires: float,
        now: float,
        records: LoginRecords,
    ) -> KnownLogin | None:
        """The live login with new times and session id; None: there is more to be looked at.

        Its new record is not among RECORDS yet.
        """
        known = self._known.get((registration.place, registration.profile.user))
        session_id = registration.session_id
        if (
            known is None
            # Nobody has changed or removed it since: a record is one object as long as it counts.
            or records[known.slot] is not known.record
            or known.expires <= now
            or verified < known.verified
            # Repetitions of a registration renew nothing.
            or (session_id and session_id == known.session_id)
            or (registration is not known.said and not _says_the_same(registration, known.said))
        ):
            return None
        known.said = registration
        known.verified = verified
        known.expires = max(expires, known.expires)
        known.session_id = session_id
        known.record = assembled(known.parts, known.expires, verified, session_id)
        return known


def _says_the_same(registration: Registration, earlier: Registration) -> bool:
    """Whether it does of the login, times and session aside; in doubt it does not."""
    return (
        # One object for one user, as a rule: it need not be compared.
        registration.profile is earlier.profile
        and registration.client_address == earlier.client_address
        and registration.protocol is earlier.protocol
        and registration.messaging_server == earlier.messaging_server
        and registration.credential_epoch == earlier.credential_epoch
    )
