"""Every error of the program, in one tree.

ReplicatorError
├─ UsageError               the caller must change the command                        2
├─ ConfigError              the operator must edit something; names the key           2
├─ SourceError              the database or its log                                   1
│  ├─ NotADatabase          the file is something else
│  ├─ NotWalMode            journal_mode is not wal
│  └─ SourceGone            the file, or the mount it lies on, is not there           15
├─ StoreError               the place where objects lie
│  ├─ StoreUnavailable      retryable: time-outs, throttling, a full or absent disk   16
│  ├─ StoreDenied           credentials or policy                                     16
│  ├─ ObjectNotFound        carries the name                                          15
│  └─ ObjectExists          put-once refused; carries the name
├─ ObjectCorrupt            bytes of ours that are not what was written               13
├─ FormatTooNew             written by a later version                                1
├─ RepositoryNotFound       nothing of ours lies at this URL                          10
├─ OwnershipLost            another agent writes here                                 11
├─ KeyRefused               a key is missing, or is not the one                       12
├─ TargetUnreachable        no plan leads to this restore point                       14
├─ ScheduleNotFound         no schedule has that name                                 15
├─ DestinationRefused       restore must not touch what is there                      1
├─ ProofFailed              the restored file is not what was promised                13
└─ Interrupted              somebody asked us to stop                                 130
"""

from __future__ import annotations


class ReplicatorError(Exception):
    """One line for the operator, and a hint what to do about it.

    ``retryable`` says whether the same call may succeed later with nothing changed by us.
    """

    retryable = False
    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    def document(self) -> dict[str, str | int | None]:
        """As it goes over the control socket, and into what is printed as JSON."""
        return {"error": str(self), "hint": self.hint, "exit_code": self.exit_code}


class UsageError(ReplicatorError):
    exit_code = 2


class ConfigError(ReplicatorError):
    exit_code = 2


class SourceError(ReplicatorError):
    """The database or its log cannot be followed."""


class NotADatabase(SourceError):
    pass


class NotWalMode(SourceError):
    pass


class SourceGone(SourceError):
    exit_code = 15


class StoreError(ReplicatorError):
    exit_code = 16


class StoreUnavailable(StoreError):
    """``retry_after``: seconds the server wants to be left alone, where it said so."""

    retryable = True

    def __init__(self, message: str, *, hint: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class StoreDenied(StoreError):
    pass


class ObjectNotFound(StoreError):
    exit_code = 15

    def __init__(self, name: str, *, hint: str | None = None) -> None:
        super().__init__(f"object not found: {name}", hint=hint)
        self.name = name


class ObjectExists(StoreError):
    def __init__(self, name: str) -> None:
        super().__init__(f"object exists already: {name}")
        self.name = name


class ObjectCorrupt(ReplicatorError):
    """``name``: the object, where whoever found the damage knows it."""

    exit_code = 13

    def __init__(self, message: str, *, name: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.name = name


class FormatTooNew(ReplicatorError):
    pass


class RepositoryNotFound(ReplicatorError):
    exit_code = 10


class OwnershipLost(ReplicatorError):
    exit_code = 11


class KeyRefused(ReplicatorError):
    exit_code = 12


class TargetUnreachable(ReplicatorError):
    exit_code = 14


class ScheduleNotFound(ReplicatorError):
    exit_code = 15


class DestinationRefused(ReplicatorError):
    pass


class ProofFailed(ReplicatorError):
    exit_code = 13


class ClockWrong(ReplicatorError):
    """Ages mean nothing: this machine's clock and a store's differ, or what was recorded lies ahead of ours."""


class Interrupted(ReplicatorError):
    exit_code = 130
