"""The command line of `netmail`."""

import importlib.metadata
import platform

import typer

from netmail_cli.commands.backup import backup, restore
from netmail_cli.commands.certificates import certificates_app
from netmail_cli.commands.configuration import config_app
from netmail_cli.commands.demo import demo
from netmail_cli.commands.devices import device_app
from netmail_cli.commands.doctor import doctor
from netmail_cli.commands.explain import explain
from netmail_cli.commands.history import history
from netmail_cli.commands.logins import login_app
from netmail_cli.commands.queue import queue_app
from netmail_cli.commands.roundtrip import roundtrip
from netmail_cli.commands.run import run
from netmail_cli.commands.transfer import export_mail, import_mail
from netmail_cli.commands.users import context_app, user_app
from netmail_cli.context import JsonOption, Output

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="NetMail: runs and administers an installation.",
)
app.command("run")(run)
app.command("demo")(demo)
app.command("doctor")(doctor)
app.command("roundtrip")(roundtrip)
user_app.add_typer(device_app, name="device")
app.add_typer(user_app, name="user")
app.add_typer(context_app, name="context")
login_app.command("explain")(explain)
login_app.command("history")(history)
app.add_typer(login_app, name="login")
app.add_typer(queue_app, name="queue")
app.command("export")(export_mail)
app.command("import")(import_mail)
app.command("backup")(backup)
app.command("restore")(restore)
app.add_typer(config_app, name="config")
app.add_typer(certificates_app, name="certificates")


@app.command("version")
def version(json: JsonOption = False) -> None:
    """Prints the versions."""
    own = importlib.metadata.version("netmail-cli")
    Output(json).done(f"netmail {own}", {"netmail": own, "python": platform.python_version()})


def main() -> None:
    """Runs the command line."""
    app()


if __name__ == "__main__":
    main()
