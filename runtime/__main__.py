"""`python -m runtime` and `orders`: the same program."""

from runtime.cli import main

if __name__ == "__main__":
    main()
