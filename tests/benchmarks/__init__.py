"""Benchmarks, no tests: the service beside other ways to do its job, under the load of wrk.

``python -m tests.benchmarks run`` measures and writes docs/benchmarks.md.
"""
