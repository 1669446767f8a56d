"""The job of another engine that computes features of streams: started, stopped and looked at."""
