"""Names that agents send, and the addresses that the address map gives them."""

from pathlib import Path
from typing import Any

import pytest
from netmail_common.config import parse_config
from netmail_common.connmgr.model import ANONYMOUS, UserKey
from netmail_connmgr.adapters.address_book import AddressBook
from netmail_connmgr.adapters.legacy_udp_service import LegacyNames
from netmail_connmgr.domain.door import NotAdmitted

from tests.connmgr.legacy_udp.conftest import installation, setup_for

CLIENT = bytes([192, 0, 2, 1])


def names_over(file: Path) -> tuple[LegacyNames, AddressBook]:
    data: dict[str, Any] = installation().model_dump(mode="json", exclude_unset=True)
    data["connection_managers"][0]["address_map"] = {"file": str(file)}
    setup = setup_for(parse_config(data))
    book = AddressBook(setup.config.address_map, default_context=setup.default_context)
    return LegacyNames(setup, setup.default_context, book), book


async def test_a_map_that_is_read_again_counts_for_names_that_came_before(tmp_path: Path) -> None:
    file = tmp_path / "map"
    file.write_text("sales@example.com alice\n", encoding="utf-8")
    names, book = names_over(file)
    before = names.candidate("alice", CLIENT, "a")
    assert before.user == UserKey("alice", "users.demo")
    assert tuple(before.addresses) == ("sales@example.com",)
    assert tuple(before.domains) == ("example.org", "example.com")
    file.write_text("press@example.net alice\n\n", encoding="utf-8")
    await book.look()
    await book.look()  # a change is taken when two looks agree
    after = names.candidate("alice", CLIENT, "a")
    assert tuple(after.addresses) == ("press@example.net",)
    assert tuple(after.domains) == ("example.org", "example.net")


def test_a_login_has_no_session_that_it_could_repeat_and_nobody_has_nothing(tmp_path: Path) -> None:
    (tmp_path / "map").touch()
    names, _ = names_over(tmp_path / "map")
    assert names.candidate("alice", CLIENT, "a").session_id == ""
    nobody = names.candidate("", CLIENT, "a")
    assert (nobody.user, nobody.messaging_server) == (ANONYMOUS, "")
    assert (*nobody.addresses, *nobody.domains) == ()


@pytest.mark.parametrize("name", ["al\nice", "al\0ice", "\x7f", "x" * 256])
def test_a_name_that_none_can_have_is_not_admitted(tmp_path: Path, name: str) -> None:
    (tmp_path / "map").touch()
    names, _ = names_over(tmp_path / "map")
    for _ in range(2):
        with pytest.raises(NotAdmitted):
            names.candidate(name, CLIENT, "a")
