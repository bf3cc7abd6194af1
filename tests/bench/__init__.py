"""`scripts/bench`: pybox and the stock engine side by side, in one run on one computer."""
