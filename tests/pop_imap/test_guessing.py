"""Guessing at POP3 and IMAP users, through all agents."""

import socket
from collections.abc import Callable

import pytest

from tests.pop_imap.agents import PASSWORD, Agents

NewUser = Callable[[], str]


def pop3(agents: Agents, address: str, name: str, password: str) -> bytes:
    """The answer to PASS."""
    with connect(agents, "pop3", address) as client, client.makefile("rb") as lines:
        lines.readline()
        client.sendall(f"USER {name}\r\nPASS {password}\r\n".encode())
        lines.readline()
        return lines.readline()


def imap(agents: Agents, address: str, name: str, password: str) -> bytes:
    """The answer to LOGIN."""
    with connect(agents, "imap", address) as client, client.makefile("rb") as lines:
        lines.readline()
        client.sendall(f'a LOGIN "{name}" "{password}"\r\n'.encode())
        while not (line := lines.readline()).startswith(b"a "):
            assert line
        return line


def connect(agents: Agents, listener: str, address: str) -> socket.socket:
    return socket.create_connection(
        ("127.0.0.1", agents.port(listener)), timeout=30, source_address=(address, 0)
    )


LOGINS = [pop3, imap]


@pytest.mark.parametrize("login", LOGINS)
def test_after_20_guesses_a_new_address_is_refused_whatever_the_password_and_a_known_one_is_not(
    agents: Agents, new_user: NewUser, login: Callable[..., bytes]
) -> None:
    user, net = new_user(), LOGINS.index(login)
    welcome = login(agents, f"127.1.{net}.1", user, PASSWORD)
    assert b"OK" in welcome
    for number in range(20):
        guess = LOGINS[number % 2]
        name = (user, f"{user}@example.org")[number // 2 % 2]
        assert b"OK" not in guess(agents, f"127.2.{net}.{number}", name, "wrong")
    elsewhere = f"127.3.{net}.1"
    refused = login(agents, elsewhere, user, PASSWORD)
    assert b"OK" not in refused
    assert refused == login(agents, elsewhere, user, "wrong")
    assert b"OK" in login(agents, f"127.1.{net}.1", user, PASSWORD)
    assert b"OK" in login(agents, elsewhere, new_user(), PASSWORD)


def test_an_address_that_guessed_at_many_is_not_even_greeted(
    agents: Agents, new_user: NewUser
) -> None:
    for number in range(20):
        assert b"OK" not in LOGINS[number % 2](agents, "127.4.0.1", f"nobody{number}", "x")
    with connect(agents, "pop3", "127.4.0.1") as client, client.makefile("rb") as lines:
        greeting = lines.readline()
        assert greeting.startswith(b"-ERR")
        assert lines.readline() == b""
    with connect(agents, "imap", "127.4.0.1") as client, client.makefile("rb") as lines:
        assert lines.readline().startswith(b"* BYE")
    assert b"OK" in pop3(agents, "127.4.0.2", new_user(), PASSWORD)
