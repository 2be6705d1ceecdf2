"""`helm test`: what it says of an installation that works."""

import pytest

from tests.cluster.support import Release

pytestmark = pytest.mark.timeout(900)


def test_helm_test_really_sends_relays_and_fetches_mail(installed: Release) -> None:
    before = installed.netmail("user", "list", "--json")
    said = installed.helm("test", installed.name, "--logs", "--timeout", "10m")
    assert "a stranger may not send to the world: 5" in said
    assert "the message has come, with X-Auth-OK: roundtrip-" in said
    assert "everything is as it should be" in said
    assert installed.netmail("user", "list", "--json") == before
