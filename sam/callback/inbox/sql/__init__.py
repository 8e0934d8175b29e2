"""The shared store: one table in a SQL database that its own engine replicates."""
