"""The parts of a run. Each is one question."""
