"""Small stories for demonstrations: the language model that writes them, preferences over them, measures of texts."""
