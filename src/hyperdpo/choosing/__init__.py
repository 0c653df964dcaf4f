"""Which weights and scale to ship: one metric as good as it gets, subject to requirements on others."""
