"""What the agent says while it runs: one line an event on standard error, as logfmt or JSON."""

from __future__ import annotations

import json
import logging
import sys
import time

from replicator.cli.frame import Settings
from replicator.cli.screen import tame

# What every record has; the rest are the fields that were given with the event.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def log_to_stderr(settings: Settings, usual: int) -> None:
    """Send every event of *usual* level and above to standard error; -v and -q move the level."""
    level = logging.ERROR if settings.quiet else logging.DEBUG if settings.verbosity else usual
    _handle(_Json() if settings.json else _Logfmt(), _Tracebacks(settings.verbosity >= 2))
    logging.getLogger("replicator").setLevel(level)


def warn_on_stderr(settings: Settings) -> None:
    """What a verb has to say beside its result: a line for each warning, once."""
    _handle(_Warning(), _Once()).setLevel(logging.ERROR if settings.quiet else logging.WARNING)


def _handle(formatter: logging.Formatter, which: logging.Filter) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    handler.addFilter(which)
    logging.getLogger("replicator").handlers[:] = [handler]
    logging.getLogger("watchdog").propagate = False  # it tells of threads of its own
    logging.raiseExceptions = False  # whoever read our standard error may have gone
    return handler


class _Once(logging.Filter):
    """A store that is read twice says the same twice."""

    def __init__(self) -> None:
        super().__init__()
        self._told: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        text = f"{record.getMessage()} {_fields_of(record)}"
        if text in self._told:
            return False
        self._told.add(text)
        return True


class _Tracebacks(logging.Filter):
    """Tracebacks are for -vv."""

    def __init__(self, wanted: bool) -> None:
        super().__init__()
        self._wanted = wanted

    def filter(self, record: logging.LogRecord) -> bool:
        if not self._wanted:
            record.exc_info = None
        return True


def _time_of(record: logging.LogRecord) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.created % 1 * 1000):03d}Z"


def _fields_of(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _OWN and value is not None}


class _Logfmt(logging.Formatter):
    """``time=… level=info event=segment.shipped store=… bytes_out=123``"""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": _time_of(record), "level": record.levelname.lower(), "event": record.getMessage(),
            **_fields_of(record),
        }  # fmt: skip
        line = " ".join(f"{key}={_quoted(str(value))}" for key, value in fields.items())
        if not record.exc_info:
            return line
        return "\n".join((line, *map(tame, self.formatException(record.exc_info).splitlines())))


class _Warning(logging.Formatter):
    """``warning: repository unreadable: key=… error=…``"""

    def format(self, record: logging.LogRecord) -> str:
        event = record.getMessage().replace(".", " ").replace("-", " ")
        fields = " ".join(f"{key}={_quoted(str(value))}" for key, value in _fields_of(record).items())
        return tame(f"{record.levelname.lower()}: {event}: {fields}" if fields else f"warning: {event}")


class _Json(logging.Formatter):
    """The same fields as one JSON object a line, with ``kind`` replicator-event."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "kind": "replicator-event", "time": _time_of(record), "level": record.levelname.lower(),
            "event": record.getMessage(), **_fields_of(record),
        }  # fmt: skip
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


def _quoted(text: str) -> str:
    """As logfmt wants it: quotes where a space, a quote or nothing would break the line apart."""
    if text and not any(character in ' ="\\' or not character.isprintable() for character in text):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())
