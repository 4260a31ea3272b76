"""The published DCLS networks for timm; importing ``dcls`` registers them."""
