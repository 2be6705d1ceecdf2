"""The six stages, played by clients on loopback addresses of their own."""

import asyncio
import ipaddress
import re
import secrets
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from netmail.connmgr.v1 import connmgr_pb2
from netmail_common.config import Installation, MessagingServerConfig
from netmail_common.config._base import parse_host_port
from rich.console import Console
from rich.text import Text

from netmail_cli.admin import administrator
from netmail_cli.demo.dialogue import Dialogue, Differs, Place, plain

__all__ = ["Stages"]

T = TypeVar("T")

REFUSAL = r"^550 5\.7\.1 .*log in by POP3 or IMAP4 first, or use SMTP authentication"
_ARRIVAL = 60.0


class Stages:
    """Plays the design's six stages against a running demonstration.

    Args:
        config: its configuration file.
        installation: what the file says, with the state directory that it runs in.
        console: gets the dialogues.
    """

    def __init__(self, config: Path, installation: Installation, console: Console) -> None:
        self._config = config
        self._installation = installation
        self._console = console
        self._mail1 = installation.messaging_server("mail1")
        self._mail2 = installation.messaging_server("mail2")
        self._sink = installation.sinks[0].directory
        self._run = secrets.token_hex(4)
        octets = secrets.randbelow(200) + 20, secrets.randbelow(250) + 1
        self._net = f"127.{octets[0]}.{octets[1]}"

    def play(self) -> None:
        """Plays them all. Raises: Differs at the first thing that is not as designed."""
        for number, stage in enumerate(
            (
                self.a_stranger_may_not_relay,
                self.a_login_is_remembered,
                self.a_login_is_renewed,
                self.a_known_address_relays,
                self.the_sender_must_be_the_users,
                self.a_revoked_login_does_not_relay,
                self.authentication_is_the_other_way_in,
                self.local_mail_needs_neither,
                self.contexts_of_the_installation,
            ),
            1,
        ):
            title = (stage.__doc__ or "").strip().rstrip(".")
            self._console.print(Text(f"\n{number}. {title}", style="bold"), soft_wrap=True)
            stage()

    def a_stranger_may_not_relay(self) -> None:
        """An unknown address may not send to the outside, and is told what to do."""
        with self._smtp(self._mail1, self._address(7)) as smtp:
            smtp.say("MAIL FROM:<alice@example.org>", "^250 ")
            smtp.say("RCPT TO:<eve@example.net>", REFUSAL)
            smtp.say("QUIT", "^221 ")

    def a_login_is_remembered(self) -> None:
        """Alice logs in by POP3 from that address; the Connection Manager remembers both."""
        if self._logins(self._address(7)):
            raise Differs(f"{self._address(7)} is known before anybody logged in")
        self._pop3_login(self._mail1, self._address(7), "alice", "wonderland")
        self._expect_login(7, "alice")

    def a_login_is_renewed(self) -> None:
        """The login is kept for its lifetime; another login, by IMAP, renews it."""
        manager = self._installation.connection_managers[0]
        time.sleep(1.1)
        before = self._expect_login(7, "alice")
        with Dialogue(self._place(self._mail1, "imap", self._address(7)), self._console) as imap:
            imap.expect(r"^\* OK ")
            imap.say("a LOGIN alice wonderland", "^a OK ", shown="a LOGIN alice ********")
            after = self._expect_login(7, "alice")
            imap.say("b LOGOUT", "^b OK ")
        if not before < after <= manager.login_lifetime:
            raise Differs(f"remaining seconds went from {before} to {after}")

    def a_known_address_relays(self) -> None:
        """From there Alice sends to the outside without SMTP AUTH; the mail carries her name."""
        subject = f"after POP {self._run}"
        with self._smtp(self._mail1, self._address(7)) as smtp:
            self._send(smtp, "alice@example.org", ["eve@example.net"], subject)
        self._expect_in_sink(subject, "alice")
        self._console.print("  from another address the same is refused:")
        with self._smtp(self._mail1, self._address(8)) as smtp:
            smtp.say("MAIL FROM:<alice@example.org>", "^250 ")
            smtp.say("RCPT TO:<eve@example.net>", REFUSAL)

    def the_sender_must_be_the_users(self) -> None:
        """Her login does not vouch for another user's mail address."""
        with self._smtp(self._mail1, self._address(7)) as smtp:
            smtp.say("MAIL FROM:<bob@example.org>", "^(250|550 5.7.1) ")
            smtp.say("RCPT TO:<eve@example.net>", r"^550 5\.7\.1 .*bob@example\.org")

    def a_revoked_login_does_not_relay(self) -> None:
        """A login that is revoked, as one that has expired, vouches for nothing."""
        revoked = asyncio.run(self._revoke(self._address(7)))
        self._console.print(
            f"  netmail login revoke --address {self._address(7)}: {revoked} revoked"
        )
        with self._smtp(self._mail1, self._address(7)) as smtp:
            smtp.say("MAIL FROM:<alice@example.org>", "^250 ")
            smtp.say("RCPT TO:<eve@example.net>", REFUSAL)

    def authentication_is_the_other_way_in(self) -> None:
        """SMTP AUTH is the other way in, from any address; it registers no login."""
        subject = f"after AUTH {self._run}"
        with Dialogue(
            self._place(self._mail1, "submission", self._address(9)), self._console
        ) as smtp:
            smtp.expect("^220 ")
            smtp.say("EHLO client.example.com", "^250[- ]STARTTLS")
            smtp.say("STARTTLS", "^220 ")
            smtp.start_tls(self._tls(), self._mail1.host_name)
            smtp.say("EHLO client.example.com", "^250[- ]AUTH .*PLAIN")
            smtp.say(
                f"AUTH PLAIN {plain('bob', 'wrong')}", r"^535 5\.7\.8 ", shown="AUTH PLAIN ********"
            )
            smtp.say(f"AUTH PLAIN {plain('bob', 'builder')}", "^235 ", shown="AUTH PLAIN ********")
            self._send(smtp, "bob@example.org", ["eve@example.net"], subject)
        self._expect_in_sink(subject, "bob")
        if self._logins(self._address(9)):
            raise Differs("SMTP AUTH registered a login")

    def local_mail_needs_neither(self) -> None:
        """Mail from a stranger to local users needs neither; one message to two servers' users."""
        subject = f"to both {self._run}"
        with self._smtp(self._mail1, self._address(10)) as smtp:
            recipients = ["alice@example.org", "carol@branch.example.org"]
            self._send(smtp, "eve@example.net", recipients, subject)
            smtp.say("MAIL FROM:<eve@example.net>", "^250 ")
            smtp.say("RCPT TO:<nobody@example.org>", r"^550 5\.1\.1 ")
            smtp.say("QUIT", "^221 ")
        self._expect_in_mailbox(self._mail1, "alice", "wonderland", subject)
        self._expect_in_mailbox(self._mail2, "carol", "branch-office", subject)

    def contexts_of_the_installation(self) -> None:
        """Carol of mail2 uses mail1 too, which is distributed; Alice is nobody on mail2."""
        carol = self._address(12)
        self._expect_in_mailbox(
            self._mail1, "carol", "branch-office", f"to both {self._run}", carol
        )
        subject = f"carol through mail1 {self._run}"
        with self._smtp(self._mail1, carol) as smtp:
            self._send(smtp, "carol@branch.example.org", ["eve@example.net"], subject)
        self._expect_in_sink(subject, "carol")
        place = self._place(self._mail2, "pop3", self._address(13))
        with Dialogue(place, self._console) as pop3:
            pop3.expect(r"^\+OK")
            pop3.say("USER alice", r"^\+OK")
            pop3.say("PASS wonderland", r"^-ERR \[AUTH\]", shown="PASS ********")
            pop3.say("QUIT", r"^\+OK")

    def _address(self, last: int) -> str:
        return f"{self._net}.{last}"

    def _place(self, server: MessagingServerConfig, listener: str, source: str) -> Place:
        listening = {one.name: one.listen[0] for one in server.smtp.listeners}
        listening |= {one.name: one.listen[0] for one in server.pop_imap.listeners}
        if listener not in listening:
            raise Differs(f"{server.name} has no listener {listener}")
        target = parse_host_port(listening[listener])
        return Place(target.host, target.port, source)

    def _smtp(self, server: MessagingServerConfig, source: str) -> Dialogue:
        self._console.print(f"  (SMTP from {source})", style="dim")
        smtp = Dialogue(self._place(server, "smtp", source), self._console)
        smtp.expect("^220 ")
        smtp.say("EHLO client.example.com", "^250 ")
        return smtp

    def _send(self, smtp: Dialogue, sender: str, recipients: list[str], subject: str) -> None:
        smtp.say(f"MAIL FROM:<{sender}>", "^250 ")
        for recipient in recipients:
            smtp.say(f"RCPT TO:<{recipient}>", "^250 ")
        smtp.say("DATA", "^354 ")
        to = ", ".join(recipients)
        smtp.send_text([f"From: {sender}", f"To: {to}", f"Subject: {subject}", "", "Hello"])
        smtp.expect("^250 ")

    def _pop3_login(
        self, server: MessagingServerConfig, source: str, user: str, password: str
    ) -> None:
        self._console.print(f"  (POP3 from {source})", style="dim")
        with Dialogue(self._place(server, "pop3", source), self._console) as pop3:
            pop3.expect(r"^\+OK")
            pop3.say(f"USER {user}", r"^\+OK")
            pop3.say(f"PASS {password}", r"^\+OK", shown="PASS ********")
            pop3.say("QUIT", r"^\+OK")

    def _expect_login(self, last: int, user: str) -> int:
        found = self._logins(self._address(last))
        if [login.user.name for login in found] != [user]:
            raise Differs(f"{self._address(last)} is not remembered as {user}'s")
        remaining = found[0].remaining_seconds
        self._console.print(f"  remembered: {user} at {self._address(last)}, {remaining} s left")
        return remaining

    def _logins(self, address: str) -> list[connmgr_pb2.Login]:
        return asyncio.run(self._list_logins(address))

    async def _list_logins(self, address: str) -> list[connmgr_pb2.Login]:
        name = self._installation.connection_managers[0].name
        async with administrator(self._config, self._installation.state_dir) as admin:
            answer = await admin.connection_manager(name).ListLogins(
                connmgr_pb2.ListLoginsRequest(client_address=ipaddress.ip_address(address).packed)
            )
        return list(answer.logins)

    async def _revoke(self, address: str) -> int:
        name = self._installation.connection_managers[0].name
        async with administrator(self._config, self._installation.state_dir) as admin:
            answer = await admin.connection_manager(name).RevokeLogins(
                connmgr_pb2.RevokeLoginsRequest(
                    client_address=ipaddress.ip_address(address).packed, reason="demonstration"
                )
            )
        return answer.revoked

    def _expect_in_sink(self, subject: str, user: str) -> None:
        text = self._wait(lambda: self._sink_message(subject), f"{subject!r} is not at example.net")
        header = text.partition("\r\n\r\n")[0]
        names = re.findall(r"^X-Auth-OK: (.*)$", header, re.MULTILINE)
        for line in header.split("\r\n"):
            self._console.print(Text(f"  | {line}", style="yellow"), soft_wrap=True)
        if len(names) != 1 or user not in re.split(r"[@\s]", names[0].strip()):
            raise Differs(f"X-Auth-OK does not name {user}: {names}")

    def _sink_message(self, subject: str) -> str | None:
        for path in sorted(self._sink.glob("*.eml"), reverse=True):
            text = path.read_bytes().decode("utf-8", "replace")
            if f"\r\nSubject: {subject}\r\n" in text:
                return text
        return None

    def _expect_in_mailbox(
        self,
        server: MessagingServerConfig,
        user: str,
        password: str,
        subject: str,
        source: str | None = None,
    ) -> None:
        place = self._place(server, "pop3", source or self._address(11))

        def look() -> bool | None:
            with Dialogue(place, quiet) as pop3:
                pop3.expect(r"^\+OK")
                pop3.say(f"USER {user}", r"^\+OK")
                pop3.say(f"PASS {password}", r"^\+OK", shown="PASS ********")
                count = int(pop3.say("STAT", r"^\+OK")[0].split()[1])
                for number in range(count, max(0, count - 20), -1):
                    pop3.say(f"TOP {number} 0", r"^\+OK")
                    if f"Subject: {subject}" in pop3.read_text():
                        pop3.say("QUIT", r"^\+OK")
                        return True
                pop3.say("QUIT", r"^\+OK")
            return None

        quiet = Console(quiet=True)
        self._wait(look, f"{subject!r} is not in {user}'s mailbox")
        self._console.print(f"  {subject!r} is in {user}'s mailbox, read through {server.name}")

    def _wait(self, look: Callable[[], T | None], otherwise: str) -> T:
        end = time.monotonic() + _ARRIVAL
        while (found := look()) is None:
            if time.monotonic() > end:
                raise Differs(otherwise)
            time.sleep(0.05)
        return found

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.load_verify_locations(self._installation.state_dir / "ca" / "ca.pem")
        return context
