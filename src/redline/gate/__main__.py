"""Compare a search's result.json with a stored one; for a team's CI.

Exits with 0 where nothing got worse, 1 where a variant's largest useful or stable LR or its perplexity got
worse beyond doubt (`redline/gate/compare.py` says what that means), 2 where the two cannot be compared.
"""

import argparse
import sys
from pathlib import Path

from redline.command_line import Parser, begin_command, user_errors
from redline.errors import UserError

# The lowest losses of two searches with one seed each differ by 0.08 nats (standard deviation, over the 60
# pairs of seeds in bench/grid_tiny.csv); no pair differs by more than 0.2. At the useful edge, where the
# curve is steep, they differ by 0.16 nats: so losses of single seeds are not compared there.
TOLERANCE = 0.2
# A variant is held against the baseline three times (two edges, one loss). Unchanged, each may be called
# worse by luck in 2%, 2% and 1% of cases, so that all of them together stay at 5% or less.
CONFIDENCE = 0.98
_WIDTH = 160  # columns, where the output is no terminal


def main() -> int:
    arguments = _arguments()
    if not arguments.tolerance >= 0:
        raise UserError(f"--tolerance={arguments.tolerance:g}: allowed: 0 or more nats")
    if not 0 < arguments.confidence < 1:
        raise UserError(f"--confidence={arguments.confidence:g}: allowed: between 0 and 1")
    from rich.console import Console

    from redline.gate.compare import compare
    from redline.gate.read import check_comparable, newest_result, remarks
    from redline.gate.table import difference_table
    from redline.search.result import SearchResult

    path = arguments.new or newest_result(other_than=arguments.baseline)
    baseline, new = SearchResult.read(arguments.baseline, "BASELINE"), SearchResult.read(path, "NEW")
    check_comparable(baseline, new)
    differences = compare(baseline, new, tolerance=arguments.tolerance, confidence=arguments.confidence)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    console.print(f"{arguments.baseline} → {path}", soft_wrap=True)
    console.print(difference_table(differences, new))
    for its, result in ((arguments.baseline, baseline), (path, new)):
        for remark in remarks(its, result, baseline):
            console.print(remark, soft_wrap=True)
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
        "--tolerance",
        type=float,
        default=TOLERANCE,
        help="nats between lowest losses, where the edges differ or there is a single seed (%(default)s)",
    )
    parser.add_argument(
        "--confidence",
        type=float,
        default=CONFIDENCE,
        help="probability that an edge fell; of the interval of the loss over seeds (%(default)s)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    begin_command()
    with user_errors():
        sys.exit(main())
