"""Scripted IMAP sessions over real sockets."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pop_imap.agents import Agents
from tests.pop_imap.dialogue import Player

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("imap*.test"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_session_goes_as_written(
    script: Path, agents: Agents, new_user: Callable[[], str]
) -> None:
    Player(agents, new_user()).play(script)
