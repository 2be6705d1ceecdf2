"""Writes which role may call which gRPC method, for meshes, from the agents' own table.

Usage: python helm/methods.py [--check]
"""

import sys
from pathlib import Path

from netmail_common.roles import METHOD_ROLES, Role

PATH = Path(__file__).parent / "netmail" / "charts" / "netmail-lib" / "templates" / "_methods.tpl"
PACKAGES = {"connmgr": "netmail.connmgr.", "nmap": "netmail.nmap."}
COMPONENTS = {
    Role.POP_IMAP: "pop-imap",
    Role.SMTP: "smtp",
    Role.DELIVER: "deliver",
    Role.NMAP: "nmap",
    Role.CONNMGR: "connmgr",
    Role.ADMIN: "cli",
}


def text() -> str:
    """The template: for each agent that serves gRPC, groups of methods that the same roles call."""
    lines = ["{{/* Made by `python helm/methods.py` from the agents' own table of roles. */}}"]
    for agent, package in PACKAGES.items():
        groups: dict[frozenset[Role], list[str]] = {}
        for method, roles in METHOD_ROLES.items():
            if method.startswith((f"/{package}", "/grpc.")):
                groups.setdefault(roles, []).append(method)
        lines.append(f'{{{{- define "netmail.methods.{agent}" -}}}}')
        for roles in sorted(groups, key=lambda roles: sorted(COMPONENTS[role] for role in roles)):
            components = ", ".join(sorted(COMPONENTS[role] for role in roles))
            lines += [f"- callers: [{components}]", "  methods:"]
            lines += [f"    - {method}" for method in sorted(groups[roles])]
        lines.append("{{- end -}}")
    return "\n".join([*lines, ""])


def main(*, check: bool) -> int:
    """Writes the file; with CHECK it says whether it is out of date."""
    made = text()
    stale = not PATH.exists() or PATH.read_text(encoding="utf-8") != made
    if stale:
        if not check:
            PATH.write_text(made, encoding="utf-8")
        sys.stdout.write(f"{'out of date' if check else 'written'}: {PATH}\n")
    return int(check and stale)


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
