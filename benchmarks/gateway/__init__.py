"""The gateway and its HTTP client, beside their peers."""
