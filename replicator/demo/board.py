"""A team's task board in one SQLite file, and a worker that uses it the way a small web server does.

Must never run in the agent's process (two SQLite libraries in one process drop each other's locks).

Like the servers it stands for, it commits every statement on its own, keeps text keys over implicit rowids,
and stores dates in three encodings side by side. Beyond the work itself each commit writes the `ledger`, so
that a restored copy says at which commit it stands.
"""

import random
import sqlite3
import time
from collections import deque
from pathlib import Path

from replicator.demo.ledger import counted_commit

Statement = tuple[str, tuple[object, ...]]

BUSY_TIMEOUT_MS = 30_000
MMAP_BYTES = 256 * 1024 * 1024
# Tasks a transaction of `fill_board` writes: large boards fill fast, and no log grows beyond some megabytes.
FILL_BATCH = 500
# Below this a worker only creates: the board recovers from a mistake instead of idling on nothing.
FEWEST_TASKS = 20

STATES = ("open", "active", "waiting", "done")
BOARDS = ("Website relaunch", "Mobile app")
LANES = ("Ideas", "Next", "Doing", "Review", "Finished")
OWNERS = ("ada", "bo", "chen", "dmitri", "eve")
VOCABULARY = (
    "adapter archive audit badge batch branch budget button cache café calendar chart checkout client clock"
    " column contract cookie crash customer deadline deploy design draft email export filter flaky form"
    " gateway header import index invoice label layout library login memo menu metric migrate mobile naïve"
    " notify offline order parser password payment plan queue quota rename replica report retry review"
    " rollback schema search session sidebar slow sprint stale summary tablet timeout token tooltip"
    " überprüfen upgrade upload vendor webhook widget 東京"
)
WORDS = VOCABULARY.split()

# Task search is kept right: its triggers give FTS5 the old text to forget. Note search is kept the careless
# way many applications do it, as if it were a table of its own, and drifts with every edit and delete. So
# FTS5's strict check fails on this *source*, and whoever verifies a restore must compare with the source.
SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS boards (
  id TEXT PRIMARY KEY, title TEXT NOT NULL, about TEXT, tint TEXT DEFAULT '#607d8b',
  closed INTEGER DEFAULT 0, made_at DATETIME, changed_at DATETIME DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE IF NOT EXISTS lanes (
  id TEXT PRIMARY KEY, board_id TEXT NOT NULL REFERENCES boards(id) ON DELETE CASCADE, title TEXT NOT NULL,
  place INTEGER NOT NULL, most INTEGER, changed_at DATETIME DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE IF NOT EXISTS tasks (
  id TEXT PRIMARY KEY, board_id TEXT NOT NULL REFERENCES boards(id) ON DELETE CASCADE,
  lane_id TEXT NOT NULL REFERENCES lanes(id) ON DELETE CASCADE,
  parent_id TEXT REFERENCES tasks(id) ON DELETE SET NULL,
  title TEXT NOT NULL, body TEXT, place INTEGER NOT NULL DEFAULT 0, urgency INTEGER DEFAULT 0,
  state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'active', 'waiting', 'done')),
  owner TEXT, due_at DATETIME, hours_planned REAL, hours_spent REAL, extra TEXT,
  made_at DATETIME, changed_at DATETIME DEFAULT CURRENT_TIMESTAMP, done_at DATETIME);
CREATE TABLE IF NOT EXISTS task_links (
  id TEXT PRIMARY KEY, task_id TEXT NOT NULL REFERENCES tasks(id) ON DELETE CASCADE,
  needs_id TEXT NOT NULL REFERENCES tasks(id) ON DELETE CASCADE, kind TEXT DEFAULT 'needs',
  UNIQUE (task_id, needs_id));
