"""`python -m pgembed` is the command `pgembed`."""

from pgembed_code.entry import main

if __name__ == "__main__":
    main()
