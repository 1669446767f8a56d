"""Commands that show the whole loop on data that come with the package."""
