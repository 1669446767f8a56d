"""The servable: its folder, its engine, and how a row is scored. All that serving needs."""
