"""The report of a run: tables in the terminal, a page, plots."""
