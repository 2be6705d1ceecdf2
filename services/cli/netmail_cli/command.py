"""Commands that ask the agents: what they have in common stands here once."""

import functools
import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec

import typer

from netmail_cli.admin import Administrator, administrator
from netmail_cli.context import ConfigOption, JsonOption, Output, StateOption, perform

__all__ = ["Call", "admin_command", "asking"]

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a command: whom it asks, and where its answer goes."""

    admin: Administrator
    output: Output


def asking(work: Callable[Concatenate[Call, P], Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Makes a coroutine a command's function, with --config, --state and --json behind its own.

    Its errors become a sentence and an exit code.
    """
    own = inspect.signature(work)
    common = inspect.signature(_common)

    @functools.wraps(work)
    def command(**options: Any) -> None:
        config, state, json = (options.pop(name) for name in common.parameters)
        output = Output(json)

        async def run() -> None:
            async with administrator(config, state) as admin:
                await work(Call(admin, output), **options)  # type: ignore[call-arg]

        perform(output, run)

    parameters = [*list(own.parameters.values())[1:], *common.parameters.values()]
    command.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command


def admin_command(
    app: typer.Typer, name: str
) -> Callable[
    [Callable[Concatenate[Call, P], Coroutine[Any, Any, None]]],
    Callable[Concatenate[Call, P], Coroutine[Any, Any, None]],
]:
    """Makes a coroutine a command of APP, as `asking` does."""

    def register(
        work: Callable[Concatenate[Call, P], Coroutine[Any, Any, None]],
    ) -> Callable[Concatenate[Call, P], Coroutine[Any, Any, None]]:
        app.command(name)(asking(work))
        return work

    return register


def _common(
    config: ConfigOption = None, state: StateOption = None, json: JsonOption = False
) -> None:
    """The options that every such command has."""
