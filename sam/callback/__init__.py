"""Receives Automation 360 deployment callbacks and writes their status into SAM's database."""

from importlib.metadata import version

__version__ = version("sam-callback")
