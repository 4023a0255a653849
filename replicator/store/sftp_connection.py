"""SSH connections for the SFTP store: who the server is, who we are, and sessions shared between threads.

A server whose key is not in known_hosts gets neither a password nor a byte. Nothing imports this, and with it
paramiko, before a store of this kind is opened.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import paramiko

from replicator.core.errors import ReplicatorError, StoreDenied, StoreUnavailable
from replicator.files import shown_path
from replicator.store.sftp_known_hosts import KnownHosts, known_as
from replicator.store.sftp_session import Dropped, Refused, Session

_T = TypeVar("_T")

# A server in reach answers a SYN in milliseconds, one on another continent in 0.3 s; one SYN may get lost.
CONNECT_SECONDS = 5.0
# Silence that ends a request, a greeting, a key exchange or a login: longer than an fsync on a busy disk array,
# short enough that whoever waits for the store hears of it.
IO_SECONDS = 30.0
# Below what firewalls and routers forget (60 s and more); also how often the server must have answered.
KEEPALIVE_SECONDS = 15
# Sessions at once on one connection. OpenSSH allows 10 (MaxSessions), shared hosters fewer; four hide the round
# trips of the workers that ship and restore. A server that refuses the next one is content with fewer.
SESSIONS_MAX = 4

# paramiko logs what it also raises, with tracebacks; errors are logged once, by whoever handles them.
_QUIET = "replicator.store.sftp.paramiko"


@dataclass(frozen=True, slots=True)
class Login:
    """Where to, and as whom. Secrets are read when they are needed, so a rotated file is met at a reconnect."""

    host: str
    port: int
    user: str | None
    known_hosts: str
    key_file: str | None = None
    secret: Callable[[str], str | None] = field(default=lambda _: None, repr=False)

    @property
    def place(self) -> str:
        return known_as(self.host, self.port)


class Connection:
    """One authenticated SSH connection; it is closed when it is retired and its last session is given back."""

    def __init__(self, client: paramiko.SSHClient) -> None:
        self._client = client
        self.sessions = 0
        self.retired = False
        self.close = weakref.finalize(self, client.close)

    @property
    def alive(self) -> bool:
        transport = self._client.get_transport()
        return not self.retired and transport is not None and transport.is_active()

    def open_session(self) -> Session:
        """Raises Dropped, or Refused where the server allows no further one."""
        try:
            channel = self._client.get_transport().open_session(timeout=IO_SECONDS)
        except paramiko.ChannelException as exc:
            raise Refused(exc.code, exc.text) from exc
        except (paramiko.SSHException, OSError, EOFError, AttributeError) as exc:
            raise Dropped(f"no session can be opened ({exc or type(exc).__name__})") from exc
        channel.settimeout(IO_SECONDS)
        # The only wait in paramiko that has no limit.
        watchdog = threading.Timer(IO_SECONDS, _close_quietly, (channel,))
        watchdog.daemon = True
        watchdog.start()
        try:
            channel.invoke_subsystem("sftp")
        except (paramiko.SSHException, OSError, EOFError) as exc:
            _close_quietly(channel)
            raise Dropped(f"the server starts no SFTP ({exc or type(exc).__name__})") from exc
        finally:
            watchdog.cancel()
        return Session(channel)


def _close_quietly(channel: paramiko.Channel) -> None:
    """Ends every wait on it, and then fails where the connection is gone, too."""
    with contextlib.suppress(paramiko.SSHException, OSError, EOFError):
        channel.close()


class SessionPool:
    """Sessions of one store, at most SESSIONS_MAX, on one connection that is kept and replaced when it died.

    One thread at a time opens anything: paramiko keeps why the server refused a session once per connection, for
    whoever asks first.
    """

    def __init__(self, dial: Callable[[], Connection]) -> None:
        self._dial = dial
        self._changed = threading.Condition()
        self._connection: Connection | None = None
        self._opening = False
        self._idle: list[tuple[Connection, Session]] = []
        self._open = 0  # sessions that are idle, in use, or being opened
        self._limit = SESSIONS_MAX

    def run(self, work: Callable[[Session], _T]) -> _T:
        """*work* with a session of its own; once again where that had died unnoticed since it was last used."""
        while True:
            connection, session = self._take()
            replies = session.replies
            try:
                result = work(session)
            except (Refused, ReplicatorError):
                self._give_back(connection, session)
                raise
            except Dropped as exc:
                self._drop(connection)
                if session.used and session.replies == replies and not exc.silent:
                    continue
                raise
            except BaseException:
                self._drop(connection)
                raise
            self._give_back(connection, session)
            return result

    def _take(self) -> tuple[Connection, Session]:
        while True:
            connection, session = self._claim()
            if session is not None and connection is not None:
                return connection, session
            known = connection is not None
            try:
                if connection is None:
                    connection = self._replace_connection()
                return connection, connection.open_session()
            except Refused as exc:
                assert connection is not None
                if not self._content_with_fewer(connection):
                    raise Dropped(f"the server allows no session ({exc})") from exc
            except Dropped:
                self._drop(connection)
                if not known:
                    raise
            except BaseException:
                self._drop(connection)
                raise
            finally:
                with self._changed:
                    self._opening = False
                    self._changed.notify_all()

    def _claim(self) -> tuple[Connection | None, Session | None]:
        """A session; or the right to open one, on the connection given or on one to be made."""
        with self._changed:
            while True:
                while self._idle:
                    connection, session = self._idle.pop()
                    if connection.alive:
                        return connection, session
                    self._leave(connection)  # it died at rest
                if self._open < self._limit and not self._opening:
                    self._open += 1
                    self._opening = True
                    if self._connection is not None and self._connection.alive:
                        self._connection.sessions += 1
                        return self._connection, None
                    return None, None
                self._changed.wait()

    def _replace_connection(self) -> Connection:
        connection = self._dial()
        with self._changed:
            connection.sessions += 1
            self._connection = connection
            self._limit = SESSIONS_MAX
        return connection

    def _content_with_fewer(self, connection: Connection) -> bool:
        """The server refused one more; False where there is no other either."""
        with self._changed:
            self._leave(connection)
            self._limit = max(1, self._open)
            return self._open > 0

    def _give_back(self, connection: Connection, session: Session) -> None:
        try:
            session.settle()
        except Dropped:  # after the work was done
            self._drop(connection)
            return
        session.used = True
        with self._changed:
            if connection.alive:
                self._idle.append((connection, session))
            else:
                self._leave(connection)
            self._changed.notify()

    def _drop(self, connection: Connection | None) -> None:
        """What ended one session makes its connection suspect: others may finish on it, none begins."""
        with self._changed:
            if connection is None:
                self._open -= 1
            else:
                self._retire(connection)
                self._leave(connection)
            self._changed.notify_all()

    def _retire(self, connection: Connection) -> None:
        connection.retired = True
        kept = [each for each in self._idle if each[0] is not connection]
        for _ in range(len(self._idle) - len(kept)):
            self._leave(connection)
        self._idle = kept

    def _leave(self, connection: Connection) -> None:
        self._open -= 1
        connection.sessions -= 1
        if connection.sessions == 0 and not connection.alive:
            connection.close()  # the socket and nothing that waits


# --- connecting ----------------------------------------------------------------------------------------


def dial(login: Login) -> Connection:
    """Connect, check the server's key, log in. Raises StoreUnavailable or StoreDenied, with a hint."""
    known = KnownHosts(login.known_hosts, login.host, login.port)
    credentials = _credentials(login)
    try:
        wire = socket.create_connection((login.host, login.port), timeout=CONNECT_SECONDS)
    except OSError as exc:
        raise StoreUnavailable(f"cannot reach {login.place}: {exc.strerror or exc}") from exc
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Otherwise the kernel tries for a quarter of an hour before it tells that nobody is there.
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(IO_SECONDS * 1000))
    client = paramiko.SSHClient()
    client.set_log_channel(_QUIET)
    logging.getLogger(_QUIET).setLevel(logging.CRITICAL + 1)
    client.set_missing_host_key_policy(known)
    try:
        with _mapped_login(login):
            client.connect(
                login.host,
                login.port,
                username=login.user,
                sock=wire,
                transport_factory=known.transport,
                timeout=IO_SECONDS,
                banner_timeout=IO_SECONDS,
                auth_timeout=IO_SECONDS,
                channel_timeout=IO_SECONDS,
                **credentials,
            )
            client.get_transport().set_keepalive(KEEPALIVE_SECONDS)
    except BaseException:
        client.close()
        wire.close()
        raise
    return Connection(client)


