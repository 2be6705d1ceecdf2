"""A mail client for other hosts: `python -m tests.support.mail_client ACTION SOURCE HOST PORT ...`.

Actions: `pop3` and `imap` log in (USER PASSWORD), `send` sends without AUTH (SENDER RECIPIENT).
Prints the last reply as one line; ends with 0 whenever there was one.
"""

import imaplib
import poplib
import smtplib
import socket
import sys


def pop3(source: str, host: str, port: int, user: str, password: str) -> str:
    """Logs in and out."""

    class FromSource(poplib.POP3):
        def _create_socket(self, timeout: float | None) -> socket.socket:
            return socket.create_connection((host, port), timeout, source_address=(source, 0))

    client = FromSource(host, port, timeout=20)
    try:
        client.user(user)
        reply = client.pass_(password)
    except poplib.error_proto as error:
        return str(error)
    client.quit()
    return reply.decode()


def imap(source: str, host: str, port: int, user: str, password: str) -> str:
    """Logs in and out."""

    class FromSource(imaplib.IMAP4):
        def _create_socket(self, timeout: float | None) -> socket.socket:
            return socket.create_connection((host, port), timeout, source_address=(source, 0))

    client = FromSource(host, port, timeout=20)
    try:
        status, _ = client.login(user, password)
    except imaplib.IMAP4.error as error:
        return str(error)
    client.logout()
    return str(status)


def send(source: str, host: str, port: int, sender: str, recipient: str) -> str:
    """Sends one message without AUTH."""
    with smtplib.SMTP(host, port, timeout=20, source_address=(source, 0)) as client:
        client.ehlo()
        code, text = client.mail(sender)
        if code == 250:
            code, text = client.rcpt(recipient)
        if code == 250:
            code, text = client.data(f"From: {sender}\r\nTo: {recipient}\r\n\r\nHello\r\n")
        return f"{code} {text.decode()}"


def main() -> int:
    """Returns: exit status."""
    action, source, host, port, *rest = sys.argv[1:]
    print({"pop3": pop3, "imap": imap, "send": send}[action](source, host, int(port), *rest))
    return 0


if __name__ == "__main__":
    sys.exit(main())
