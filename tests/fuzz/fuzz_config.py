"""Fuzz target: configuration files: read, or refused in words."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from netmail_common.config import ConfigError, Installation, load_config

_SUFFIXES = (".yaml", ".json", ".toml")
_FOLDER = tempfile.TemporaryDirectory(prefix="netmail-fuzz-config-")


def seeds() -> Iterable[bytes]:
    """Small installations. The first octet says which format."""
    yield (
        b"\x00connection_managers: [{name: main, listen: ['127.0.0.1:7700']}]\n"
        b"messaging_servers:\n- name: mail1\n  host_name: mail1.example.org\n"
        b"  domains: [example.org]\n  contexts: [{name: users.demo}]\n  connection_manager: main\n"
        b"  nmap: {listen: ['[::1]:7710']}\n"
        b"  smtp: {listeners: [{name: mx, listen: ['127.0.0.1:25']}], relay_domains: [b.example]}\n"
    )
    yield (
        b'\x01{"messaging_servers": [{"name": "a", "host_name": "a.example", "domains": ["x"],'
        b' "contexts": [{"name": "c"}], "nmap": {"listen": ["h:1"]}, "ube_relaying":'
        b' {"smtp_after_pop": false}}], "log": {"level": "debug"}}'
    )
    yield b'\x02installation = "x"\n[[messaging_servers]]\nname = "a"\nhost_name = "15m"\n'
    yield b"\x00a: &a [*a, *a]\n"
    yield b"\x00" + b"[" * 2000
    yield b"\x01" + b"[" * 2000


def one_input(data: bytes) -> None:
    """Any file gives an installation or a ConfigError with words."""
    suffix = _SUFFIXES[data[0] % 3] if data else ".yaml"
    path = Path(_FOLDER.name) / f"config{suffix}"
    path.write_bytes(data[1:])
    try:
        installation = load_config(path)
    except ConfigError as error:
        _check_words(str(error), str(path))
        return
    assert isinstance(installation, Installation)
    assert installation.messaging_servers


def _check_words(text: str, path: str) -> None:
    assert text.startswith(f"{path}: ")
    assert len(text) > len(path) + 2
