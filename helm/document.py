"""Writes each chart's values.schema.json and README.md from the comments in its values.yaml.

A value's text is the comment above it that begins with `# -- `. A line `# @enum a, b` lists what it
may be, `# @type integer, string` what kinds. An empty map may hold anything; any other map holds
the keys that stand in it, and no others.

Usage: python helm/document.py [--check]
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

CHARTS = Path(__file__).parent / "netmail"
_KINDS = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "seq": "array"}


@dataclass(frozen=True, slots=True)
class Value:
    """One key of values.yaml; `children` is None where it is no map with keys of its own."""

    key: str
    text: str
    default: Any
    kinds: tuple[str, ...]
    enum: tuple[str, ...] = ()
    children: "tuple[Value, ...] | None" = field(default=None)


def read_values(path: Path) -> tuple[Value, ...]:
    """Reads values.yaml with its comments."""
    text = path.read_text(encoding="utf-8")
    root = yaml.compose(text)
    if not isinstance(root, yaml.MappingNode):
        raise TypeError(f"{path}: not a map")
    return _children(root, text.splitlines())


def _children(node: yaml.MappingNode, lines: list[str]) -> tuple[Value, ...]:
    return tuple(_value(key, value, lines) for key, value in node.value)


def _value(key: yaml.ScalarNode, node: yaml.Node, lines: list[str]) -> Value:
    comment = _comment(lines, key.start_mark.line)
    enum = _tagged(comment, "enum")
    kinds = _tagged(comment, "type")
    children = None
    if isinstance(node, yaml.MappingNode):
        kinds = kinds or ("object",)
        children = _children(node, lines) if node.value else None
    else:
        kinds = kinds or (_KINDS[node.tag.rpartition(":")[2]],)
    return Value(
        key=key.value,
        text=" ".join(line for line in comment if not line.startswith("@")),
        default=yaml.safe_load(yaml.serialize(node)),
        kinds=kinds,
        enum=enum,
        children=children,
    )


def _comment(lines: list[str], line: int) -> list[str]:
    """The comment right above a line, from its `# -- ` on."""
    found: list[str] = []
    while line and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        text = lines[line].lstrip().removeprefix("#").strip()
        found.insert(0, text.removeprefix("-- "))
        if text.startswith("-- "):
            return found
    return []


def _tagged(comment: list[str], tag: str) -> tuple[str, ...]:
    for line in comment:
        if match := re.fullmatch(rf"@{tag} (.*)", line):
            return tuple(word.strip() for word in match[1].split(","))
    return ()


def schema_of(values: tuple[Value, ...], subcharts: set[str]) -> dict[str, Any]:
    """JSON Schema of a chart's values; those of a subchart are its own schema's business."""
    properties: dict[str, Any] = {value.key: _schema(value, subcharts) for value in values}
    for name in ("global", *sorted(subcharts)):
        properties.setdefault(name, {"type": "object"})
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def _schema(value: Value, subcharts: set[str]) -> dict[str, Any]:
    kinds = list(value.kinds)
    schema: dict[str, Any] = {"type": kinds[0] if len(kinds) == 1 else kinds}
    if value.text:
        schema["description"] = value.text
    if value.enum:
        schema["enum"] = list(value.enum)
    if value.children is not None and value.key not in subcharts:
        # Other charts may have words of their own for all.
        schema["additionalProperties"] = value.key == "global"
        schema["properties"] = {one.key: _schema(one, subcharts) for one in value.children}
    return schema


def rows(values: tuple[Value, ...], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Key, default and text of every value that is no map with keys of its own."""
    for value in values:
        name = f"{prefix}{value.key}"
        if value.children is None:
            yield name, json.dumps(value.default, ensure_ascii=False), value.text
        else:
            yield from rows(value.children, f"{name}.")


def readme_of(chart: dict[str, Any], values: tuple[Value, ...]) -> str:
    """README.md of a chart."""
    lines = [f"# {chart['name']}", "", f"{chart['description']}.", "", "## Values", ""]
    lines += ["| Key | Default | |", "|---|---|---|"]
    for name, default, text in rows(values):
        cells = (f"`{name}`", f"`{default}`", text)
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    lines += ["", "Made from the comments in values.yaml by `python helm/document.py`.", ""]
    return "\n".join(lines)


def documents() -> dict[Path, str]:
    """What should stand in the generated files of every chart."""
    made: dict[Path, str] = {}
    for path in (CHARTS / "values.yaml", *sorted(CHARTS.glob("charts/*/values.yaml"))):
        folder = path.parent
        chart = yaml.safe_load((folder / "Chart.yaml").read_text(encoding="utf-8"))
        values = read_values(path)
        subcharts = {one.name for one in (folder / "charts").iterdir()}
        schema = schema_of(values, subcharts)
        made[folder / "values.schema.json"] = json.dumps(schema, indent=2) + "\n"
        made[folder / "README.md"] = readme_of(chart, values)
    return made


def main(*, check: bool) -> int:
    """Writes the files; with CHECK it says which are out of date."""
    stale = [
        path
        for path, text in documents().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path in stale:
        if not check:
            path.write_text(documents()[path], encoding="utf-8")
        word = "out of date" if check else "written"
        sys.stdout.write(f"{word}: {path.relative_to(CHARTS.parent)}\n")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
