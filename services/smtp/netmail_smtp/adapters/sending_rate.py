"""How much the known sender of a session may still send."""

from netmail_common.connmgr import UserKey

from netmail_smtp.adapters.session_state import SessionState
from netmail_smtp.adapters.transaction import Transaction
from netmail_smtp.domain.relay import KnownSender, Way

_LONGEST_REFUSAL = 10.0
"""Seconds for which a session is refused without another question."""


class SendingRate:
    """Asks for the recipients of a session's transactions, those of a batch at once."""

    def __init__(self, session: SessionState) -> None:
        self._session = session
        self._refused_until = 0.0

    async def admits(self, transaction: Transaction, known: KnownSender, *, ahead: int) -> bool:
        """Whether one more recipient is within the sender's rates; it is counted then.

        Args:
            transaction: that the recipient is of.
            known: who sends.
            ahead: how many recipients wait to be asked about, this one included.
        """
        if known.way is Way.NETWORK:
            return True
        if transaction.granted == 0:
            transaction.granted = await self._ask(transaction, known, max(1, ahead))
        if transaction.granted == 0:
            return False
        transaction.granted -= 1
        return True

    async def _ask(self, transaction: Transaction, known: KnownSender, wanted: int) -> int:
        """For how many recipients there is room: all of them, one, or none."""
        session = self._session
        if session.loop.time() < self._refused_until:
            return 0
        for recipients in (wanted, 1) if wanted > 1 else (1,):
            answer = await session.services.gate.relay(
                session.visitor,
                UserKey(known.user, known.context) if known.user else None,
                authenticated=known.way is Way.AUTH,
                session_id=known.session_id,
                recipients=recipients,
                messages=0 if transaction.is_counted else 1,
            )
            if answer.accepted:
                transaction.is_counted = True
                return recipients
        self._refused_until = session.loop.time() + min(answer.retry_after, _LONGEST_REFUSAL)
        return 0
