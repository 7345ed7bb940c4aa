"""Training on Lightning Fabric: pictures in, a folder with weights, logs and a model card out."""
