"""The fused ops, one file each: contract, torch reference, dispatch. The reference is the definition."""
