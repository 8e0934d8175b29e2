"""What uvicorn lacks at the edge: time limits, size limits, a connection limit, drain, TLS."""
