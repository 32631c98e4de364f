"""Train one run, or with -m search each variant's edge: `redline train` from a checkout. See README.md."""

import sys

try:
    from redline.command_line import begin_command, user_errors
    from redline.commands.train import train
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing}; run `make setup` once, then use .venv/bin/python")

if __name__ == "__main__":
    begin_command()
    with user_errors():
        train()
