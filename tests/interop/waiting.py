"""Waiting for servers that are not ours."""

import socket


def greets(port: int) -> bool:
    """An SMTP server on 127.0.0.1:PORT says 220."""
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as connection:
            return connection.recv(3) == b"220"
    except OSError:
        return False
