"""The `awgp` command: asks for work, watches it, decides, stops, checks. It speaks to the API alone."""

from __future__ import annotations

import typer

from cli import actions, deciding, doctor, operating, prices, work

app = typer.Typer(
    name="awgp",
    help="The control plane for companies that let AI assistants do real work.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for part in (work, deciding, actions, operating, prices, doctor):
    part.register(app)


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()
