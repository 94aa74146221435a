"""`e0 doctor`: finds on a machine what goes wrong on a bench, and says how to cure it."""
