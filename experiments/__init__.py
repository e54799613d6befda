"""One folder per measurement: its command, its JSON result, its plot."""
