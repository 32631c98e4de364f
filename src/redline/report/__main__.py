"""`redline report NAME`: the report on a search."""

from pathlib import Path

from redline.command_line import Parser, begin_command, user_errors
from redline.config import shipped
from redline.files import check_writable


def main() -> None:
    sweeper, default = shipped("hydra/sweeper/max_lr"), "(%(default)s)"
    uri, folder = shipped("tracker/mlflow").tracking_uri, Path("mlruns/searches")
    parser = Parser(prog="redline report", description="Write the report on a search.")
    parser.add_argument("name", nargs="?", help="of the search; default: the latest one")
    parser.add_argument(
        "--storage", default=sweeper.storage, help=f"Optuna's, as hydra.sweeper.storage {default}"
    )
    parser.add_argument("--tracking-uri", default=uri, help=f"MLflow's, or 'none' {default}")
    parser.add_argument("--searches", type=Path, default=folder, help=f"folder {default}")
    parser.add_argument("--reference", default=sweeper.reference, help=f"variant of the ratios {default}")
    with user_errors():
        given = parser.parse_args()
        check_writable(given.searches, "--searches")
        from redline.report.load import load_search
        from redline.report.page import write_report

        search = load_search(
            given.name or None, storage=given.storage, tracking_uri=given.tracking_uri, prefix="--"
        )
        path = write_report(search, given.searches / search.name / "report", given.reference)
        print(f"report: {path}")


if __name__ == "__main__":
    begin_command()
    main()
