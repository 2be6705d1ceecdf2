"""Every word of the domain has one in the API: an answer must not fail for want of it."""

from netmail_common.connmgr.model import Binding, Decision, LoginProtocol, Reason
from netmail_connmgr.adapters import convert
from netmail_connmgr.domain.table import Outcome


def test_every_reason_outcome_decision_protocol_and_binding_has_a_number() -> None:
    for numbers, words in (
        (convert._REASONS, Reason),
        (convert._OUTCOMES, Outcome),
        (convert._DECISIONS, Decision),
        (convert._PROTOCOL_NUMBERS, LoginProtocol),
    ):
        assert set(numbers) == set(words)
        assert len(set(numbers.values())) == len(words)
        assert 0 not in numbers.values()
    assert set(convert._BINDINGS.values()) == set(Binding)
