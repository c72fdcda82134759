"""Keras model files as torch modules, read with h5py alone: no Keras, no TensorFlow, no stored code run."""
