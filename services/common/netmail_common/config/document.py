"""The configuration's reference page, made from the schema.

`python -m netmail_common.config.document > docs/configuration.md`
"""

import json
import sys
import types
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from netmail_common.config._base import is_reloaded
from netmail_common.config.installation import Installation

_HEAD = """# Configuration

One file (YAML, JSON or TOML) for the whole installation; every agent reads the same one. An
unknown key stops the start and is named. `netmail config check` checks a file, `netmail config
show --json` prints the effective configuration, `netmail config schema` prints JSON Schema.
`{state}` in any string is the state directory. Durations are seconds, or a number with `s`, `m`,
`h` or `d`.

Agents look at the file each second, and take what is marked **live** while they run. What is not,
waits for a restart of the agents that it is about: they say so in a log line and in the metric
`netmail_config_restart_needed`. A file that is not usable changes nothing: the last good one stays
in force, which a log line, `netmail_config_usable` 0 and an alert tell. Of the files that are named
here, certificates are always looked at, others where it says so.

This page is made from the schema.
"""


def document() -> str:
    """The page, in Markdown: a table for each section, in the order they are met."""
    parts = [_HEAD]
    seen: set[type[BaseModel]] = set()
    waiting: list[tuple[str, type[BaseModel], bool]] = [("", Installation, False)]
    while waiting:
        path, section, live = waiting.pop(0)
        if section in seen:
            continue
        seen.add(section)
        parts.append(_section(path, section, live=live))
        inner: list[tuple[str, type[BaseModel], bool]] = []
        for name, field in section.model_fields.items():
            key = f"{path}.{name}" if path else name
            below = live or is_reloaded(field)
            inner.extend((*found, below) for found in _sections_of(key, field.annotation))
        waiting = inner + waiting
    return "\n".join(parts)


def _section(path: str, section: type[BaseModel], *, live: bool) -> str:
    title = f"`{path}`" if path else "The file"
    lines = [f"## {title}", "", _one_line(section.__doc__ or ""), ""]
    lines += ["| key | type | default | live | meaning |", "|---|---|---|---|---|"]
    lines += [
        f"| `{name}` | {_cell(_type(field))} | {_cell(_default(field))} |"
        f" {'live' if live or is_reloaded(field) else ''} |"
        f" {_cell(_one_line(field.description or ''))} |"
        for name, field in section.model_fields.items()
    ]
    return "\n".join([*lines, ""])


def _sections_of(path: str, annotation: Any) -> list[tuple[str, type[BaseModel]]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [(path, annotation)]
    suffix = "[]" if get_origin(annotation) is list else ""
    return [
        found
        for argument in get_args(annotation)
        for found in _sections_of(path + suffix, argument)
    ]


def _type(field: FieldInfo) -> str:
    text = _type_name(field.annotation)
    bounds = [
        f"{sign} {getattr(rule, name):.12g}"
        for rule in field.metadata
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if getattr(rule, name, None) is not None
    ]
    return ", ".join([text, *bounds])


def _type_name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is list:
        return f"list of {_type_name(arguments[0])}"
    if origin is dict:
        key, value = (_type_name(argument) for argument in arguments)
        return f"{value} for each of {key}"
    if origin in {Union, types.UnionType}:
        return " or ".join(_type_name(a) for a in arguments if a is not types.NoneType)
    if hasattr(annotation, "__metadata__"):
        return _type_name(arguments[0])
    if arguments:
        return ", ".join(f"`{a}`" for a in arguments)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    names = {
        "str": "text",
        "int": "number",
        "float": "number",
        "bool": "yes/no",
        "SecretStr": "text",
    }
    name = getattr(annotation, "__name__", str(annotation))
    if hasattr(annotation, "__members__"):
        return ", ".join(f"`{member}`" for member in annotation)
    return names.get(name, name.lower())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined or value is None or isinstance(value, BaseModel):
        return ""
    if isinstance(value, list):
        return ", ".join(f"`{item}`" for item in value) or "empty"
    return f"`{json.dumps(value, default=str)}`"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(document())
