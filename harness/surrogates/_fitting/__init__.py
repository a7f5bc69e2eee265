"""What surrogates share: fits, passes over texts, rollouts and decoding."""
