"""The specification, one promise a file."""
