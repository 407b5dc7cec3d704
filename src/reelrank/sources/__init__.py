"""Raw files of one data set to canonical tables, one module per data set."""
