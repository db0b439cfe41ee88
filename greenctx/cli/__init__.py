"""The command line."""

from greenctx.cli.main import main as main
