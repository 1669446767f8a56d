"""Container images with the data plane and one servable: build folder and build tool."""
