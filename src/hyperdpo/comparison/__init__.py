"""Methods compared side by side, for rankers and for language models: ``rank compare`` and ``align compare``."""
