"""Renders the charts by the real Helm engine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from helm_python import Chart

ROOT = Path(__file__).resolve().parents[2] / "helm" / "netmail"


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a chart makes of values: manifests by the template's path."""

    texts: dict[str, str]

    @property
    def objects(self) -> list[dict[str, Any]]:
        """Every object, in no order."""
        return [
            one
            for path, text in self.texts.items()
            if not path.endswith("NOTES.txt")
            for one in yaml.safe_load_all(text)
            if one
        ]

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """Every object of a kind."""
        return [one for one in self.objects if one["kind"] == kind]

    def object(self, kind: str, name: str) -> dict[str, Any]:
        """The object; there must be exactly one."""
        (found,) = (one for one in self.of_kind(kind) if one["metadata"]["name"] == name)
        return found


def render(
    values: dict[str, Any] | None = None, *, chart: Path = ROOT, name: str = "netmail"
) -> Rendered:
    """Renders a chart as `helm install` does.

    Raises: HelmError.
    """
    with Chart.load(chart) as loaded:
        return Rendered(loaded.render(values or {}, name=name, namespace="netmail"))
