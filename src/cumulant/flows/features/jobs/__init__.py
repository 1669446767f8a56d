"""The job of another engine that computes features of streams: started, stopped, listed and supervised."""
