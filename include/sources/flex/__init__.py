"""Flex: its crew calls kept equal to our assignments. Here the warehouse is the truth and the vendor is the copy."""
