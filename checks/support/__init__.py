"""What several checks share: building, planting controls, tensors, models. It observes nothing by itself."""
