"""Several processes that train one ensemble: who they are, how they meet, what a lost one looks like."""
