"""Passwords: hidden in every form, and nowhere after a run and a search that were given them in each."""

import sqlite3
import stat
from pathlib import Path

import psycopg
import pytest
import yaml

from command_helpers import Answer, Ask
from postgresql_server import ESCAPED, PASSWORD, USER, PostgreSQL
from redline.errors import UserError
from redline.secrets import without_password, without_passwords
from redline.stores import check_database, check_tracking_uri

SECRET = "hunter2"


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me:hunter2@host:5432/db",
        "postgresql+psycopg://me:hunter2@host/db?sslmode=require",
        "postgresql://me:a@hunter2@host/db",
        "postgresql://me:a/hunter2@host/db",
        "postgresql://me:a:hunter2@host/db",
        "postgresql://me:hunter2%40@host/db",
        "https://hunter2@host/path",
        "https://x-access-token:hunter2@host",
        "postgresql://host/db?user=me&password=hunter2",
        "postgresql://host/db?password=a@hunter2&user=me",
        "postgresql://host/db?sslpassword=hunter2",
        "https://host/api?token=hunter2",
        "https://host/api?access_token=hunter2&x=1",
        "https://host/api?key=hunter2",
        "https://host/api?x=1&api_key=hunter2",
        "mysql://host/db?passwd=hunter2",
        "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BUID%3Dme%3BPWD%3Dhunter2",
        "host=h user=me password=hunter2 dbname=d",
        "host=h password = 'a \\' hunter2' dbname=d",
        'PGPASSWORD="a hunter2" redline search',
        "PGPASSWORD=hunter2",
        "MLFLOW_TRACKING_TOKEN=hunter2",
        "hydra.sweeper.storage=postgresql://me:hunter2@host/db",
        "could not connect to 'postgresql://me:hunter2@host/db': no route",
        "+tracker.wandb.api_key=hunter2",
        "+tracker.wandb={api_key: hunter2}",
    ],
)
def test_a_password_is_hidden_in_every_form(text: str) -> None:
    hidden = without_password(text)
    assert SECRET not in hidden
    assert "***" in hidden


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:///mlruns/optuna.db",
        "sqlite:////home/me@work/optuna.db",
        "http://localhost:5000/#/experiments/1",
        "postgresql://host/db",
        "hydra.sweeper.key=lr",
        "data.token_type=uint16",
        "data.source.text_key=text",
        'FATAL: password authentication failed for user "me"',
    ],
)
def test_what_is_no_password_is_shown(text: str) -> None:
    assert without_password(text) == text


def test_values_under_a_secrets_name_are_hidden_whatever_they_are() -> None:
    values = {
        "a": {"password": 1234, "token": "x", "key": "lr", "urls": ["http://me:hunter2@h"]},
        "pwd": None,
    }
    hidden = {"a": {"password": "***", "token": "***", "key": "lr", "urls": ["http://me:***@h"]}, "pwd": None}
    assert without_passwords(values) == hidden


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:a@hunter2@host/db",
        "postgresql://me/hunter2@host/db",
        "postgresql://me:a hunter2@host/db",
        "postgresql://host/db?password=a hunter2",
    ],
)
def test_a_password_that_a_driver_would_take_for_a_host_is_refused(url: str) -> None:
    for check in (check_database, check_tracking_uri):
        with pytest.raises(UserError, match=r"^KEY: .*%40") as refused:
            check(url, "KEY")
        assert SECRET not in str(refused.value)


def files_with(secret: str, folder: Path) -> list[str]:
    """Those whose name or content has it; and the tables of databases, as they are read."""
    found = []
    for path in folder.rglob("*"):
        if secret in path.name or (path.is_file() and secret.encode() in path.read_bytes()):
            found.append(str(path))
        if path.is_file() and path.read_bytes()[:6] == b"SQLite":
            with sqlite3.connect(path) as database:
                found += [f"{path}: {line}" for line in database.iterdump() if secret in line]
    return found


def is_kept_secret(answer: Answer, cwd: Path) -> None:
    assert answer.status == 0, answer
    assert SECRET not in answer.stdout + answer.stderr
    assert files_with(SECRET, cwd) == []
    for path in cwd.rglob("*"):
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert path.is_symlink() or not mode & 0o077, (path, oct(mode))


