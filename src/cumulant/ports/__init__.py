"""What the rooms need from the world: one small Protocol a file. Drivers implement them."""
