"""``python -m lesionsynth``."""

from lesionsynth.cli.app import main

if __name__ == "__main__":
    main()
