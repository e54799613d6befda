"""``python -m thinktime``."""

from thinktime.cli import run

run()
