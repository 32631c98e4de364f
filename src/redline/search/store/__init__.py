"""The search's only state: Optuna studies, who works on them, and how an outage is borne."""
