"""Structured logging to standard error: JSON, or for people on a terminal."""

import contextlib
import logging
import sys
from typing import Any, Literal, TextIO, cast

import structlog
from structlog import BoundLoggerBase
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from netmail_common.config import LogConfig

__all__ = ["configure_logging", "get_logger", "set_log_level"]

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
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _origin(service, instance),
    ]
    console = config.format == "console" or (config.format == "auto" and sys.stderr.isatty())
    final: list[Processor]
    if console:
        # Text from outside is quoted: it must not say anything to the terminal.
        final = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), repr_native_str=True)]
    else:
        final = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    _filter_by(level)
    structlog.configure(
        processors=[*shared, *final],
        wrapper_class=_Logger,
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _StandardError())),
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

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            return sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()


def _origin(service: str, instance: str) -> Processor:
    def add(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        event["instance"] = instance
        return event

    return add


def _configure_standard_library(level: int, shared: list[Processor], final: list[Any]) -> None:
    handler = logging.StreamHandler(cast("TextIO", _StandardError()))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