@pytest.fixture
def given(shared: Path) -> list[str]:
    """A small run, with a password in every form that a file of settings may get."""
    return [
        *["experiment=smoke", "norm=qk", "trainer.max_steps=3", "trainer.accelerator=cpu"],
        f"data.cache_dir={shared / 'tokens'}",
        "+tracker.mlflow.token=hunter2",
        "search.mlflow_ui=http://me:hunter2@localhost:5000",
        "tracker=[mlflow,csv]",
        "~tracker.mlflow.token",
        "+data.source.pattern_password=hunter2",
        "~data.source.pattern_password",
    ]


OPEN = "import os; os.umask(0o022)"
SHORT = ["lr=0.01,0.1", "hydra.sweeper.budget=1", "hydra.sweeper.extend=false", "hydra.sweeper.workers=1"]


def test_a_run_leaves_no_password_and_is_its_owners(ask: Ask, given: list[str], tmp_path: Path) -> None:
    cwd = tmp_path / "run"
    cwd.mkdir(mode=0o700)
    is_kept_secret(ask(*given, cwd=cwd, before=OPEN), cwd)
    (settings,) = cwd.glob("mlruns/runs/*/.hydra")
    assert {path.name for path in settings.iterdir()} == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    assert yaml.safe_load((settings / "config.yaml").read_text())["trainer"]["max_steps"] == 3
    assert "norm=qk" in yaml.safe_load((settings / "overrides.yaml").read_text())


def test_a_search_leaves_no_password_and_is_its_owners(ask: Ask, given: list[str], tmp_path: Path) -> None:
    cwd = tmp_path / "search"
    cwd.mkdir(mode=0o700)
    storage = "hydra.sweeper.storage='sqlite:///file:mlruns/optuna.db?uri=true&password=hunter2'"
    answer = ask("-m", *given, storage, *SHORT, cwd=cwd, before=OPEN)
    is_kept_secret(answer, cwd)
    (search,) = cwd.glob("mlruns/searches/*")
    assert (search / "multirun.yaml").is_file()
    assert list(search.glob("report/*.html"))
    assert list(cwd.glob("mlruns/artifacts/**/config.yaml")), "MLflow has it all"


def test_a_plain_grid_leaves_no_password(ask: Ask, given: list[str], tmp_path: Path) -> None:
    cwd = tmp_path / "grid"
    cwd.mkdir(mode=0o700)
    is_kept_secret(ask("-m", *given, "hydra/sweeper=basic", "lr=0.01", cwd=cwd, before=OPEN), cwd)
    assert list(cwd.glob("mlruns/searches/*/multirun.yaml"))


def test_on_postgresql_too_and_in_none_of_its_tables(
    ask: Ask, given: list[str], tmp_path: Path, postgresql: PostgreSQL
) -> None:
    """By the password that the server asks for, in the two forms that a URL has for it."""
    cwd = tmp_path / "search"
    cwd.mkdir(mode=0o700)
    secret = PASSWORD[:6]
    databases = [postgresql.new_database() for _ in range(2)]
    storage = postgresql.url(databases[0])
    query = f"user={USER}&password={ESCAPED}"
    tracking = f"postgresql://127.0.0.1:{postgresql.port}/{databases[1]}?{query}"
    words = [f"hydra.sweeper.storage='{storage}'", f"tracker.mlflow.tracking_uri='{tracking}'"]
    answer = ask("-m", *given, *words, *SHORT, cwd=cwd)
    is_kept_secret(answer, cwd)
    assert secret not in answer.stdout + answer.stderr
    assert files_with(secret, cwd) == []
    for database in databases:
        with psycopg.connect(postgresql.url(database)) as connection:
            names = connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
            ).fetchall()
            assert names
            for (name,) in names:
                rows = connection.execute(f'SELECT * FROM "{name}"').fetchall()  # type: ignore[arg-type]
                assert secret not in str(rows), name
                assert SECRET not in str(rows), name
