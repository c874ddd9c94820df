"""Runs: a data set explained and scored into a folder that any restart goes on with.

plan.py       chunks of images, the unit of work; what of it is missing
folder.py     RUN on disk: manifest.json, results/part-*.parquet, maps/part-*.npz
rows.py       the columns of a result row
decoding.py   images decoded in processes of their own
worker.py     one chunk: gradients and maps, then scores
local.py      the chunks through one worker, its stages overlapped
on_ray.py     the chunks through many workers on a Ray cluster
run.py        evaluate(): all of it, with resume, signals and progress

A chunk is always computed as a whole and from the same images, so the bits of a row depend on
neither the moment of a restart nor the engine.
"""
