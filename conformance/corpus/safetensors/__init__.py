"""SafeTensors files by class: malformed, valid but unusual, and one checkpoint in many containers."""
