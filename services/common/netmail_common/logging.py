"""Structured logging to standard error: JSON, or for people on a terminal.

Agents that answer thousands of requests a second write a line for each: what a line costs counts.
"""

import contextlib
import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Literal, TextIO, cast

import structlog
from structlog import BoundLoggerBase
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from netmail_common.config import LogConfig

__all__ = ["configure_logging", "get_logger", "in_one_write", "set_log_level"]

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def configure_logging(config: LogConfig, *, service: str, instance: str) -> None:
    """Sets up logging for the process; the standard library's loggers go the same way.

    Args:
        config: level and format.
        service: the agent, "smtp".
        instance: which one of them, "mail1" or "mail1/0".
    """
    level = _LEVELS[config.level]
    shared: list[Processor] = [_stamp(service, instance)]
    console = config.format == "console" or (config.format == "auto" and sys.stderr.isatty())
    final: list[Processor]
    if console:
        # Text from outside is quoted: it must not say anything to the terminal.
        final = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), repr_native_str=True)]
    else:
        final = [structlog.processors.format_exc_info, _as_json]
    _filter_by(level)
    structlog.configure(
        processors=[*shared, *final],
        wrapper_class=_Logger,
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _standard_error)),
        cache_logger_on_first_use=True,
    )
    _configure_standard_library(max(level, logging.WARNING), shared, final)


def set_log_level(level: Literal["debug", "info", "warning", "error"]) -> None:
    """Changes what is logged from now on, by loggers that are there too."""
    _filter_by(_LEVELS[level])
    logging.getLogger().setLevel(max(_LEVELS[level], logging.WARNING))


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger; events are short sentences, everything else is key=value."""
    return cast("FilteringBoundLogger", structlog.get_logger(component=name))


class _Logger(BoundLoggerBase):
    """What every logger of structlog's is bound to; _filter_by gives it its methods."""


def _filter_by(level: int) -> None:
    """Gives _Logger the methods of structlog's logger for a level, which has no other way."""
    for name, method in vars(structlog.make_filtering_bound_logger(level)).items():
        if callable(method) and not name.startswith("__"):
            setattr(_Logger, name, method)


class _StandardError:
    """Standard error that never fails: whoever read it may be gone, the work goes on."""

    def __init__(self) -> None:
        self.held: tuple[int, list[str]] | None = None
        """A thread, and its lines that wait for the end of in_one_write."""

    def write(self, text: str) -> int:
        held = self.held
        if held is not None and held[0] == threading.get_ident():
            held[1].append(text)
            return len(text)
        # contextlib.suppress would cost as much as the rest.
        try:
            return sys.stderr.write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        """Needs nothing: Python writes standard error at each line end."""


_standard_error = _StandardError()


@contextlib.contextmanager
def in_one_write() -> Iterator[None]:
    """Writes the lines of a block together at its end, whichever way it ends.

    For a loop that logs and waits for nothing. Lines of other threads do not wait.
    """
    if _standard_error.held is not None:
        yield
        return
    lines: list[str] = []
    _standard_error.held = threading.get_ident(), lines
    try:
        yield
    finally:
        _standard_error.held = None
        if lines:
            _standard_error.write("".join(lines))


class _Timestamps:
    """The time of day as ISO 8601 has it, in UTC; each second is put into words once."""

    def __init__(self) -> None:
        self._second = 0, ""

    def __call__(self) -> str:
        now = time.time_ns()
        second, text = self._second
        if second != now // 1_000_000_000:
            second = now // 1_000_000_000
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second, text
        return f"{text}.{now // 1000 % 1_000_000:06d}Z"


_LEVEL_NAMES = {"warn": "warning", "exception": "error"}
"""Of methods that are not called like their level."""


def _stamp(service: str, instance: str) -> Processor:
    """Says how bad it is, when it was, and who says so."""
    timestamp = _Timestamps()

    def stamp(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        event["level"] = _LEVEL_NAMES.get(method, method)
        event["timestamp"] = timestamp()
        event["service"] = service
        event["instance"] = instance
        return event

    return stamp


_encode = json.JSONEncoder(default=repr).encode


def _as_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return _encode(event)


def _configure_standard_library(level: int, shared: list[Processor], final: list[Any]) -> None:
    handler = logging.StreamHandler(cast("TextIO", _standard_error))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
