"""What the stores of a project hold by kind and storage class, what that costs, and rules of the clouds for it."""
