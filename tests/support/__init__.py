"""Support for tests: databases, the service as a process, callbacks."""
