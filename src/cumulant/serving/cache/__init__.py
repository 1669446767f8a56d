"""The second tier of the prediction cache: answers that several servers share."""
