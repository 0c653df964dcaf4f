"""Grouped data: readers, the memory-mapped cache, splits, transforms, batches, the generator."""
