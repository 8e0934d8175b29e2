"""From an accepted callback to a safe one: committed in the database, or on disk here."""
