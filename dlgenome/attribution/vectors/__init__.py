"""Products of matrices, towers and maxima by the processor's vectors of sixteen numbers (AVX-512).

Libraries choose among their instructions by who made the processor, and some give those of one maker half of
what it can do. What is here asks for the instructions alone. Where fewer digits will do, whole numbers of
sixteen bits are multiplied in pairs.
"""
