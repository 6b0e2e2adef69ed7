"""The kind of source that most are: an API whose lists are mirrored in the warehouse, table by table."""
