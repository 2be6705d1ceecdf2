"""`netmail login history` of a whole installation: who was let do what, and who was not."""

import json
from typing import Any

from tests.e2e.test_logins import logged_in, relay
from tests.support.installation import RunningInstallation
from tests.support.waiting import eventually

HOME, ELSEWHERE = "127.0.0.141", "127.0.0.142"


def history(running: RunningInstallation, *argv: str) -> list[dict[str, Any]]:
    done = running.netmail("login", "history", *argv, "--json")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_the_history_tells_of_the_login_the_mail_the_refusal_and_the_revocation(
    running: RunningInstallation,
) -> None:
    assert relay(running, HOME, "bob@example.org").startswith("550 5.7.1")
    with logged_in(running, HOME, "bob", "builder") as client:
        client.quit()
    assert relay(running, HOME, "bob@example.org").startswith("250")
    assert relay(running, ELSEWHERE, "bob@example.org").startswith("550 5.7.1")
    running.netmail("login", "revoke", "--address", HOME)

    def of_home() -> list[str]:
        return [one["kind"] for one in history(running, HOME)]

    eventually(lambda: of_home()[-1:] == ["revocation"])
    kinds = of_home()
    assert kinds[:2] == ["denial", "login"]
    assert "relay" in kinds[2:-1]
    (sent,) = [one for one in history(running, HOME) if one["event"] == "mail relayed"]
    assert (sent["user"], sent["context"]) == ("bob", "users.demo")
    assert (sent["recipients"], sent["way"], sent["server"]) == (1, "login", "mail1")
    (refused,) = history(running, ELSEWHERE)
    assert (refused["kind"], refused["reason"]) == ("denial", "no login")
    of_bob = history(running, "bob", "--address", HOME, "--within", "1h")
    assert {one["user"] for one in of_bob} == {"bob"}
