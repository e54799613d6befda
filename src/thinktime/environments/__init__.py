"""Environments that need nothing installed: a calculator and a key-value store in memory."""
