"""Trained runs as exported files, and the servers."""
