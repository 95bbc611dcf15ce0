"""Random weights for every row of the registry, as files of the published formats: one module for each loader."""
