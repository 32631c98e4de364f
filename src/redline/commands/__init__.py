"""The command `redline`: its first word names what to do, the others are that command's."""

import sys
from typing import Any

from redline.command_line import begin_command, user_errors
from redline.errors import UserError, did_you_mean


def _train() -> Any:
    """one run: redline train norm=qkv lr=0.03"""
    from redline.commands.train import train

    return train()


def _search() -> Any:
    """each variant's edge: redline search norm=baseline,qk"""
    from redline.commands.train import search

    return search()


def _plan() -> Any:
    """what a search would need, without training: redline plan experiment=paper"""
    from redline.commands.train import plan

    return plan()


def _report() -> Any:
    """one HTML page on a search: redline report NAME"""
    from redline.report.__main__ import main

    return main()


def _gate() -> Any:
    """has anything got worse? redline gate BASELINE.json NEW.json"""
    from redline.gate.__main__ import main

    return main()


def _dashboard() -> Any:
    """Optuna's dashboard on the searches"""
    from redline.dashboard.__main__ import main

    return main()


def _ui() -> Any:
    """MLflow's UI on what was tracked"""
    from redline.commands.ui import ui

    return ui()


def _send() -> Any:
    """send what waits for MLflow in mlruns/outbox"""
    from redline.commands.send import send

    return send()


# A command imports only what it needs.
_COMMANDS = {
    its.__name__.removeprefix("_"): its
    for its in (_train, _search, _plan, _report, _gate, _dashboard, _ui, _send)
}


def main() -> None:
    """Run the command that `sys.argv` names, with the rest of `sys.argv`."""
    begin_command()
    with user_errors():
        command, *sys.argv[1:] = sys.argv[1:] or [""]
        if command in ("-h", "--help"):
            print(__doc__, *(f"  {name:<11}{its.__doc__}" for name, its in _COMMANDS.items()), sep="\n")
            print("Each has --help. Settings are key=value; files of your own: --config-dir FOLDER.")
            return
        if command not in _COMMANDS:
            what = f"unknown command{did_you_mean(command, _COMMANDS)}" if command else "no command given"
            raise UserError(f"redline {command}".strip() + f": {what}; allowed: {', '.join(_COMMANDS)}")
        sys.exit(_COMMANDS[command]())
