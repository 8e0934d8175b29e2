"""From an accepted callback to a durable one: committed in the database, or in a store."""
