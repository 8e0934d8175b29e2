"""The HTTP face: from a request to an answer."""
