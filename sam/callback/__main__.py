"""``python -m sam.callback``: the command line."""

from sam.callback.cli import app, standard_streams


def main() -> None:
    """Run the command that the arguments name; without one, serve."""
    standard_streams.open_missing()
    app(prog_name="sam-callback")


if __name__ == "__main__":
    main()
