"""``hyperdpo explore``: a page that shows what a run answers at any weights, scale and temperatures."""
