"""MMRF: seven agents, one per response, that share what helps them all. Source: METHODS §4, arXiv 2405.01847."""
