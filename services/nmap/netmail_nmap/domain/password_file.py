"""The htpasswd file: `name:hash` lines, and how its users join those in the storage."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from netmail_common.mail_address import AddressError, MailAddress, fold, parse_mail_address
from netmail_common.sasl import check_user_name

from netmail_nmap.domain.devices import DeviceUse
from netmail_nmap.domain.users import Credentials, UserLookup, UserRecord


@dataclass(frozen=True, slots=True)
class FileUser:
    """One line."""

    name: str
    name_key: str
    password_hash: str


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is not used.

    Attributes:
        number: from 1.
        fault: why; never the line's text.
    """

    number: int
    fault: str


@dataclass(frozen=True, slots=True)
class PasswordFile:
    """What a file says at one moment, users in their order."""

    users: Mapping[str, FileUser] = field(default_factory=dict)
    bad_lines: tuple[BadLine, ...] = ()

    def get(self, name_key: str) -> FileUser | None:
        """The user of that folded name."""
        return self.users.get(name_key)


def parse_password_file(data: bytes, is_known_hash: Callable[[str], bool]) -> PasswordFile:
    """Reads the lines; empty ones and those that begin with # mean nothing.

    Args:
        data: the file.
        is_known_hash: whether a hash's scheme can be verified.
    """
    users: dict[str, FileUser] = {}
    bad: list[BadLine] = []
    for number, raw in enumerate(data.split(b"\n"), start=1):
        line = raw.removesuffix(b"\r")
        if not line.strip() or line.startswith(b"#"):
            continue
        try:
            user = _parse_line(line, is_known_hash)
        except ValueError as error:
            fault = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            bad.append(BadLine(number, fault))
            continue
        if user.name_key in users:
            bad.append(BadLine(number, "the name is there already"))
            continue
        users[user.name_key] = user
    return PasswordFile(users, tuple(bad))


def _parse_line(line: bytes, is_known_hash: Callable[[str], bool]) -> FileUser:
    name, colon, rest = line.decode("utf-8").partition(":")
    if not colon:
        raise ValueError("no colon")
    name = check_user_name(name)
    password_hash = rest.partition(":")[0].strip()
    if not is_known_hash(password_hash):
        raise ValueError("unknown hash scheme")
    return FileUser(name, fold(name), password_hash)


class FileAwareLookup:
    """A snapshot of the storage in which contexts kept in files have the files' users.

    Storage holds mail, extra addresses and settings of such a user from the first time that he is
    needed; before that he has id 0 and the address name@domain of each domain.
    """

    def __init__(
        self,
        stored: UserLookup,
        files: Mapping[str, PasswordFile],
        domains: tuple[str, ...],
        default_quota: int,
    ) -> None:
        self._stored = stored
        self._files = files
        self._domains = domains
        self._default_quota = default_quota

    def by_name(self, context: str, name_key: str) -> UserRecord | None:
        """The user of that folded name, disabled or not."""
        stored = self._stored.by_name(context, name_key)
        file = self._files.get(context)
        if file is None:
            return stored
        listed = file.get(name_key)
        return None if listed is None else self._join(context, listed, stored)

    def by_address(self, address_key: str) -> UserRecord | None:
        """The user who has the address, disabled or not."""
        stored = self._stored.by_address(address_key)
        if stored is not None:
            file = self._files.get(stored.context)
            if file is None:
                return stored
            listed = file.get(stored.name_key)
            return None if listed is None else self._join(stored.context, listed, stored)
        local, _, domain = address_key.rpartition("@")
        if domain in self._domains:
            for context, file in self._files.items():
                for key in (local, address_key):
                    listed = file.get(key)
                    # Who is stored already has the addresses that are stored, no others.
                    if listed is not None and self._stored.by_name(context, key) is None:
                        return self._join(context, listed, None)
        return None

    def first(self, context: str) -> UserRecord | None:
        """The first user of the context who is not disabled."""
        file = self._files.get(context)
        if file is None:
            return self._stored.first(context)
        for listed in file.users.values():
            user = self._join(context, listed, self._stored.by_name(context, listed.name_key))
            if not user.disabled:
                return user
        return None

    def devices_of(self, user_id: int) -> list[DeviceUse]:
        """The user's device passwords, in the order in which they were made."""
        return self._stored.devices_of(user_id)

    def has_old_devices(self, now: int) -> bool:
        """Whether a device password has come to its end and its logins were not revoked yet."""
        return self._stored.has_old_devices(now)

    def _join(self, context: str, listed: FileUser, stored: UserRecord | None) -> UserRecord:
        credentials = Credentials(listed.password_hash)
        if stored is not None:
            return replace(stored, name=listed.name, credentials=credentials)
        return UserRecord(
            id=0,
            context=context,
            name=listed.name,
            name_key=listed.name_key,
            credentials=credentials,
            addresses=tuple(
                address.wire for address in default_addresses(listed.name, self._domains)
            ),
            quota_bytes=self._default_quota,
        )


def default_addresses(name: str, domains: tuple[str, ...]) -> list[MailAddress]:
    """The addresses of a new user: name@domain for each domain, or the name if it is one."""
    if "@" in name:
        try:
            address = parse_mail_address(name)
        except AddressError:
            return []
        return [address] if address.domain in domains else []
    addresses = []
    for domain in domains:
        try:
            addresses.append(MailAddress.from_wire(f"{name}@{domain}"))
        except AddressError:
            continue
    return addresses
