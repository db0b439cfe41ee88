"""``python -m greenctx``: the command line."""

from greenctx.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
