"""The shared language of every room: pure values, no input or output."""
