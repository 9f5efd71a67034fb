"""Tables in HTML: escaped, and readable on light and dark pages."""

from report_cases import Tables

from tag_keras.utils.html_tables import Cell, block, paragraph, table

NASTY = "<script>alert('1')</script> & \"$x^2$\" a/b 温度"


def test_every_text_is_escaped_and_comes_back():
    page = block(paragraph(NASTY), table([NASTY] * 2, [[NASTY, Cell(NASTY, title=NASTY)]]))
    assert "<script" not in page and "&lt;script&gt;" in page
    assert 'title="&lt;script' in page and page.count('"$x') == 0
    assert Tables(page).tables == [[[[NASTY], [NASTY]], [[NASTY], [NASTY]]]]
    # What stands outside of the cells, too.
    assert page.startswith('<div class="tex2jax_ignore mathjax_ignore"')
    assert f"<p>{NASTY}</p>" not in page


def test_a_table_says_which_cells_are_headings():
    page = table(["task", "loss"], [["a", Cell("1.5", align="right")], ["b", "2\n3"]])
    assert page.count('<th scope="col"') == 2 and page.count('<th scope="row"') == 2
    assert "text-align:right" in page and "2<br>3" in page
    assert Tables(page).tables == [[[["task"], ["loss"]], [["a"], ["1.5"]], [["b"], ["2", "3"]]]]


def test_only_cells_with_a_background_set_the_colour_of_their_text():
    plain, coloured = Cell("0", None), Cell("1", 1.0)
    assert "background" not in table(["", "a"], [["b", plain]])
    page = table(["", "a"], [["b", plain, coloured]])
    assert page.count("background:#2166ac;color:#ffffff") == 1 == page.count("color:#")
    # White is a colour, too.
    assert "background:#ffffff;color:#000000" in table(["", "a"], [["b", Cell("0", 0.0)]])


def test_headings_of_narrow_columns_stand_upright():
    assert "vertical-rl" not in table(["", "a"], [["b", "1"]])
    assert table(["", "a", "c"], [["b", "1", "2"]], upright=True).count("vertical-rl") == 2
