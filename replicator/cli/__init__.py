"""The command line: one module a verb, each imported only when it is typed."""

import sys


def main() -> None:
    """Run the command line of this process and leave with its exit code."""
    from replicator.cli.entry import run

    sys.exit(run(sys.argv[1:]))
