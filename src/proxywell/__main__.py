"""``python -m proxywell`` and the installed command."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from proxywell.cli.main import program

    program()


if __name__ == "__main__":
    main()
