"""ODBC: drivers, connection strings, dialects."""
