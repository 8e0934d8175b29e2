"""ODBC: drivers, connection strings, and what differs between databases."""
