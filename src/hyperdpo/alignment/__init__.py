"""Language models: preference data, conditioned adapters, training and generation at any weights."""
