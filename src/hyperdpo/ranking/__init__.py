"""Learning to rank: scorers, training, metrics, saved runs and the scikit-learn estimator."""
