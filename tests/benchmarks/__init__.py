"""The service beside other ways to do its job, under a load generator that people know: wrk.

``python -m tests.benchmarks run`` measures and writes docs/benchmarks.md.
"""
