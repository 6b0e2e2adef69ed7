"""Other roads to the same end. Each module is a job that imports its library; none is needed by the rest."""