@contextlib.contextmanager
def _mapped_login(login: Login) -> Iterator[None]:
    who = f"{login.user}@{login.place}" if login.user else login.place
    how = "set BACKUP_SFTP_KEY_FILE or BACKUP_SFTP_PASSWORD, or load a key into the ssh agent"
    try:
        yield
    except paramiko.PasswordRequiredException as exc:
        raise StoreDenied(
            f"cannot log in to {who}: the key is encrypted",
            hint="set BACKUP_SFTP_KEY_PASSPHRASE, or load the key into the ssh agent",
        ) from exc
    except paramiko.AuthenticationException as exc:
        # Two of the same class mean something else, and only their words tell.
        if "timeout" in str(exc) or "transport shut down" in str(exc):
            raise StoreUnavailable(f"cannot log in to {who}: {exc}") from exc
        raise StoreDenied(f"cannot log in to {who}: the server refuses these credentials", hint=how) from exc
    except paramiko.ssh_exception.IncompatiblePeer as exc:
        raise StoreDenied(
            f"cannot connect to {login.place}: {exc}",
            hint="the server's SSH is too old or too new: update it",
        ) from exc
    except (paramiko.SSHException, OSError, EOFError) as exc:
        if "No authentication methods" in str(exc):
            raise StoreDenied(f"cannot log in to {who}: there are no credentials", hint=how) from exc
        raise StoreUnavailable(f"cannot connect to {login.place}: {exc or type(exc).__name__}") from exc


def _credentials(login: Login) -> dict[str, object]:
    """Arguments for paramiko: a key or password that was set is all that is tried."""
    password = login.secret("BACKUP_SFTP_PASSWORD")
    if login.key_file is None:
        return {"password": password, "allow_agent": password is None, "look_for_keys": password is None}
    passphrase = login.secret("BACKUP_SFTP_KEY_PASSPHRASE")
    try:
        key = paramiko.PKey.from_path(login.key_file, passphrase.encode() if passphrase else None)
    except OSError as exc:
        raise StoreDenied(
            f"cannot read the SSH key {shown_path(login.key_file)}: {exc.strerror or type(exc).__name__}",
            hint="BACKUP_SFTP_KEY_FILE names a private key that this user can read",
        ) from None
    except Exception:  # of three libraries
        raise StoreDenied(
            f"cannot load the SSH key {shown_path(login.key_file)}: it is none, or its passphrase is missing or wrong",
            hint="check BACKUP_SFTP_KEY_FILE and BACKUP_SFTP_KEY_PASSPHRASE",
        ) from None
    return {"pkey": key, "password": password, "allow_agent": False, "look_for_keys": False}
