"""An image that holds the data plane and one servable: its build folder, and the tool that builds it."""
