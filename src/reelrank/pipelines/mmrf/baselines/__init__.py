"""The seven methods that MMRF is measured against: METHODS §4.7."""
