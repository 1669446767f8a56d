"""The servable: its folder, its engine, and scoring of rows; everything that serving needs of a model."""
