"""Inbox: makes accepted callbacks durable, in the database or else in a store."""
