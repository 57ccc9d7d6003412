"""Named datasets as arrays, and the pipelines over them."""
