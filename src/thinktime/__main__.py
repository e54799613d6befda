"""``python -m thinktime``."""

from thinktime.cli import run

if __name__ == "__main__":  # a process that it starts imports this file too
    run()
