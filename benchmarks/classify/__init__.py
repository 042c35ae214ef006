"""A classification task made by a program: which of 16 shapes is in a noisy, cluttered picture of 32 x 32."""
