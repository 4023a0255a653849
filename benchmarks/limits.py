"""Why a goal is not held, where that is known: what stands in its way, and what it would take."""

# By how the name of a verdict begins (benchmarks/goals.py).
LIMITS = {
    "CPU at 100 commits/s, 1 s interval": (
        "A round of 100 commits is some 15 ms of work: each stays a restore point of its own, so each of its 600 "
        "page versions is hashed, compared and compressed, where the rival keeps one version of a page a second. "
        "Being woken 20 times a second, so that a checkpoint of the application waits for no longer than that, is "
        "another 0.8 %."
    ),
    "CPU at 100 commits/s, every commit": (
        "Three syncs a commit (spool, object, its folder) and the switches between two threads are 1 ms of kernel "
        "time, as much as the goal by themselves; Python adds 1.5 ms. A commit that were put without the spool "
        "would need one sync less, and capturing would wait for the store."
    ),
    "bytes a commit, Kanban-like, at our 50 ms": (
        "A commit of this workload changes six pages by what zstd's highest level brings to 313 bytes and ours, a "
        "twentieth of its time, to 367. Page numbers and hashes are 48, the unit around it 104. At this rate "
        "each commit is a unit of its own; the row above shows what a second shares."
    ),
    "restore 1000 MB, --verify none": (
        "Expanding the chunks takes 1.2 s of a core for a gigabyte, hashing every page, which is never left out, "
        "0.3 s, the start of Python 0.3 s; `cp` does none of it."
    ),
    "restore 100 MB + 10,000 small commits": (
        "A quarter of a second is the start of Python and its modules, a fifth the proof, which the rival leaves out."
    ),
    "restore 1000 MB": (
        "The copy that is proved by SQLite's `quick_check` takes 1.2 s longer than the one that is not; the rival "
        "checks nothing unless told to."
    ),
    "longest stall, crowd": (
        "Two writers that commit without a pause keep each other out: SQLite's busy handler asks ever more rarely, "
        "and whoever is quicker goes first. The stall is theirs with and without an agent; the hold of a write "
        "barrier, 6 to 20 ms, is one turn more to lose."
    ),
    "longest stall, alone": (
        "It is the hold of a write barrier, once in some 55 MB of log: what is left of the log is captured and moved "
        "in 15 to 30 ms, and in more where the cores are wanted by others. Without it the log grows for as long as "
        "the writer does not pause."
    ),
    "first, MB: 1000: time": (
        "Of the two cores, compressing a gigabyte takes 2.8 s, SHA-256 of the chunks 0.5 s, the hashes of all pages, "
        "twice, 0.2 s, reading it twice and reading the packs back 1 s; what the disk takes to sync 320 MB comes on "
        "top. The rival compresses with LZ4, twice the bytes, and proves nothing."
    ),
    "failed requests of all rounds, alone": (
        "A writer that never pauses never lets the log begin anew, so that it stays bounded only if writers are held "
        "for some milliseconds once in some 55 MB of log. One with a busy timeout waits and does not notice (crowd: "
        "none failed); one without is refused once and tries again. `--barrier never` forbids it, at the price of "
        "the log."
    ),
    "RSS for one more idle database": (
        "Two SQLite connections of 75 KB, one that holds the read transaction and one that looks (48 KB of each is a "
        "reserve of SQLite's that the binding gives no say over), 32 KB of the log's index, mapped, and some 80 KB of "
        "Python's objects and a thread for events. The rest is memory between these that was free again after the "
        "first full backups, and lies in pieces too small to be given back."
    ),
    "peak -wal": (
        "The barrier is taken at 48 MiB; the rest is what a writer at full speed adds until it has it, and while a "
        "PASSIVE moves the frames before."
    ),
}


def limit_of(figure: str) -> str | None:
    fitting = [begin for begin in LIMITS if figure.startswith(begin)]
    return LIMITS[max(fitting, key=len)] if fitting else None
