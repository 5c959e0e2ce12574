"""Readers of SafeTensors files that people ship, each behind the file capability alone."""
