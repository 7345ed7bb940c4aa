"""TensorRT: one import boundary for its versions, manifests, profiles and layer precisions."""
