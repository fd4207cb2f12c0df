"""`python -m pgembed` is the command `pgembed`."""

from pgembed.cli.app import main

if __name__ == "__main__":
    main()
