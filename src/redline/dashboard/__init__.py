"""Optuna's dashboard on the searches, with the search's verdicts of now."""
