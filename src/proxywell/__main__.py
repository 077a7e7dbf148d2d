"""``python -m proxywell`` and the installed command."""

from __future__ import annotations


def main() -> None:
    """Run the command line.

    Ctrl-C while the modules still load ends as at any later moment: 130, without a traceback.
    """
    try:
        from proxywell.cli.main import program
    except KeyboardInterrupt:
        raise SystemExit(130) from None  # exit_codes may not be there yet

    program()


if __name__ == "__main__":
    main()
