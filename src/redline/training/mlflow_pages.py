"""Pages of MLflow's UI, by the address at which it answers."""


def run_page(ui: str, run_id: str) -> str:
    return f"{ui.rstrip('/')}/#/runs/{run_id}"


def charts_page(ui: str, experiment_id: str) -> str:
    """An experiment's runs, with a chart for every metric."""
    # Unless it is told otherwise the UI opens on its pages for language models in use.
    view = "workflowType=machine_learning&compareRunsMode=CHART"
    return f"{ui.rstrip('/')}/#/experiments/{experiment_id}/runs?{view}"
