"""`netmail config ...`."""

import sys

import typer
import yaml
from netmail_common.config import Installation

from netmail_cli.context import (
    ConfigOption,
    JsonOption,
    Output,
    StateOption,
    find_configuration,
    perform,
)

__all__ = ["config_app"]

config_app = typer.Typer(no_args_is_help=True, help="The configuration file.")


@config_app.command("check")
def check(config: ConfigOption = None, state: StateOption = None, json: JsonOption = False) -> None:
    """Checks a configuration; exit code 78 if it is not usable."""
    output = Output(json)

    async def work() -> None:
        path, _ = find_configuration(config, state)
        output.done(f"{path}: good", {"config": str(path), "good": True})

    perform(output, work)


@config_app.command("schema")
def schema() -> None:
    """Prints the JSON Schema of the configuration."""
    Output(json=True).data(Installation.model_json_schema())


@config_app.command("show")
def show(config: ConfigOption = None, state: StateOption = None, json: JsonOption = False) -> None:
    """Prints the effective configuration, defaults included, passwords not."""
    output = Output(json)

    async def work() -> None:
        _, installation = find_configuration(config, state)
        data = installation.model_dump(mode="json")
        if json:
            output.data(data)
        else:
            yaml.safe_dump(data, sys.stdout, sort_keys=False, allow_unicode=True)

    perform(output, work)
