"""The table's recent changes: numbered without a gap, bounded, whatever number they begin with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_common.connmgr.model import Revocation
from netmail_connmgr.domain.changes import Change, ChangeLog, MissedChanges

STEPS = st.lists(st.sampled_from(["changed", "evicted", "revoked"]), max_size=40)


def step(log: ChangeLog, kind: str, number: int) -> Change:
    """Makes a change; what the log is to say of it."""
    record, gone = b"record%d" % number, (b"key%d" % number,)
    if kind == "changed":
        log.changed(record)
        return Change(log.revision, record)
    if kind == "evicted":
        log.changed(record, gone)
        return Change(log.revision, record, gone)
    revocation = Revocation(float(number), None, None, 0)
    log.revoked(revocation, gone)
    return Change(log.revision, removed=gone, revocation=revocation)


@given(steps=STEPS, first=st.integers(0, 1 << 60), limit=st.integers(1, 10))
def test_what_is_kept_is_told_from_any_revision_on(
    steps: list[str], first: int, limit: int
) -> None:
    log = ChangeLog(capacity=8, revocation_capacity=3)
    log.revision = first
    made = [step(log, kind, number) for number, kind in enumerate(steps)]
    assert log.revision == first + len(made)
    for known in range(max(0, len(made) - 8), len(made) + 1):
        told = log.after(first + known, limit, revocations_only=False)
        assert told == made[known : known + limit]
    if len(made) > 8:
        with pytest.raises(MissedChanges):
            log.after(first + len(made) - 9, limit, revocations_only=False)
    for only in (False, True):
        with pytest.raises(MissedChanges):
            log.after(log.revision + 1, limit, revocations_only=only)
    revoked = [one for one in made if one.revocation is not None]
    if len(revoked) <= 3:
        assert log.after(first, 40, revocations_only=True) == revoked
