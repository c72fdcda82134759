"""Convolutions by the processor's tile registers (Intel AMX), which multiply small matrices of bfloat16.

A float32 number is the sum of three bfloat16 numbers, without any error: each has eight of its 24 digits.
Six of the nine products of two such sums, added up in float32, make the product of two float32 numbers; what
is left out is below its last digit. Six products here take less time than one product of float32 elsewhere.

Numbers below about 1e-33 lose digits, for the registers take subnormal pieces for zero; infinite ones become
no numbers.
"""
