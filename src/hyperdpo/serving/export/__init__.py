"""Trained runs as files that are served without this package."""
