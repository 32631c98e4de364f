"""Optuna's dashboard on the searches, with verdicts as the search judges them now."""
