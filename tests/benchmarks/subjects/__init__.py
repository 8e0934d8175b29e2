"""Subjects to compare the service with: each the plain way to write it, in one file.

All take their settings from the variables that the service itself reads, and have its body model.
"""
