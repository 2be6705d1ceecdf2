"""Maildir++: a file for each message, a folder for each mailbox, as Dovecot and Courier have them.

A file is named DATE.U<uid>V<uid validity>.netmail,S=<octets>:2,<flags>, so that a second export
into the same Maildir writes each message once and an import knows the internal date whatever became
of the file's own. Keywords are letters, explained by `dovecot-keywords` of the folder; those beyond
its 26 are in `netmail-keywords`, a line with the file's name and its keywords for each message.
"""

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from netmail_cli.mailfiles.message import FORWARDED, FileMessage, MailFileError, Problem
from netmail_cli.mailfiles.names import INBOX, folder_name, mailbox_name

__all__ = [
    "MaildirFolder",
    "maildir_mailboxes",
    "read_folder",
    "read_subscriptions",
    "write_subscriptions",
]

_FLAGS = {"D": "\\Draft", "F": "\\Flagged", "R": "\\Answered", "S": "\\Seen", "T": "\\Deleted"}
_LETTERS = {flag: letter for letter, flag in _FLAGS.items()}
_PASSED = "P"
_OURS = re.compile(r"(-?\d{1,18})\.U(\d{1,10})V\d{1,10}\.netmail,S=(\d{1,18})")
_KEYWORDS = "dovecot-keywords"
_MORE_KEYWORDS = "netmail-keywords"
_SUBSCRIPTIONS = "subscriptions"


class MaildirFolder:
    """A mailbox's folder that is written to. Raises: OSError, as its methods do."""

    def __init__(self, root: Path, mailbox: str) -> None:
        name = folder_name(mailbox)
        self._folder = root / name if name else root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for part in ("cur", "new", "tmp"):
            (self._folder / part).mkdir(mode=0o700, exist_ok=True)
        if name:
            (self._folder / "maildirfolder").touch(mode=0o600)
        self._files = {
            file.name.partition(":2,")[0]: file
            for part in ("cur", "new")
            for file in (self._folder / part).iterdir()
        }
        self._keywords = _read_keywords(self._folder)
        self._more = _read_more_keywords(self._folder)

    @staticmethod
    def base(date: int, uid: int, uid_validity: int, size: int) -> str:
        """A message's file name without its flags."""
        return f"{date}.U{uid}V{uid_validity}.netmail,S={size}"

    def has(self, base: str) -> bool:
        """Whether an earlier export wrote the message."""
        return base in self._files

    def set_flags(self, base: str, flags: Sequence[str]) -> None:
        """Gives a message that is there its flags of now."""
        file = self._files[base]
        wanted = self._folder / "cur" / f"{base}:2,{self._info(base, flags)}"
        if file != wanted:
            file.rename(wanted)
            self._files[base] = wanted

    def add(self, base: str, message: FileMessage) -> None:
        """Writes a message; it appears whole."""
        temporary = self._folder / "tmp" / base
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(message.data)
        if message.date is not None:
            os.utime(temporary, (message.date, message.date))
        final = self._folder / "cur" / f"{base}:2,{self._info(base, message.flags)}"
        temporary.rename(final)
        self._files[base] = final

    def finish(self) -> None:
        """Writes what the keywords' letters mean."""
        if self._keywords:
            lines = (f"{number} {name}\n" for number, name in enumerate(self._keywords))
            _replace(self._folder / _KEYWORDS, "".join(lines))
        if self._more or (self._folder / _MORE_KEYWORDS).exists():
            lines = (f"{base}\t{' '.join(names)}\n" for base, names in self._more.items())
            _replace(self._folder / _MORE_KEYWORDS, "".join(lines))

    def _info(self, base: str, flags: Sequence[str]) -> str:
        letters = [_LETTERS[flag] for flag in flags if flag in _LETTERS]
        letters += [_PASSED] if FORWARDED in flags else []
        more = []
        for keyword in (flag for flag in flags if not flag.startswith("\\")):
            if keyword not in self._keywords and len(self._keywords) < 26:
                self._keywords.append(keyword)
            if keyword in self._keywords:
                letters.append(chr(ord("a") + self._keywords.index(keyword)))
            else:
                more.append(keyword)
        self._more.pop(base, None)
        if more:
            self._more[base] = tuple(more)
        return "".join(sorted(letters))


def maildir_mailboxes(root: Path) -> tuple[list[tuple[str, Path]], list[Problem]]:
    """The mailboxes of a Maildir with their folders, INBOX first; and folders that are none.

    Raises: MailFileError when it is no Maildir.
    """
    if not (root / "cur").is_dir():
        raise MailFileError(f"{root} is not a Maildir: it has no folder `cur`")
    found = [(INBOX, root)]
    problems = []
    for folder in sorted(root.iterdir()):
        if not folder.name.startswith(".") or not (folder / "cur").is_dir():
            continue
        if folder.is_symlink():
            problems.append(Problem(str(folder), "is a link to another place"))
            continue
        try:
            found.append((mailbox_name(folder.name), folder))
        except MailFileError as error:
            problems.append(Problem(str(folder), str(error)))
    return found, problems


