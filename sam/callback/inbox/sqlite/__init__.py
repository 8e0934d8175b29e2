"""The embedded store: the spool, a SQLite file on this machine's disk."""
