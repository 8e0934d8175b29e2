"""Database access over ODBC: connections, and the UPDATE of SAM's table."""
