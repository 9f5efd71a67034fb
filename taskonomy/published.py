"""Numbers of Standley et al. 2020 (arXiv 1905.07553), and of TAG after them."""

# At most 100 epochs, the default of both.
EPOCHS = 100
# Channels of the two first convolutions, and of the three blocks that halve the image. The eight
# blocks after these have as many as the last of them. In Standley's networks "full" has the cost 1
# and "half" 0.5; TAG trains "wide", with the cost of about 1.5.
WIDTHS = {
    "full": (32, 64, 128, 256, 728),
    "half": (24, 48, 96, 192, 512),
    "wide": (48, 96, 196, 384, 1092),
}
# Total test losses of Standley et al. 2020 by budget, figure 3, read off their code.
PUBLISHED = {
    "optimal": (0.50273, 0.46132, 0.45224, 0.44612, 0.44235, 0.43932, 0.43555, 0.43555, 0.43481),
    "esa": (0.50273, 0.48732, 0.46727, 0.46063, 0.45722, 0.45058, 0.45058, 0.44742, 0.44742),
    "hoa": (0.50278, 0.46132, 0.45474, 0.4505, 0.44875, 0.44489, 0.44112, 0.44552, 0.44196),
}
BUDGETS = tuple(1 + step / 2 for step in range(9))
SOURCE = (
    "tstandley/taskgrouping, network_selection/make_plots.py, setting 1, with networks of half the "
    "size for single tasks; there each task is served by the chosen network that is best on the "
    "test data, here by the one that is best on validation data"
)
