"""Imported by the server that a search forks its trials from: pays every slow import once.

MLflow opens its SQL store lazily, and SQLAlchemy wires its mappers at first use; together two
seconds that each trial would pay again. Starts no thread and touches no device.
"""

import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
from sqlalchemy.orm import configure_mappers

import redline.training.jobs  # noqa: F401

configure_mappers()
