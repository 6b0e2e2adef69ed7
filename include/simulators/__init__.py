"""Small servers that behave as the vendors do, with faults to order; they share no code with the rest."""
