"""Servers: ``POST /rank`` for rankers, OpenAI's API for language models."""
