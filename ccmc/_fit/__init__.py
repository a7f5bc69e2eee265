"""How fits move: passes over rows or along sequences, and the solver that decides where to look next."""
