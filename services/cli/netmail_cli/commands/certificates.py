"""`netmail certificates issue|remove`: a CA of the installation's own, in Secrets of a cluster."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Protocol

import typer
from netmail_common.certificates import LocalAuthority
from netmail_common.roles import Role

from netmail_cli.cluster_secrets import ClusterSecrets
from netmail_cli.context import JsonOption, Output, perform

__all__ = ["SecretStore", "certificates_app", "issue_all", "remove_all"]

certificates_app = typer.Typer(
    no_args_is_help=True, help="Certificates of the agents and listeners in a cluster."
)

_TLS = "kubernetes.io/tls"


class SecretStore(Protocol):
    """What certificates are kept in."""

    def read(self, name: str) -> dict[str, bytes] | None:
        """What a Secret holds; None: there is none."""

    def is_ours(self, name: str) -> bool:
        """Whether it is absent, or was made by us."""

    def create(self, name: str, data: Mapping[str, bytes], kind: str = "Opaque") -> bool:
        """Makes a Secret; False: somebody was faster."""

    def write(self, name: str, data: Mapping[str, bytes], kind: str = "Opaque") -> None:
        """Makes a Secret, or replaces its data."""

    def remove(self, name: str) -> bool:
        """Removes a Secret that we made; False: there is none, or it is somebody else's."""


@certificates_app.command("issue")
def issue(
    namespace: Annotated[str, typer.Option("--namespace", help="Where the Secrets are.")],
    prefix: Annotated[str, typer.Option("--prefix", help="Of their names.")],
    host_name: Annotated[str, typer.Option("--host-name", help="Of the public listeners.")],
    installation: Annotated[
        str, typer.Option("--installation", help="Trust domain of the agents.")
    ] = "netmail",
    listeners: Annotated[
        bool, typer.Option("--listeners/--no-listeners", help="Also the listeners' certificate.")
    ] = True,
    json: JsonOption = False,
) -> None:
    """Makes what is missing and renews what is about to end.

    Secrets: PREFIX-ca, which no agent may read; PREFIX-grpc-ROLE for each role; PREFIX-tls.
    """
    output = Output(json)

    async def work() -> None:
        written = issue_all(
            ClusterSecrets(namespace),
            prefix=prefix,
            installation=installation,
            host_name=host_name if listeners else None,
        )
        output.done(f"written: {', '.join(written) or 'nothing'}", {"written": written})

    perform(output, work)


@certificates_app.command("remove")
def remove(
    namespace: Annotated[str, typer.Option("--namespace", help="Where the Secrets are.")],
    prefix: Annotated[str, typer.Option("--prefix", help="Of their names.")],
    json: JsonOption = False,
) -> None:
    """Removes the Secrets that `issue` or cert-manager made for us, the CA's key among them."""
    output = Output(json)

    async def work() -> None:
        removed = remove_all(ClusterSecrets(namespace), prefix=prefix)
        output.done(f"removed: {', '.join(removed) or 'nothing'}", {"removed": removed})

    perform(output, work)


def remove_all(secrets: SecretStore, *, prefix: str) -> list[str]:
    """The Secrets that were removed; those of others stay."""
    authorities = (f"{prefix}-ca", f"{prefix}-cert-manager-ca")
    names = [*authorities, *(_of_role(prefix, role) for role in Role), f"{prefix}-tls"]
    return [name for name in names if secrets.remove(name)]


def _of_role(prefix: str, role: Role) -> str:
    return f"{prefix}-grpc-{role.value.replace('_', '-')}"


def issue_all(
    secrets: SecretStore, *, prefix: str, installation: str, host_name: str | None
) -> list[str]:
    """The Secrets that were made or renewed; HOST_NAME None: none for listeners."""
    written = []
    with tempfile.TemporaryDirectory(prefix="netmail-certificates-") as folder:
        authority, is_new = _authority(secrets, Path(folder) / "ca", f"{prefix}-ca", installation)
        if is_new:
            written.append(f"{prefix}-ca")
        for role in Role:
            name = _of_role(prefix, role)

            def make(where: Path, role: Role = role) -> None:
                authority.issue(role, where)

            if _renew(secrets, name, Path(folder) / role.value, make):
                written.append(name)
        if host_name is not None and secrets.is_ours(f"{prefix}-tls"):

            def make_tls(where: Path) -> None:
                authority.issue_server(host_name, where / "tls.crt", where / "tls.key")

            if _renew(secrets, f"{prefix}-tls", Path(folder) / "tls", make_tls, kind=_TLS):
                written.append(f"{prefix}-tls")
    return written


def _authority(
    secrets: SecretStore, folder: Path, name: str, installation: str
) -> tuple[LocalAuthority, bool]:
    """The CA in the Secret, made if there is none; two that start together take the same one."""
    known = secrets.read(name)
    if known is None:
        _ = LocalAuthority.open_or_create(folder, installation)
        if secrets.create(name, _files(folder)):
            return LocalAuthority.open_or_create(folder, installation), True
        known = secrets.read(name) or {}
    _fill(folder, known)
    return LocalAuthority.open_or_create(folder, installation), False


def _renew(
    secrets: SecretStore,
    name: str,
    folder: Path,
    make: Callable[[Path], None],
    kind: str = "Opaque",
) -> bool:
    """Makes what a Secret should hold; whether it had to be written."""
    known = secrets.read(name) or {}
    _fill(folder, known)
    make(folder)
    made = _files(folder)
    if made == known:
        return False
    secrets.write(name, made, kind)
    return True


def _fill(folder: Path, data: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, octets in data.items():
        path = folder / Path(name).name
        path.touch(mode=0o600)
        path.write_bytes(octets)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