def read_folder(mailbox: str, folder: Path, *, limit: int) -> Iterator[FileMessage | Problem]:
    """The messages of a folder, in the order in which they came.

    Args:
        mailbox: whose they are.
        folder: with `cur` and `new`.
        limit: octets of one message.
    """
    keywords = _read_keywords(folder)
    more = _read_more_keywords(folder)
    files = [
        file
        for part in ("new", "cur")
        if (folder / part).is_dir()
        for file in (folder / part).iterdir()
        if not file.name.startswith(".")
    ]
    for file in sorted(files, key=_order):
        base, _, info = file.name.partition(":2,")
        try:
            data, changed = _content(file, limit)
        except MailFileError as error:
            yield Problem(str(file), str(error))
            continue
        flags, unknown = _flags(info, keywords)
        if unknown:
            yield Problem(str(file), f"the keywords {unknown} are in no {_KEYWORDS}; left out")
        flags += more.get(base, ())
        ours = _OURS.fullmatch(base)
        date = changed if ours is None else int(ours[1])
        exact = ours is not None and int(ours[3]) == len(data)
        if ours is not None and not exact:
            yield Problem(str(file), f"is not as long as it was ({ours[3]} octets)")
            continue
        yield FileMessage(mailbox, tuple(dict.fromkeys(flags)), date, data, str(file), exact)


def write_subscriptions(root: Path, mailboxes: Iterable[str]) -> None:
    """Writes which mailboxes a user has subscribed to, as Dovecot does."""
    folders = (folder_name(name).removeprefix(".") or INBOX for name in mailboxes)
    lines = (folder.replace(".", "\t") + "\n" for folder in folders)
    _replace(root / _SUBSCRIPTIONS, "V\t2\n\n" + "".join(lines))


def read_subscriptions(root: Path) -> list[str] | None:
    """Which mailboxes were subscribed to; None if nothing says so."""
    try:
        text = (root / _SUBSCRIPTIONS).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    # Version 2 has tabs between the parts of a name.
    lines = text.split("\n")[1:] if text.startswith("V\t2\n") else text.split("\n")
    names = []
    for line in filter(None, lines):
        with contextlib.suppress(MailFileError):
            names.append(mailbox_name("." + line.replace("\t", ".")))
    return names


def _order(file: Path) -> tuple[int, float, str]:
    """Exported messages by UID; others by time, after them."""
    ours = _OURS.match(file.name)
    if ours is not None:
        return 0, int(ours[2]), file.name
    try:
        return 1, file.lstat().st_mtime, file.name
    except OSError:
        return 1, 0.0, file.name


def _content(file: Path, limit: int) -> tuple[bytes, int]:
    """Octets and time. Raises: MailFileError."""
    try:
        # A link might lead to what the Maildir's owner may not read, a pipe would keep us waiting.
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as opened:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise MailFileError("is not a file")
            if status.st_size > limit:
                raise MailFileError("is larger than a message may be")
            return opened.read(limit), int(status.st_mtime)
    except OSError as error:
        raise MailFileError(f"cannot be read: {error.strerror}") from error


def _flags(info: str, keywords: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Flags, and the letters that nothing explains."""
    flags: list[str] = []
    unknown = ""
    for letter in info.partition(",")[0]:
        if letter in _FLAGS:
            flags.append(_FLAGS[letter])
        elif letter == _PASSED:
            flags.append(FORWARDED)
        elif "a" <= letter <= "z":
            number = ord(letter) - ord("a")
            if number < len(keywords) and keywords[number]:
                flags.append(keywords[number])
            else:
                unknown += letter
    return tuple(flags), unknown


def _read_keywords(folder: Path) -> list[str]:
    names: list[str] = []
    for line in _lines(folder / _KEYWORDS):
        number, _, name = line.partition(" ")
        if number.isdecimal() and int(number) < 26 and name:
            names += [""] * (int(number) + 1 - len(names))
            names[int(number)] = name
    return names


def _read_more_keywords(folder: Path) -> dict[str, tuple[str, ...]]:
    found = {}
    for line in _lines(folder / _MORE_KEYWORDS):
        base, _, names = line.partition("\t")
        found[base] = tuple(names.split())
    return found


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _replace(file: Path, text: str) -> None:
    temporary = file.with_name(f".{file.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(0o600)
    temporary.replace(file)
