"""Workers: processes that take the steps that other processes' commands have queued, on any machine."""
