"""What every command knows: the configuration, where the state is, how to answer."""

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import grpc
import typer
from netmail_common.config import ConfigError, Installation, load_config
from netmail_common.grpc_errors import error_reason
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from netmail_cli.demo import DEMO_CONFIG
from netmail_cli.exit_codes import ExitCode
from netmail_cli.state import RunRecord

__all__ = [
    "ConfigOption",
    "Failure",
    "JsonOption",
    "Output",
    "StateOption",
    "find_configuration",
    "perform",
]

T = TypeVar("T")

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        envvar="NETMAIL_CONFIG",
        help="Configuration; default: that of the last `netmail run` in the state directory.",
    ),
]
StateOption = Annotated[
    Path | None,
    typer.Option(
        "--state",
        metavar="DIR",
        envvar="NETMAIL_STATE",
        help="State directory; default: the configuration's.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]

_STATUS_CODES = {
    grpc.StatusCode.NOT_FOUND: ExitCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: ExitCode.EXISTS,
    grpc.StatusCode.INVALID_ARGUMENT: ExitCode.USAGE,
    grpc.StatusCode.UNAVAILABLE: ExitCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: ExitCode.UNAVAILABLE,
    grpc.StatusCode.PERMISSION_DENIED: ExitCode.NO_PERMISSION,
}


class Failure(Exception):
    """A command cannot do what it was asked; its text is for people."""

    def __init__(self, code: ExitCode, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


def find_configuration(config: Path | None, state: Path | None) -> tuple[Path, Installation]:
    """The file and what it says.

    Without --config: the one that was last run in the state directory, else the demonstration's.

    Raises: ConfigError.
    """
    if config is None:
        record = RunRecord.read(state or Path("var"))
        config = Path(record.config) if record else DEMO_CONFIG
    return config, load_config(config, state=state)


@dataclass(frozen=True, slots=True)
class Output:
    """Tables for people, JSON for programs."""

    json: bool

    def records(
        self, title: str, columns: Sequence[str], records: Sequence[dict[str, Any]]
    ) -> None:
        """Several things of one kind; COLUMNS are the keys that people see."""
        if self.json:
            self.data(list(records))
            return
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for column in columns:
            table.add_column(column.replace("_", " "), overflow="fold")
        for record in records:
            table.add_row(*(_shown(record[column]) for column in columns))
        Console().print(table)

    def record(self, record: dict[str, Any]) -> None:
        """One thing, a line for each of its keys."""
        if self.json:
            self.data(record)
            return
        table = Table(show_header=False, box=None, pad_edge=False)
        for key, value in record.items():
            table.add_row(f"{key.replace('_', ' ')}:", _shown(value))
        Console().print(table)

    def done(self, text: str, record: dict[str, Any] | None = None) -> None:
        """Something was done."""
        if self.json:
            self.data(record or {})
        else:
            Console().print(text, markup=False, highlight=False)

    def data(self, data: Any) -> None:
        """JSON on standard output."""
        json.dump(data, sys.stdout, ensure_ascii=False, indent=2)
        sys.stdout.write("\n")

    def fail(self, failure: Failure) -> NoReturn:
        """Says why on standard error; ends with the failure's exit code."""
        if self.json:
            error = {"error": str(failure), "reason": failure.reason, "exit_code": failure.code}
            sys.stderr.write(json.dumps(error, ensure_ascii=False) + "\n")
        else:
            sys.stderr.write(f"netmail: {failure}\n")
        raise typer.Exit(int(failure.code))


def perform(output: Output, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Runs WORK; every error becomes a sentence and an exit code."""
    try:
        return asyncio.run(work())
    except Failure as failure:
        output.fail(failure)
    except ConfigError as error:
        output.fail(Failure(ExitCode.CONFIG, str(error)))
    except grpc.aio.AioRpcError as error:
        code = _STATUS_CODES.get(error.code(), ExitCode.FAILED)
        output.fail(Failure(code, error.details() or error.code().name, error_reason(error)))


def _shown(value: Any) -> Text:
    """A cell as it is: what comes from outside is no markup and says nothing to the terminal."""
    text = _cell(value)
    return Text("".join(one if one.isprintable() or one == "\n" else "?" for one in text))


def _cell(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "\n".join(_cell(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
