"""Regions and genomes in, windows out: the only room that opens BED and FASTA files."""
