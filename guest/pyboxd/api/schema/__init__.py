"""Docker's JSON keys: the only modules of the engine that know them."""
