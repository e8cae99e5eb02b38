"""gift: make text-to-image diffusion models hard to fine-tune for harm, and measure how hard."""
