"""Optuna's dashboard on the searches."""
