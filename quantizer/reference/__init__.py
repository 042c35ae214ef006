"""Device numerics at PyTorch speed: run a quantized graph exactly as the machine would."""

from quantizer.reference.walk import Reference, reference

__all__ = ["Reference", "reference"]
