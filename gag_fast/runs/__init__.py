"""Runs: a data set explained and scored into a folder that any restart goes on with.

request.py    what a user asks for, and how it turned out
api.py        gag_fast.run(): the same from Python
run.py        run(): opens, then computes what is missing
opening.py    everything before the first image: model, data, classifier, folder, manifest
computing.py  what is missing, with signals and progress
chunks.py     chunks of images, the unit of work; resume.py: which of them are missing
manifest.py   manifest.json: what decides the numbers, and whether two runs agree
folder.py     RUN on disk: manifest.json, results/part-*.parquet, maps/part-*.npz
rows.py       the columns of a result row
decoding.py   images decoded in processes of their own
given.py      maps that were computed elsewhere
worker.py     one chunk: gradients and maps, then scores
executor.py   who computes: local.py, one worker, its stages overlapped; on_ray.py, a Ray cluster

A chunk is always computed as a whole and from the same images, so the bits of a row depend on
neither the moment of a restart nor who computes it.
"""
