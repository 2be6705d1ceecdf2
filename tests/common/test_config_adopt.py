"""A running process takes what is reloaded, and says what needs a restart."""

import copy
from typing import Any

import pytest
from netmail_common.config import ConfigError, FixedKeys, Installation, adopt, parse_config

START: dict[str, Any] = {
    "connection_managers": [{"name": "main", "listen": ["127.0.0.1:7700"]}],
    "messaging_servers": [
        {
            "name": name,
            "host_name": f"{name}.example",
            "domains": [f"{name}.example"],
            "contexts": [{"name": f"users.{name}"}],
            "connection_manager": "main",
            "nmap": {"listen": ["127.0.0.1:7710"]},
            "smtp": {"listeners": [{"name": "mx", "listen": ["127.0.0.1:2525"]}]},
        }
        for name in ("mail1", "mail2")
    ],
}


def changed(**keys: Any) -> Installation:
    """START with other values, by their dotted place; lists by index."""
    data = copy.deepcopy(START)
    for place, value in keys.items():
        *path, last = place.split("__")
        target: Any = data
        for part in path:
            target = target[int(part)] if part.isdigit() else target.setdefault(part, {})
        target[last] = value
    return parse_config(data)


def smtp(name: str = "mail1") -> FixedKeys:
    return FixedKeys.of_agent(parse_config(START), name, "smtp")


CONNMGR = FixedKeys.of_connection_manager("main")


def test_nothing_changed_is_nothing_to_do() -> None:
    running = parse_config(START)
    adopted = adopt(running, parse_config(START), smtp())
    assert (adopted.installation, adopted.changed, adopted.waiting) == (running, (), ())


def test_a_reloaded_key_is_taken() -> None:
    adopted = adopt(parse_config(START), changed(log__level="debug"), smtp())
    assert adopted.installation.log.level == "debug"
    assert adopted.changed == (("log", "level"),)
    assert adopted.waiting == ()


def test_a_store_whose_url_is_in_a_file_hinders_nothing() -> None:
    store = {"url_file": "/etc/netmail/url"}
    running = changed(messaging_servers__0__nmap__store=store)
    read = changed(messaging_servers__0__nmap__store=store, log__level="debug")
    adopted = adopt(running, read, smtp())
    assert adopted.installation.log.level == "debug"
    assert adopted.waiting == ()


def test_a_fixed_key_stays_and_is_named() -> None:
    read = changed(
        log__format="json", log__level="debug", messaging_servers__0__host_name="other.example"
    )
    adopted = adopt(parse_config(START), read, smtp())
    assert adopted.installation.log.format == "auto"
    assert adopted.installation.log.level == "debug"
    assert adopted.installation.messaging_server("mail1").host_name == "mail1.example"
    assert adopted.waiting == (
        ("log", "format"),
        ("messaging_servers", "mail1", "host_name"),
    )


def test_named_sections_are_compared_by_their_names() -> None:
    read = changed(messaging_servers__0__smtp__listeners__0__listen=["127.0.0.1:2526"])
    adopted = adopt(parse_config(START), read, smtp())
    place = ("messaging_servers", "mail1", "smtp", "listeners", "mx", "listen")
    assert adopted.waiting == (place,)


@pytest.mark.parametrize(
    ("fixed", "waits"),
    [(smtp("mail1"), True), (smtp("mail2"), False), (CONNMGR, False)],
    ids=["its own agent", "another agent", "the Connection Manager"],
)
def test_only_who_uses_a_key_needs_a_restart(fixed: FixedKeys, waits: bool) -> None:
    read = changed(messaging_servers__0__smtp__workers=3)
    adopted = adopt(parse_config(START), read, fixed)
    assert bool(adopted.waiting) is waits
    # Who does not use it may know it.
    assert (adopted.installation == read) is not waits


def test_a_server_that_comes_or_goes_needs_a_restart_of_whom_it_concerns() -> None:
    data = copy.deepcopy(START)
    data["messaging_servers"].append(
        {**data["messaging_servers"].pop(1), "name": "mail3", "domains": ["mail3.example"]}
    )
    read = parse_config(data)
    adopted = adopt(parse_config(START), read, smtp())
    assert adopted.waiting == (("messaging_servers", "mail2"), ("messaging_servers", "mail3"))
    assert [one.name for one in adopted.installation.messaging_servers] == ["mail1", "mail2"]


def test_what_is_taken_must_fit_to_what_waits() -> None:
    """A domain moves from a server that goes, and stays until then, to one that stays."""
    data = copy.deepcopy(START)
    del data["messaging_servers"][1]
    data["messaging_servers"][0]["domains"].append("mail2.example")
    with pytest.raises(ConfigError, match=r"mail2\.example.*there 2 times") as caught:
        adopt(parse_config(START), parse_config(data), smtp())
    assert "messaging_servers.mail2" in str(caught.value)


def test_passwords_and_sizes_survive_being_adopted() -> None:
    contexts = [
        {"name": "users.mail1", "initial_users": [{"name": "alice", "password": "wonderland"}]}
    ]
    running = changed(messaging_servers__0__contexts=contexts)
    read = changed(messaging_servers__0__contexts=contexts, log__level="error")
    (context,) = adopt(running, read, smtp()).installation.messaging_server("mail1").contexts
    assert context.initial_users[0].password.get_secret_value() == "wonderland"
