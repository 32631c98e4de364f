"""Compare a search's result.json with a stored one; for a team's CI.

Exits with 0 where nothing got worse, 1 where a variant's max stable LR or perplexity got worse beyond its
interval (`redline/gate/compare.py` says what that means), 2 where the two cannot be compared.
"""

import argparse
import sys
from pathlib import Path

from redline.command_line import Parser, begin_command, user_errors
from redline.errors import UserError

# Runs of the same thing with other seeds differ by 0.061 nats (standard deviation, pooled over the 57 stable
# cells of bench/grid_tiny.csv; DESIGN section 8's three seeds at LR 0.3: 0.058). Of two single runs, one is
# more than 0.15 above the other in about one case of twenty.
TOLERANCE = 0.15
CONFIDENCE = 0.9
_WIDTH = 160  # columns, where the output is no terminal


def main() -> int:
    arguments = _arguments()
    if not arguments.tolerance >= 0:
        raise UserError(f"--tolerance={arguments.tolerance:g}: allowed: 0 or more nats")
    if not 0 < arguments.confidence < 1:
        raise UserError(f"--confidence={arguments.confidence:g}: allowed: between 0 and 1")
    from rich.console import Console

    from redline.gate.compare import compare
    from redline.gate.read import check_comparable, newest_result
    from redline.gate.table import difference_table
    from redline.search.result import SearchResult

    path = arguments.new or newest_result(other_than=arguments.baseline)
    baseline, new = SearchResult.read(arguments.baseline, "BASELINE"), SearchResult.read(path, "NEW")
    check_comparable(baseline, new)
    differences = compare(baseline, new, tolerance=arguments.tolerance, confidence=arguments.confidence)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    console.print(f"{arguments.baseline} → {path}", soft_wrap=True)
    console.print(difference_table(differences, new))
    added = [name for name in new.variants if name not in baseline.variants]
    if added:
        console.print(f"not in the baseline, and not held against anything: {', '.join(added)}")
    worse = [its.variant for its in differences if its.worse]
    console.print(f"worse: {', '.join(worse)}" if worse else "nothing got worse")
    return 1 if worse else 0


def _arguments() -> argparse.Namespace:
    parser = Parser(prog="redline gate", description=__doc__)
    parser.add_argument("baseline", type=Path, metavar="BASELINE", help="a stored result.json")
    parser.add_argument(
        "new", type=Path, nargs="?", metavar="NEW", help="default: the newest under mlruns/searches/"
    )
    parser.add_argument(
        "--tolerance", type=float, default=TOLERANCE, help="nats, where there is a single seed (%(default)s)"
    )
    parser.add_argument(
        "--confidence", type=float, default=CONFIDENCE, help="of the interval over seeds (%(default)s)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    begin_command()
    with user_errors():
        sys.exit(main())
