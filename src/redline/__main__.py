"""`python -m redline …`: the command `redline`, by the interpreter that runs it."""

from redline.commands import main

if __name__ == "__main__":
    main()
