"""Commands about data, features, training, models and packages."""
