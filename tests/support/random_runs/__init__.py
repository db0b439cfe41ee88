"""Random work in many contexts, with a model of what must come of it."""
