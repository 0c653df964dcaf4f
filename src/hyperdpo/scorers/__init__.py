"""Scores of texts, by name: measures of words, packages, classifiers, your own functions."""
