"""Random work in many contexts, with a model that knows the right outcome."""
