"""Whether a client may connect: the Connection Manager is asked before the greeting."""

from netmail_common.acceptor import ClientInfo
from netmail_common.config import MailListenerConfig
from netmail_common.connmgr.gate import Door, Visitor
from netmail_common.logging import get_logger

from netmail_pop_imap.adapters.context import ListenerContext
from netmail_pop_imap.protocol.errors import NotWelcome, NotWelcomeNow

__all__ = ["check_welcome", "is_asked_about", "visitor_of"]

log = get_logger(__name__)

_DOORS = {"pop3": Door.POP3, "imap": Door.IMAP}


def visitor_of(client: ClientInfo, listener: MailListenerConfig) -> Visitor:
    """The client, as the gate knows it."""
    return Visitor(client.address, _DOORS[listener.protocol], listener.name)


def is_asked_about(client: ClientInfo, context: ListenerContext) -> bool:
    """Whether `check_welcome` has to ask; else the client is welcome."""
    # Of a proxy's own connections nobody knows who is behind them.
    return client.may_grant and context.gate.asks_about(visitor_of(client, context.listener))


async def check_welcome(client: ClientInfo, context: ListenerContext) -> None:
    """Asks whether a client may connect.

    Raises: NotWelcome.
    """
    admission = await context.gate.connecting(visitor_of(client, context.listener))
    if admission.allowed:
        return
    log.info(
        "connection denied",
        address=str(client.address),
        listener=context.listener.name,
        rule=admission.rule,
    )
    refusal = NotWelcome if admission.permanent else NotWelcomeNow
    raise refusal(admission.comment)
