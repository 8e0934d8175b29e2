"""HTTP server: uvicorn, with time, size and connection limits, draining and TLS."""
