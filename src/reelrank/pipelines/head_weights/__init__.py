"""Head weights: what the logged rankings reward, and what they leave unexplained."""
