"""Between the API's messages and the domain's types."""

import re
from collections.abc import Callable, Sequence

from netmail.nmap.v1 import mailbox_pb2, queue_pb2

from netmail_nmap.domain import search
from netmail_nmap.domain.delivery import Envelope, Recipient
from netmail_nmap.domain.dsn import Notify
from netmail_nmap.domain.errors import InvalidRequest
from netmail_nmap.domain.mail import MailboxInfo, MailboxState, MailboxStatus, MessageColumns

_MESSAGE_ID = re.compile(r"[A-Za-z0-9-]{16,64}")
_MAX_RECIPIENTS = 10_000
_MAX_DEPTH = 60


# -- queue -------------------------------------------------------------------------------------


def envelope_from(message: queue_pb2.Envelope) -> Envelope:
    """Raises: InvalidRequest."""
    if _MESSAGE_ID.fullmatch(message.message_id) is None:
        raise InvalidRequest("the message id is not of 16 to 64 letters, digits or hyphens")
    if not message.recipients or len(message.recipients) > _MAX_RECIPIENTS:
        raise InvalidRequest("there are no recipients, or too many")
    if _odd(message.sender):
        raise InvalidRequest("the sender is not an address")
    return Envelope(
        message.message_id,
        message.sender,
        tuple([_recipient_from(recipient) for recipient in message.recipients]),
        message.smtputf8,
        message.body_8bit,
        message.return_headers_only,
        message.envelope_id,
        message.messaging_server,
        message.relayed_for,
    )


def _odd(address: str) -> bool:
    """What would break the Return-Path field."""
    return "\r" in address or "\n" in address or "\0" in address


def _recipient_from(message: queue_pb2.Recipient) -> Recipient:
    if "@" not in message.address or _odd(message.address):
        raise InvalidRequest("a recipient is not an address")
    if not message.notify_given:
        return Recipient(message.address, original_recipient=message.original_recipient)
    notify = Notify(
        message.notify_never,
        message.notify_success,
        message.notify_failure,
        message.notify_delay,
        given=True,
    )
    return Recipient(message.address, notify, message.original_recipient)


def envelope_to(envelope: Envelope) -> queue_pb2.Envelope:
    """The other way."""
    return queue_pb2.Envelope(
        message_id=envelope.message_id,
        sender=envelope.sender,
        recipients=[_recipient_to(recipient) for recipient in envelope.recipients],
        smtputf8=envelope.smtputf8,
        body_8bit=envelope.body_8bit,
        return_headers_only=envelope.return_headers_only,
        envelope_id=envelope.envelope_id,
        messaging_server=envelope.messaging_server,
        relayed_for=envelope.relayed_for,
    )


def _recipient_to(recipient: Recipient) -> queue_pb2.Recipient:
    notify = recipient.notify
    return queue_pb2.Recipient(
        address=recipient.address,
        notify_never=notify.never,
        notify_success=notify.success,
        notify_failure=notify.failure,
        notify_delay=notify.delay,
        notify_given=notify.given,
        original_recipient=recipient.original_recipient,
    )


# -- mailboxes ---------------------------------------------------------------------------------


def mailbox_to(info: MailboxInfo) -> mailbox_pb2.Mailbox:
    """One name of LIST."""
    return mailbox_pb2.Mailbox(
        id=info.id,
        name=info.name,
        object_id=info.object_id,
        subscribed=info.subscribed,
        special_use=info.special_use,
        has_children=info.has_children,
        selectable=info.selectable,
        status=None if info.status is None else _status_to(info.status),
    )


def _status_to(status: MailboxStatus) -> mailbox_pb2.MailboxStatus:
    return mailbox_pb2.MailboxStatus(
        messages=status.messages,
        unseen=status.unseen,
        recent=status.recent,
        uid_next=status.uid_next,
        uid_validity=status.uid_validity,
        highest_modseq=status.highest_modseq,
        size=status.size,
        deleted=status.deleted,
    )


def state_to(state: MailboxState) -> mailbox_pb2.MailboxState:
    """What SELECT tells."""
    return mailbox_pb2.MailboxState(
        mailbox_id=state.mailbox_id,
        object_id=state.object_id,
        uid_validity=state.uid_validity,
        uid_next=state.uid_next,
        highest_modseq=state.highest_modseq,
        messages=state.messages,
        first_recent_uid=state.first_recent_uid,
        keywords=state.keywords,
    )


def columns_to(columns: MessageColumns, rows: slice = slice(None)) -> mailbox_pb2.MessageColumns:
    """Some rows of the columns; all flag sets, since indexes count from the first."""
    return mailbox_pb2.MessageColumns(
        uids=columns.uids[rows],
        modseqs=columns.modseqs[rows],
        flag_set=columns.flag_set[rows],
        sizes=columns.sizes[rows],
        object_ids=columns.object_ids[rows],
        flag_sets=columns.flag_sets,
    )


_RELATIONS = {
    mailbox_pb2.DATE_RELATION_BEFORE: search.DateRelation.BEFORE,
    mailbox_pb2.DATE_RELATION_ON: search.DateRelation.ON,
    mailbox_pb2.DATE_RELATION_SINCE: search.DateRelation.SINCE,
}


def search_key_from(message: mailbox_pb2.SearchKey, depth: int = 0) -> search.SearchKey:
    """Raises: InvalidRequest."""
    kind = message.WhichOneof("key")
    if kind is None or depth > _MAX_DEPTH:
        raise InvalidRequest("a search key is empty, or nested too deeply")
    match kind:
        case "all_of":
            return search.AllOf(_keys_from(message.all_of.keys, depth))
        case "any_of":
            return search.AnyOf(_keys_from(message.any_of.keys, depth))
        case "not":
            return search.Not(search_key_from(getattr(message, "not"), depth + 1))
        case _:
            return _SIMPLE[kind](message)


def _keys_from(keys: Sequence[mailbox_pb2.SearchKey], depth: int) -> tuple[search.SearchKey, ...]:
    return tuple([search_key_from(key, depth + 1) for key in keys])


def _date_from(field: search.DateField, date: mailbox_pb2.SearchDate) -> search.SearchKey:
    relation = _RELATIONS.get(date.relation)
    if relation is None:
        raise InvalidRequest("a date is compared in no known way")
    return search.Date(field, relation, date.day)


_SIMPLE: dict[str, Callable[[mailbox_pb2.SearchKey], search.SearchKey]] = {
    "flag": lambda key: search.HasFlag(key.flag),
    "header": lambda key: search.HeaderContains(key.header.name, key.header.value),
    "body": lambda key: search.BodyContains(key.body),
    "text": lambda key: search.TextContains(key.text),
    "internal_date": lambda key: _date_from(search.DateField.INTERNAL, key.internal_date),
    "sent_date": lambda key: _date_from(search.DateField.SENT, key.sent_date),
    "saved_date": lambda key: _date_from(search.DateField.SAVED, key.saved_date),
    "larger": lambda key: search.Larger(key.larger),
    "smaller": lambda key: search.Smaller(key.smaller),
    "uids": lambda key: search.Uids([(r.first, r.last) for r in key.uids.ranges]),
    "modseq_at_least": lambda key: search.ModseqAtLeast(key.modseq_at_least),
    "object_id": lambda key: search.ObjectId(key.object_id),
    "all": lambda _: search.AllOf(),
}
