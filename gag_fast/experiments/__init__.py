"""The paper's experiments: its tables, its figure 4, its three cases, and a synthetic one.

published.py        the figures of Tables 1 to 3, as printed
cases.py            imagenet-s, isic, places365: what each consists of
imagenet_s.py       isic.py, places365.py: one loader and one model each
tf_efficientnet.py  EfficientNet-B4 as the winning ISIC solution stores it
synthetic.py        textured objects with exact masks, and a classifier trained on them
propositions.py     Figure 4 and both propositions
maps.py             which maps each table needs
experiment.py       what is asked of a reproduction
prepare.py          its model, classifier, images and masks
reproduce.py        maps and scores of all images, kept in a run folder
tables.py           rows into the paper's form, beside the published figures
trends.py           which of the published trends hold
draw.py             tables and Figure 4 as pictures (matplotlib, the [plot] extra)

The commands are `gag-fast reproduce` and `gag-fast synthetic`.
"""
