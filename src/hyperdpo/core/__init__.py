"""The paper's mathematics on tensors. Knows no files and no models."""
