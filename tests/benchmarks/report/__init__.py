"""What a person is shown of a run: tables in the terminal, a page, plots."""
