"""The paper's experiments: its tables, its figure 4, its three cases, and a synthetic one.

published.py     the figures of Tables 1 to 3, as printed
cases.py         imagenet-s, isic, places365: what each consists of
imagenet_s.py    isic.py    places365.py    one loader and one model each
tf_efficientnet.py   EfficientNet-B4 as the winning ISIC solution stores it
synthetic.py     textured objects with exact masks, and a classifier trained on them
propositions.py  Figure 4 and both propositions
maps.py          which maps each table needs, and how each is made
reproduce.py     a table on a data set: maps, scores, rows kept on disk
tables.py        rows into the paper's form, beside the published figures
trends.py        which of the published trends hold in a set of rows
draw.py          the same as figures (matplotlib, the [plot] extra)
cli.py           `gag-fast reproduce`, `gag-fast synthetic`
"""
