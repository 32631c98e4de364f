"""`redline report NAME`: the report on a search."""

from pathlib import Path

from redline.command_line import Parser, user_errors
from redline.report.stores import Stores, default_reference, default_stores


def main() -> None:
    default = default_stores()
    parser = Parser(prog="redline report", description="Write the report on a search.")
    parser.add_argument("name", nargs="?", help="of the search; default: the latest one")
    parser.add_argument(
        "--storage", default=default.storage, help="Optuna's, as hydra.sweeper.storage (%(default)s)"
    )
    parser.add_argument(
        "--tracking-uri", default=default.tracking_uri, help="MLflow's, or 'none' (%(default)s)"
    )
    parser.add_argument("--searches", type=Path, default=default.searches, help="folder (%(default)s)")
    parser.add_argument(
        "--reference", default=default_reference(), help="variant of the ratios (%(default)s)"
    )
    with user_errors():
        given = parser.parse_args()
        from redline.report.load import read_search
        from redline.report.page import write_report

        tracking_uri = None if given.tracking_uri == "none" else given.tracking_uri
        search = read_search(Stores(given.storage, tracking_uri, given.searches), given.name or None)
        path = write_report(search, given.searches / search.name / "report", given.reference)
        print(f"report: {path}")


if __name__ == "__main__":
    main()
