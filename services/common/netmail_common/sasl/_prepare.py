"""Preparation of user names and passwords (RFC 4013, RFC 4616 2)."""

import unicodedata

from scramp.utils import ScramException, saslprep

MAX_NAME_OCTETS = 255
MAX_PASSWORD_OCTETS = 1024


def check_user_name(name: str) -> str:
    """Gives the name in NFC if it can be one: no control characters, 1 to 255 octets.

    Raises: ValueError, its text says why without repeating the name.
    """
    normal = name if name.isascii() else unicodedata.normalize("NFC", name)
    if not normal:
        raise ValueError("a user name is not empty")
    for character in normal:
        if unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}:
            raise ValueError("a user name has no control characters")
    if len(normal.encode("utf-8")) > MAX_NAME_OCTETS:
        raise ValueError("a user name has at most 255 octets")
    return normal


def prepare_password(password: str) -> str:
    """Gives the form of a password that is hashed and compared: SASLprep (RFC 4013).

    A password that SASLprep refuses, such as one with characters newer than Unicode 3.2, stands
    for itself; both sides then agree as long as they send the same characters.

    Raises: ValueError for an empty one, one with NUL, or one of more than 1024 octets.
    """
    try:
        octets = len(password.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise ValueError("a password is Unicode text") from error
    if octets > MAX_PASSWORD_OCTETS:
        raise ValueError("a password has at most 1024 octets")
    if not password or "\0" in password:
        raise ValueError("a password is not empty and has no NUL")
    if password.isascii() and password.isprintable():
        return password
    try:
        return str(saslprep(password)) or password
    except ScramException:
        return password
