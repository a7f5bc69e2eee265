"""The benchmark: fits CCMC surrogates to attention models and measures how far they explain them."""
