"""The HTTP service: the composition root, and the only importer of the stages."""
