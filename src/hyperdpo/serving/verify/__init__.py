"""Whether a running server turns the dial that ``dial.json`` describes."""
