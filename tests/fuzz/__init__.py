"""Generated requests, hostile ones among them, by the thousand, against the service as a process.

Everything is made from a seed, so that what was found can be found again: docs/security.md.
"""
