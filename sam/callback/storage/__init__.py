"""SQL: from a connection string to a committed UPDATE."""
