"""Reads a configuration file; says what is wrong by key."""

import json
import tomllib
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from netmail_common.config.installation import Installation


class ConfigError(Exception):
    """The configuration is not usable; the text names the key."""


def load_config(path: Path, *, state: Path | None = None) -> Installation:
    """Reads FILE (YAML, JSON or TOML by its ending).

    Args:
        path: the file.
        state: overrides `state_dir`.

    Raises: ConfigError.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    try:
        return parse_config(_decode(text, path.suffix), state=state)
    except (ConfigError, yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None


def parse_config(data: Any, *, state: Path | None = None) -> Installation:
    """Checks decoded configuration data against the schema.

    `{state}` in any string becomes the state directory.

    Raises: ConfigError, one line per fault, each with its key.
    """
    if not isinstance(data, dict):
        raise ConfigError("the configuration is not a mapping")
    state = state or Path(str(data.get("state_dir", "var")))
    data = _with_listener_certificates({**data, "state_dir": str(state)}, state)
    try:
        return Installation.model_validate(_expand(data, str(state)))
    except ValidationError as error:
        raise ConfigError(explain_faults(error)) from None


def explain_faults(error: ValidationError) -> str:
    """One line per fault, each with its key."""
    return "\n".join(_explain(fault) for fault in error.errors())


def listener_certificate(state: Path, server: str) -> tuple[Path, Path]:
    """Certificate and key of a Messaging Server whose configuration names none.

    `netmail run` makes them.
    """
    folder = state / "tls" / "listeners"
    return folder / f"{server}.pem", folder / f"{server}.key"


def _with_listener_certificates(data: dict[str, Any], state: Path) -> dict[str, Any]:
    servers = data.get("messaging_servers")
    if not isinstance(servers, list):
        return data
    return {**data, "messaging_servers": [_with_certificate(s, state) for s in servers]}


def _with_certificate(server: Any, state: Path) -> Any:
    if not isinstance(server, dict):
        return server
    tls = server.get("tls", {})
    if not isinstance(tls, dict) or {"certificate", "key"} & set(tls):
        return server
    certificate, key = listener_certificate(state, str(server.get("name")))
    return {**server, "tls": {**tls, "certificate": str(certificate), "key": str(key)}}


def _decode(text: str, suffix: str) -> Any:
    if suffix == ".json":
        return json.loads(text)
    if suffix == ".toml":
        return tomllib.loads(text)
    return yaml.safe_load(text)


def _expand(value: Any, state: str) -> Any:
    if isinstance(value, str):
        return value.replace("{state}", state)
    if isinstance(value, dict):
        return {key: _expand(item, state) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, state) for item in value]
    return value


def _explain(fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"]) or "configuration"
    if fault["type"] == "extra_forbidden":
        return f"{key}: unknown key"
    return f"{key}: {fault['msg']}"
