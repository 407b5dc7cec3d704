"""What every model shares when it learns: loop, device, seeds, checkpoints."""
