"""Pages that are made from the code, or that name tests, are true."""

import ast
import re
from functools import cache
from pathlib import Path

from netmail_common.config.document import document

ROOT = Path(__file__).resolve().parents[2]
MATRIX = ROOT / "docs" / "rfc-matrix.md"
_ROW = re.compile(
    r"\| (?P<rfc>RFC \d+|-) \| (?P<section>[^|]*) \| (?P<feature>[^|]+)"
    r" \| (?P<status>Yes|Partly|No) \| (?P<test>[^|]*) \|"
)


def rows() -> list[re.Match[str]]:
    """The matrix's rows, the table's head and rule left out."""
    lines = [
        line
        for line in MATRIX.read_text(encoding="utf-8").splitlines()
        if line.startswith("|") and not line.startswith(("| RFC |", "|---"))
    ]
    matches = [_ROW.fullmatch(line) for line in lines]
    broken = [line for line, match in zip(lines, matches, strict=True) if match is None]
    assert broken == []
    return [match for match in matches if match is not None]


@cache
def names_in(path: Path) -> frozenset[str]:
    """Names of the tests of a file: `test_x`, `TestY::test_x`; or the file itself, a script."""
    if path.suffix != ".py":
        return frozenset()
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names.update(
                f"{node.name}::{inner.name}"
                for inner in node.body
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
            )
    return frozenset(names)


def test_the_configuration_page_is_what_the_schema_gives() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == document()


def test_each_yes_of_the_rfc_matrix_names_its_section_and_a_test_that_is_there() -> None:
    wrong = []
    for row in rows():
        if row["status"] != "Yes":
            continue
        path, _, name = row["test"].strip().strip("`").partition("::")
        file = ROOT / path
        there = file.is_file() and (not name or name in names_in(file))
        if not row["section"].strip() or not there:
            wrong.append(row[0])
    assert wrong == []
