"""The database side: the only modules that open a database, its log or its shared memory, and only by apsw.

Why nothing else may: closing *any* descriptor of the database file or of `-shm` in this process silently
drops every POSIX lock SQLite holds on it, and a read transaction we believe in is gone. One SQLite library
and no descriptor of our own keep that from happening.
"""
