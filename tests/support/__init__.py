"""What tests need of the world: databases, the service as a process, callbacks."""
