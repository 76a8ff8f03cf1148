"""HTTP and IPP."""
