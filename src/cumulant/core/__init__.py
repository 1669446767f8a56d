"""Values shared by all packages: pure, without input or output."""
