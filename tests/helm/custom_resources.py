"""Custom resources against the schemas of their CustomResourceDefinitions.

Those lie in `schemas`, one file for each kind and version: what an API server would take, without
descriptions and rules of CEL. `python -m tests.helm.custom_resources CRD.yaml... --kinds A,B`
writes them anew from the definitions that a project ships.
"""

import argparse
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import yaml

SCHEMAS = Path(__file__).parent / "schemas"
_DROPPED = ("description", "example", "externalDocs", "format")


class _Loader(yaml.SafeLoader):
    """Takes `=` for the string that it is in operators of Prometheus."""


_Loader.yaml_implicit_resolvers = {
    key: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:value"]
    for key, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def schema_path(api_version: str, kind: str) -> Path:
    """Where a kind's schema lies; `group/version` becomes a part of the name."""
    group, _, version = api_version.partition("/")
    return SCHEMAS / f"{kind}.{version}.{group}.json"


@functools.cache
def _validator(path: Path) -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(json.loads(path.read_text(encoding="utf-8")))


def validate(one: dict[str, Any]) -> None:
    """Raises: ValueError, in words, when no API server would take it, or its kind is unknown."""
    path = schema_path(one["apiVersion"], one["kind"])
    if not path.exists():
        raise ValueError(f"no schema of {one['apiVersion']} {one['kind']}")
    errors = [
        f"{one['kind']} {one['metadata']['name']}: {error.json_path}: {error.message}"
        for error in _validator(path).iter_errors(one)
    ]
    if errors:
        raise ValueError("; ".join(errors))


def schemas_of(definition: dict[str, Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A CustomResourceDefinition's schemas, one for each served version."""
    spec = definition["spec"]
    for version in spec["versions"]:
        if version["served"]:
            schema = _strict(version["schema"]["openAPIV3Schema"])
            schema["properties"] |= {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object"},
            }
            api_version = f"{spec['group']}/{version['name']}"
            yield schema_path(api_version, spec["names"]["kind"]), schema


def _strict(schema: dict[str, Any], *, refuse: bool = True) -> dict[str, Any]:
    """An OpenAPI schema as JSON Schema, in which fields that it does not know are refused.

    REFUSE is False below allOf, anyOf and the like, which say more about fields known above.
    """
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if key.startswith("x-kubernetes-") or key in {*_DROPPED, "nullable", "default"}:
            continue
        if key == "properties":
            made[key] = {name: _strict(one, refuse=refuse) for name, one in value.items()}
        elif key in {"items", "additionalProperties", "not"} and isinstance(value, dict):
            made[key] = _strict(value, refuse=refuse and key != "not")
        elif key in {"allOf", "anyOf", "oneOf"}:
            made[key] = [_strict(one, refuse=False) for one in value]
        else:
            made[key] = value
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
        made.setdefault("anyOf", [{"type": "integer"}, {"type": "string"}])
    if schema.get("nullable") and "type" in made:
        made["type"] = [made["type"], "null"]
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields", False)
    if refuse and "properties" in made and not open_ended:
        made.setdefault("additionalProperties", False)
    return made


def main() -> None:
    """Writes the schemas of some kinds."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="CRD.yaml")
    parser.add_argument("--kinds", required=True, help="separated by commas")
    given = parser.parse_args()
    kinds = set(given.kinds.split(","))
    for file in given.files:
        for definition in yaml.load_all(file.read_text(encoding="utf-8"), _Loader):
            if not definition or definition["kind"] != "CustomResourceDefinition":
                continue
            if definition["spec"]["names"]["kind"] in kinds:
                for path, schema in schemas_of(definition):
                    path.write_text(json.dumps(schema, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
