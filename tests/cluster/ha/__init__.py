"""Loss of pods, nodes and stores: values-ha.yaml, with stores of the tests' own."""