CREATE TABLE IF NOT EXISTS notes (
  id TEXT PRIMARY KEY, task_id TEXT NOT NULL REFERENCES tasks(id) ON DELETE CASCADE, body TEXT NOT NULL,
  kind TEXT DEFAULT 'plain', pinned INTEGER DEFAULT 0, made_at DATETIME,
  changed_at DATETIME DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE IF NOT EXISTS tags (
  id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, tint TEXT,
  parent_id TEXT REFERENCES tags(id) ON DELETE SET NULL);
CREATE TABLE IF NOT EXISTS task_tags (
  task_id TEXT NOT NULL REFERENCES tasks(id) ON DELETE CASCADE, made_at DATETIME,
  tag_id TEXT NOT NULL REFERENCES tags(id) ON DELETE CASCADE, PRIMARY KEY (task_id, tag_id));
CREATE TABLE IF NOT EXISTS task_history (
  id TEXT PRIMARY KEY, task_id TEXT NOT NULL REFERENCES tasks(id) ON DELETE CASCADE, field TEXT NOT NULL,
  was TEXT, became TEXT, who TEXT, at DATETIME);
CREATE TABLE IF NOT EXISTS time_entries (
  id TEXT PRIMARY KEY, task_id TEXT NOT NULL REFERENCES tasks(id) ON DELETE CASCADE,
  from_at DATETIME NOT NULL, to_at DATETIME, minutes INTEGER, remark TEXT);
CREATE TABLE IF NOT EXISTS api_keys (
  id TEXT PRIMARY KEY, digest TEXT NOT NULL UNIQUE, name TEXT NOT NULL, rights TEXT NOT NULL,
  last_used_at DATETIME, revoked INTEGER DEFAULT 0);
CREATE TABLE IF NOT EXISTS repositories (
  id TEXT PRIMARY KEY, path TEXT NOT NULL UNIQUE, branch TEXT DEFAULT 'main',
  board_id TEXT NOT NULL REFERENCES boards(id) ON DELETE CASCADE);
CREATE TABLE IF NOT EXISTS templates (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, kind TEXT DEFAULT 'own', title TEXT NOT NULL, body TEXT,
  builtin INTEGER DEFAULT 0, uses INTEGER DEFAULT 0);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS ledger (writer INTEGER PRIMARY KEY, counter INTEGER NOT NULL, at INTEGER NOT NULL);

CREATE INDEX IF NOT EXISTS lanes_by_board ON lanes(board_id, place);
CREATE INDEX IF NOT EXISTS tasks_by_board ON tasks(board_id);
CREATE INDEX IF NOT EXISTS tasks_by_lane ON tasks(lane_id, place);
CREATE INDEX IF NOT EXISTS tasks_by_parent ON tasks(parent_id);
CREATE INDEX IF NOT EXISTS tasks_by_state ON tasks(state);
CREATE INDEX IF NOT EXISTS tasks_by_urgency ON tasks(urgency DESC);
CREATE INDEX IF NOT EXISTS tasks_by_due ON tasks(due_at) WHERE due_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS tasks_by_making ON tasks(made_at);
CREATE INDEX IF NOT EXISTS tasks_by_change ON tasks(changed_at);
CREATE INDEX IF NOT EXISTS links_by_need ON task_links(needs_id);
CREATE INDEX IF NOT EXISTS notes_by_task ON notes(task_id);
CREATE INDEX IF NOT EXISTS notes_by_kind ON notes(kind);
CREATE INDEX IF NOT EXISTS notes_by_pin ON notes(pinned);
CREATE INDEX IF NOT EXISTS tags_by_parent ON tags(parent_id);
CREATE INDEX IF NOT EXISTS task_tags_by_tag ON task_tags(tag_id);
CREATE INDEX IF NOT EXISTS history_by_task ON task_history(task_id);
CREATE INDEX IF NOT EXISTS history_by_time ON task_history(at);
CREATE INDEX IF NOT EXISTS time_by_task ON time_entries(task_id);
CREATE INDEX IF NOT EXISTS time_by_start ON time_entries(from_at);
CREATE INDEX IF NOT EXISTS repositories_by_board ON repositories(board_id);
CREATE INDEX IF NOT EXISTS templates_by_kind ON templates(kind, builtin);

CREATE VIRTUAL TABLE IF NOT EXISTS task_search
  USING fts5(title, body, content='tasks', content_rowid='rowid');
CREATE VIRTUAL TABLE IF NOT EXISTS note_search USING fts5(body, content='notes', content_rowid='rowid');
CREATE TRIGGER IF NOT EXISTS task_search_add AFTER INSERT ON tasks BEGIN
  INSERT INTO task_search(rowid, title, body) VALUES (new.rowid, new.title, new.body); END;
CREATE TRIGGER IF NOT EXISTS task_search_change AFTER UPDATE OF title, body ON tasks BEGIN
  INSERT INTO task_search(task_search, rowid, title, body) VALUES ('delete', old.rowid, old.title, old.body);
  INSERT INTO task_search(rowid, title, body) VALUES (new.rowid, new.title, new.body); END;
CREATE TRIGGER IF NOT EXISTS task_search_drop AFTER DELETE ON tasks BEGIN
  INSERT INTO task_search(task_search, rowid, title, body)
  VALUES ('delete', old.rowid, old.title, old.body); END;
CREATE TRIGGER IF NOT EXISTS note_search_add AFTER INSERT ON notes BEGIN
  INSERT INTO note_search(rowid, body) VALUES (new.rowid, new.body); END;
CREATE TRIGGER IF NOT EXISTS note_search_change AFTER UPDATE ON notes BEGIN
  UPDATE note_search SET body = new.body WHERE rowid = new.rowid; END;
CREATE TRIGGER IF NOT EXISTS note_search_drop AFTER DELETE ON notes BEGIN
  DELETE FROM note_search WHERE rowid = old.rowid; END;
CREATE TRIGGER IF NOT EXISTS boards_stamp AFTER UPDATE ON boards BEGIN
  UPDATE boards SET changed_at = CURRENT_TIMESTAMP WHERE id = new.id; END;
CREATE TRIGGER IF NOT EXISTS lanes_stamp AFTER UPDATE ON lanes BEGIN
  UPDATE lanes SET changed_at = CURRENT_TIMESTAMP WHERE id = new.id; END;
CREATE TRIGGER IF NOT EXISTS tasks_stamp AFTER UPDATE ON tasks BEGIN
  UPDATE tasks SET changed_at = CURRENT_TIMESTAMP WHERE id = new.id; END;
CREATE TRIGGER IF NOT EXISTS notes_stamp AFTER UPDATE ON notes BEGIN
  UPDATE notes SET changed_at = CURRENT_TIMESTAMP WHERE id = new.id; END;

CREATE VIEW IF NOT EXISTS open_tasks AS
  SELECT t.id, t.title, t.state, t.urgency, l.title AS lane, b.title AS board,
    (SELECT count(*) FROM tasks c WHERE c.parent_id = t.id) AS parts
  FROM tasks t JOIN lanes l ON l.id = t.lane_id JOIN boards b ON b.id = t.board_id WHERE t.state <> 'done';
CREATE VIEW IF NOT EXISTS blocked_tasks AS
  SELECT t.id, t.title, n.title AS needs FROM task_links k
  JOIN tasks t ON t.id = k.task_id JOIN tasks n ON n.id = k.needs_id WHERE n.state <> 'done';
CREATE VIEW IF NOT EXISTS board_totals AS
  SELECT b.id, b.title, count(t.id) AS tasks, sum(t.state = 'done') AS done, avg(t.urgency) AS urgency
  FROM boards b LEFT JOIN tasks t ON t.board_id = b.id GROUP BY b.id;
INSERT OR IGNORE INTO settings VALUES ('schema', '1');
COMMIT;
"""

USE_KEY = "UPDATE api_keys SET last_used_at = ? WHERE id = ?"
MOVE = "UPDATE tasks SET lane_id = ?, place = ?, state = ?, done_at = ? WHERE id = ?"
EDIT = "UPDATE tasks SET title = ?, body = ?, urgency = ? WHERE id = ?"
ADD_TASK = (
    "INSERT INTO tasks (id, board_id, lane_id, title, body, place, urgency, owner, due_at, hours_planned,"
    " extra, made_at) SELECT ?, board_id, id, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM lanes WHERE id = ?"
)
# Rows that hang on a task are selected from it, not just inserted: another process may have deleted it, and
# a request that comes too late changes nothing instead of failing on the foreign key.
ADD_NOTE = (
    "INSERT INTO notes (id, task_id, body, kind, made_at) SELECT ?, id, ?, ?, ? FROM tasks WHERE id = ?"
)
EDIT_NOTE = (
    "UPDATE notes SET body = ?, pinned = 1 - pinned"
    " WHERE rowid = (SELECT max(rowid) FROM notes WHERE task_id = ?)"
)
ADD_TAG = (
    "INSERT OR REPLACE INTO task_tags (tag_id, made_at, task_id) SELECT ?, ?, id FROM tasks WHERE id = ?"
)
ADD_HISTORY = "INSERT INTO task_history SELECT ?, id, ?, ?, ?, ?, ? FROM tasks WHERE id = ?"
ADD_TIME = "INSERT INTO time_entries SELECT ?, id, ?, ?, ?, ? FROM tasks WHERE id = ?"
# Another worker may have deleted either task.
ADD_LINK = (
    "INSERT OR IGNORE INTO task_links SELECT ?, a.id, b.id, 'needs' "
    "FROM tasks a, tasks b WHERE b.id = ? AND a.id = ?"
)
DELETE_TASK = "DELETE FROM tasks WHERE id = ?"

# What people ask of a board, by frequency. Creating is a little more frequent than deleting: boards grow.
REQUESTS = ("look", "move", "edit", "note", "renote", "tag", "link", "create", "time", "delete")
FREQUENCIES = (25, 20, 15, 16, 6, 6, 2, 5, 4, 3)


def create_board(path: str | Path, *, page_size: int = 4096) -> None:
    """Create an empty board in WAL mode and close it; an existing board keeps its content and page size."""
    conn = sqlite3.connect(path, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None)
    try:
        conn.execute(f"PRAGMA page_size = {page_size:d}")
        conn.execute("PRAGMA journal_mode = WAL")
        conn.execute("PRAGMA synchronous = NORMAL")
        conn.executescript(SCHEMA)
    finally:
        conn.close()


def open_board(path: str | Path) -> sqlite3.Connection:
    """Open an existing board with the server's settings: every statement its own commit, 30 s of patience.

    Raises sqlite3.OperationalError if there is no file: a mistyped path must not become an empty board.
    """
    uri = f"{Path(path).absolute().as_uri()}?mode=rw"
    conn = sqlite3.connect(uri, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None, uri=True)
    conn.execute("PRAGMA synchronous = NORMAL")
    conn.execute("PRAGMA foreign_keys = ON")
    conn.execute(f"PRAGMA mmap_size = {MMAP_BYTES}")
    return conn


def fill_board(conn: sqlite3.Connection, tasks: int = 200, seed: int = 1) -> None:
    """Add two boards with lanes, keys, tags, *tasks* tasks and what hangs on them.

    Commits in batches and leaves the ledger alone: it counts a worker's commits only. Two fills of one file
    need different seeds, since the keys of the rows come from it.
    """
    rng = random.Random(f"fill/{seed}")
    conn.execute("BEGIN IMMEDIATE")
    lanes: list[str] = []
    for name in BOARDS:
        board = (_key(rng), name, _words(rng, 12), _moment(rng))
        conn.execute("INSERT INTO boards (id, title, about, made_at) VALUES (?, ?, ?, ?)", board)
        rows = [(_key(rng), board[0], title, place) for place, title in enumerate(LANES)]
        conn.executemany("INSERT INTO lanes (id, board_id, title, place) VALUES (?, ?, ?, ?)", rows)
        lanes += [row[0] for row in rows]
        repository = (_key(rng), f"/src/{board[0]}", board[0])
        conn.execute("INSERT INTO repositories (id, path, board_id) VALUES (?, ?, ?)", repository)
        template = (_key(rng), f"new in {name}", _words(rng, 4), _words(rng, 30))
        conn.execute("INSERT INTO templates (id, name, title, body) VALUES (?, ?, ?, ?)", template)
    keys = [(_key(rng), _key(rng), f"key {number}") for number in (1, 2, 3)]
    conn.executemany("INSERT INTO api_keys (id, digest, name, rights) VALUES (?, ?, ?, 'read,write')", keys)
    tags = [_key(rng) for _ in range(12)]
    conn.executemany("INSERT INTO tags (id, name) VALUES (?, ?)", [(tag, f"tag {tag[:8]}") for tag in tags])
    for number in range(tasks):
        if number % FILL_BATCH == FILL_BATCH - 1:
            conn.execute("COMMIT")
            conn.execute("BEGIN IMMEDIATE")
        task = _key(rng)
        conn.execute(*_create(rng, task, rng.choice(lanes)))
        for _ in range(rng.randrange(4)):
            conn.execute(*_note(rng, task))
        conn.execute(ADD_TAG, (rng.choice(tags), _moment(rng), task))
        conn.execute(*_history(rng, task, "state", None, "open"))
    conn.execute("COMMIT")


class BoardWorker:
    """One of the application's processes. Owns nothing but its choices; the connection stays the caller's.

    Choices follow from *seed* and from where the ledger stands (row keys and texts too, dates are real), and
    *seed* is also its name in the ledger: workers at the same time on one board need different ones.
    """

    def __init__(self, conn: sqlite3.Connection, seed: int = 1) -> None:
        self.conn = conn
        self.writer = seed
        self.counter = 0
        self._rng = random.Random()
        self._lanes: list[str] = []
        self._tasks: list[str] = []
        self._tags: list[str] = []
        self._keys: list[str] = []
        self._pending: deque[Statement] = deque()

    def step(self) -> int:
        """Do the next statement of the current request as one commit and return the ledger's new counter.

        A request is one to three statements, the first of which notes the use of an API key, as the server
        does. Raises sqlite3.OperationalError if the database stayed busy; nothing is lost then, and the
        next call tries the same statement again.
        """
        if not self._keys:
            self._look_round()
        if not self._pending:
            self._pending.extend(self._request())
        sql, values = self._pending[0]
        changed = self._commit(sql, values)
        self._pending.popleft()
        if changed == 0 and sql in (MOVE, EDIT):
            self._tasks = self._column("SELECT id FROM tasks ORDER BY rowid")
        return self.counter

    def mistake(self) -> int:
        """Delete all tasks of the board that has most of them, in one commit; return how many those were."""
        if not self._keys:
            self._look_round()
        biggest = "SELECT board_id FROM tasks GROUP BY board_id ORDER BY count(*) DESC, board_id LIMIT 1"
        deleted = self._commit(f"DELETE FROM tasks WHERE board_id = ({biggest})", ())
        self._pending.clear()
        self._tasks = self._column("SELECT id FROM tasks ORDER BY rowid")
        return deleted

    def _commit(self, sql: str, values: tuple[object, ...]) -> int:
        with counted_commit(self.conn, self.writer, self.counter + 1):
            changed = self.conn.execute(sql, values).rowcount
        self.counter += 1
        return changed

    def _look_round(self) -> None:
        self._lanes = self._column("SELECT id FROM lanes ORDER BY rowid")
        self._tasks = self._column("SELECT id FROM tasks ORDER BY rowid")
        self._tags = self._column("SELECT id FROM tags ORDER BY rowid")
        found = self.conn.execute("SELECT counter FROM ledger WHERE writer = ?", (self.writer,)).fetchone()
        self.counter = found[0] if found else 0
        self._rng.seed(f"worker/{self.writer}/{self.counter}")
        self._keys = self._column("SELECT id FROM api_keys ORDER BY rowid")
        if not self._keys:
            raise ValueError("the board is empty; fill_board comes first")

    def _column(self, sql: str) -> list[str]:
        return [row[0] for row in self.conn.execute(sql)]

    def _request(self) -> list[Statement]:
        rng = self._rng
        use_key: Statement = (USE_KEY, (_moment(rng), rng.choice(self._keys)))
        kind = rng.choices(REQUESTS, FREQUENCIES)[0]
        if kind == "create" or len(self._tasks) < FEWEST_TASKS:
            task = _key(rng)
            self._tasks.append(task)
            create = _create(rng, task, rng.choice(self._lanes))
            return [use_key, create, _history(rng, task, "state", None, "open")]
        task = rng.choice(self._tasks)
        match kind:
            case "move":
                state = rng.choice(STATES)
                done_at = _moment(rng) if state == "done" else None
                move = (MOVE, (rng.choice(self._lanes), rng.randrange(100), state, done_at, task))
                return [use_key, move, _history(rng, task, "state", "open", state)]
            case "edit":
                title = _words(rng, rng.randint(3, 7))
                edit = (EDIT, (title, _words(rng, rng.randint(10, 80)), rng.randrange(5), task))
                return [use_key, edit, _history(rng, task, "title", None, title)]
            case "note":
                return [use_key, _note(rng, task)]
            case "renote":
                return [use_key, (EDIT_NOTE, (_words(rng, rng.randint(5, 60)), task))]
            case "tag":
                return [use_key, (ADD_TAG, (rng.choice(self._tags), _moment(rng), task))]
            case "link":
                return [use_key, (ADD_LINK, (_key(rng), rng.choice(self._tasks), task))]
            case "time":
                spent = (_key(rng), _moment(rng), _moment(rng), rng.randrange(5, 240), _words(rng, 5), task)
                return [use_key, (ADD_TIME, spent)]
            case "delete":
                self._tasks.remove(task)
                return [use_key, (DELETE_TASK, (task,))]
        return [use_key]


def _create(rng: random.Random, task: str, lane: str) -> Statement:
    extra = f'{{"source": "{_words(rng, 1)}", "estimate": {rng.randrange(9)}}}'
    due = _moment(rng) if rng.random() < 0.4 else None
    title, body = _words(rng, rng.randint(3, 7)), _words(rng, rng.randint(10, 80))
    values = (task, title, body, rng.randrange(100), rng.randrange(5), rng.choice(OWNERS), due)
    return (ADD_TASK, (*values, rng.randrange(1, 80) / 2, extra, _moment(rng), lane))


def _note(rng: random.Random, task: str) -> Statement:
    kind = rng.choice(("plain", "idea", "research", "blocker"))
    return (ADD_NOTE, (_key(rng), _words(rng, rng.randint(5, 120)), kind, _moment(rng), task))


def _history(rng: random.Random, task: str, field: str, was: str | None, became: str) -> Statement:
    return (ADD_HISTORY, (_key(rng), field, was, became, rng.choice(OWNERS), _moment(rng), task))


def _key(rng: random.Random) -> str:
    """A key as a UUID prints, so that rows land all over their index as they do in the field."""
    digits = f"{rng.getrandbits(128):032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(WORDS, k=count))


def _moment(rng: random.Random) -> str | int:
    """Now, in one of the three encodings that servers of this kind mix within one column."""
    now = time.time()
    match rng.randrange(3):
        case 0:
            return int(now * 1000)
        case 1:
            return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now))
        case _:
            return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(now))
