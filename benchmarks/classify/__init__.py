"""A classification task made by a program: which of 10 shapes is in a noisy, cluttered picture of 32 x 32."""
