"""The command `redline`: its first word names what to do, the others are that command's."""

import sys
from importlib import import_module

from redline.command_line import did_you_mean, user_errors
from redline.errors import UserError

# By name, so that a command imports only what it needs.
_COMMANDS = {
    "train": ("redline.commands.train:train", "one run: redline train norm=qkv lr=0.03"),
    "search": ("redline.commands.train:search", "each variant's edge: redline search norm=baseline,qk"),
    "report": ("redline.report.__main__:main", "one HTML page on a search: redline report NAME"),
    "gate": ("redline.gate.__main__:main", "has anything got worse? redline gate BASELINE.json NEW.json"),
    "dashboard": ("redline.dashboard.__main__:main", "Optuna's dashboard on the searches"),
    "ui": ("redline.commands.ui:ui", "MLflow's UI on what was tracked"),
    "send": ("redline.commands.send:send", "send what waits for MLflow in mlruns/outbox"),
}


def main() -> None:
    """Run the command that `sys.argv` names, with the rest of `sys.argv`."""
    with user_errors():
        command, *sys.argv[1:] = sys.argv[1:] or [""]
        if command in ("-h", "--help"):
            print(__doc__, *(f"  {name:<11}{says}" for name, (_, says) in _COMMANDS.items()), sep="\n")
            print("Each has --help. Settings are key=value; files of your own: --config-dir FOLDER.")
            return
        if command not in _COMMANDS:
            what = f"unknown command{did_you_mean(command, _COMMANDS)}" if command else "no command given"
            raise UserError(f"redline {command}".strip() + f": {what}; allowed: {', '.join(_COMMANDS)}")
        module, _, function = _COMMANDS[command][0].partition(":")
        sys.exit(getattr(import_module(module), function)())
