"""The BEATs encoder, its tokenizer, their heads and losses: torch only."""
