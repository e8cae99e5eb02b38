"""Pictures, captions and prompts, and the training sets made from them."""
